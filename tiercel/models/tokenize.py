"""Texts into token ids: a tokenizer.json, its special tokens, and a count of what had to be cut."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError


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
        from tokenizers import Tokenizer as RustTokenizer

        # The library's own thread pool does not survive a fork and warns about it. Callers here bring their own
        # threads, so it is left off unless the user has decided.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._tokenizer = RustTokenizer.from_str(_read_json_text(path))
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= special:
            raise ModelError(
                f"max_tokens is {max_tokens}",
                expected=f"more than the {special} special tokens of every text",
                where=str(path),
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Token ids of the texts, in input order, each at most `max_tokens` long; no texts: an empty batch."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return TokenBatch(
            ids=[np.array(encoding.ids, dtype=np.int64) for encoding in encodings],
            truncated=sum(1 for encoding in encodings if encoding.overflowing),
        )


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
