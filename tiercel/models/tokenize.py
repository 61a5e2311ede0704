"""Texts and pairs into token ids: a tokenizer.json, its special tokens, and a count of what had to be cut."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.parts import Piece, Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer


class TokenBatch(NamedTuple):
    """Token ids of some texts.

    Attributes:
        ids: per text one int64 array of shape (tokens,), special tokens included, in input order.
        truncated: how many of the texts were longer than the limit and lost their end.
    """

    ids: list[NDArray[np.int64]]
    truncated: int


class Tokenizer:
    """The tokenizer of one model. `encode` may be called from several threads at once.

    Args:
        path: a tokenizer.json; whatever padding or truncation it declares is replaced.
        max_tokens: most tokens of one text, special tokens included.

    Raises:
        ModelError: the file is missing or no tokenizer, or `max_tokens` leaves no room beside the special tokens.
    """

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        self._tokenizer = load_tokenizer(path)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= special:
            raise ModelError(
                f"max_tokens is {max_tokens}",
                expected=f"more than the {special} special tokens of every text",
                where=str(path),
            )
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Token ids of the texts, in input order, each at most `max_tokens` long; no texts: an empty batch."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return TokenBatch(
            ids=[np.array(encoding.ids, dtype=np.int64) for encoding in encodings],
            truncated=sum(1 for encoding in encodings if encoding.overflowing),
        )

    def read(self, text: str) -> tuple[NDArray[np.int64], Reading]:
        """What `encode` gives for one text: its token ids, and a piece for each."""
        encoding = self._tokenizer.encode(text)
        named = zip(encoding.tokens, encoding.offsets, strict=True)
        pieces = [Piece(text[start:end] or token, start, end) for token, (start, end) in named]
        end = max((piece.end for piece in pieces), default=0) if encoding.overflowing else len(text)
        return np.array(encoding.ids, dtype=np.int64), Reading(pieces, end)

    def name(self, token: int) -> str:
        """How the tokenizer calls a token."""
        return str(self._tokenizer.id_to_token(token))


class TokenPair(NamedTuple):
    """Token ids of a query and a document as one text, as the model's own tokenizer joins them.

    Attributes:
        ids: int64 of shape (tokens,), special tokens included.
        types: int64 of the same shape: which of the two a token is counted to.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]


class PairBatch(NamedTuple):
    """One query with each of some documents.

    Attributes:
        pairs: one per document, in input order.
        truncated: how many of the documents lost their end.
        query_truncated: whether the query lost its end too.
    """

    pairs: list[TokenPair]
    truncated: int
    query_truncated: bool


class PairWindow(NamedTuple):
    """What a cross-encoder reads of a query with a document.

    Attributes:
        tokens: of both, special ones not counted.
        cut_tokens: of the document, that do not fit.
        end: how many characters of the document are read.
    """

    tokens: int
    cut_tokens: int
    end: int


class PairTokenizer:
    """The tokenizer of one cross-encoder. `encode` may be called from several threads at once.

    A pair that is too long loses the end of its document, never of its query: a query that is cut asks for something
    else. Only one that fills the window by itself is cut, so that one token of each document is left.

    Args:
        path: a tokenizer.json; whatever padding or truncation it declares is replaced.
        max_tokens: most tokens of one pair, special tokens included.

    Raises:
        ModelError: the file is missing or no tokenizer, or `max_tokens` leaves no room for a token of each text.
    """

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        self._tokenizer = load_tokenizer(path)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_tokens < special + 2:
            raise ModelError(
                f"max_tokens is {max_tokens}",
                expected=f"at least {special + 2}: the {special} special tokens of every pair and one of each text",
                where=str(path),
            )
        self._tokenizer.no_truncation()
        self._room = max_tokens - special

    @property
    def room(self) -> int:
        """Most tokens of query and document together, special tokens not counted."""
        return self._room

    def count(self, text: str) -> int:
        """How many tokens a text has, special ones not counted."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def window(self, query: str, document: str) -> PairWindow:
        """What `encode` leaves of one document beside the query."""
        asked = min(self.count(query), self._room - 1)
        second = self._tokenizer.encode(document, add_special_tokens=False)
        read = min(len(second), self._room - asked)
        end = len(document) if read == len(second) else second.offsets[read - 1][1]
        return PairWindow(asked + read, len(second) - read, end)

    def encode(self, query: str, documents: Sequence[str]) -> PairBatch:
        """Token ids of the query with each document, in input order, each at most `max_tokens` long.

        An empty text is a text of no tokens; no documents: no pairs.
        """
        # Each text is cut into tokens once and alone, then joined: the same tokens as when they are given together.
        first, *rest = self._tokenizer.encode_batch_fast([query, *documents], add_special_tokens=False)
        query_truncated = len(first) > self._room - 1
        if query_truncated:
            first.truncate(self._room - 1)
        room = self._room - len(first)
        truncated = 0
        pairs = []
        for second in rest:
            if len(second) > room:
                second.truncate(room)
                truncated += 1
            joined = self._tokenizer.post_process(first, second)
            pairs.append(TokenPair(np.array(joined.ids, np.int64), np.array(joined.type_ids, np.int64)))
        return PairBatch(pairs, truncated, query_truncated)


def load_tokenizer(path: Path) -> RustTokenizer:
    """A tokenizer.json as it is, but without padding. Raises ModelError where the file is missing or no tokenizer."""
    from tokenizers import Tokenizer as RustTokenizer

    # The library's own thread pool does not survive a fork and warns about it. Callers here bring their own
    # threads, so it is left off unless the user has decided.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = RustTokenizer.from_str(_read_json_text(path))
    tokenizer.no_padding()
    return tokenizer


def _read_json_text(path: Path) -> str:
    # The library raises a plain Exception for a bad file, so what can be checked is checked before.
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot be read as JSON ({error})",
            expected="a tokenizer.json",
            next_step="Export the model again",
            where=str(path),
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ModelError(
            "holds no tokenizer",
            expected="a tokenizer.json with a `model`",
            next_step="Export the model again",
            where=str(path),
        )
    return text
