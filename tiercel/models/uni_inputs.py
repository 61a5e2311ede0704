"""What does a Uni-Encoder read of a query and its candidates? Windows, turns into one context, and what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models.tokenize import PairWindow

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

UniMask: TypeAlias = Literal["arrow", "one-way"]
"""What the context attends to: itself and the candidates, or itself alone. See `tiercel.models.uni_network`."""

_SPECIAL = 2


@dataclass(frozen=True, slots=True)
class UniSettings:
    """How a Uni-Encoder reads.

    Attributes:
        mask: what the context attends to.
        group_size: with `arrow`, how many candidates are read together, which their scores depend on; 0 with `one-way`,
            where they do not.
        context_tokens: most tokens of a context, special ones included.
        candidate_tokens: most tokens of a candidate, special ones included.

    Raises:
        ModelError: the mask is unknown, a window holds no token, or the group size does not fit the mask.
    """

    mask: UniMask = "one-way"
    group_size: int = 0
    context_tokens: int = 256
    candidate_tokens: int = 128

    def __post_init__(self) -> None:
        if self.mask not in get_args(UniMask):
            raise ModelError(f"mask {self.mask!r}", expected=" or ".join(get_args(UniMask)))
        if (self.group_size < 1) if self.mask == "arrow" else self.group_size:
            raise ModelError(
                f"group_size {self.group_size} with mask {self.mask}", expected="1 or more with arrow, 0 with one-way"
            )
        if min(self.context_tokens, self.candidate_tokens) <= _SPECIAL:
            raise ModelError(
                f"windows of {self.context_tokens} and {self.candidate_tokens} tokens",
                expected=f"more than the {_SPECIAL} special tokens of each",
            )

    @classmethod
    def of(cls, fields: Mapping[str, Any], *, where: str) -> UniSettings:
        """The settings that a file holds. Raises ModelError where they are not all there, or not as they should be."""
        try:
            return cls(**{name: fields[name] for name in cls.__slots__})
        except (KeyError, TypeError) as error:
            raise ModelError(f"a setting is missing or of the wrong kind ({error})", where=where) from error


class Context(NamedTuple):
    """The token ids of a context, int64 of shape (tokens,), and how many of its oldest tokens were left out."""

    ids: NDArray[np.int64]
    cut_tokens: int


class Candidates(NamedTuple):
    """The token ids of some candidates, int64 of shape (tokens,) each, and how many of them lost their end."""

    ids: list[NDArray[np.int64]]
    truncated: int


class UniTokenizer:
    """Cuts contexts and candidates into tokens. May be called from several threads at once.

    Args:
        tokenizer: BERT's: it puts one token before a text and one behind it.
        settings: the windows.

    Raises:
        ModelError: the tokenizer puts other tokens around a text.
    """

    def __init__(self, tokenizer: RustTokenizer, settings: UniSettings) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        around = tokenizer.encode("").ids
        if len(around) != _SPECIAL:
            raise ModelError(f"its tokenizer puts {len(around)} tokens around a text", expected="2, as BERT's does")
        self._first, self._last = around
        self._tokenizer = tokenizer
        self._settings = settings

    def context(self, turns: Sequence[str]) -> Context:
        """The turns, oldest first, as `[CLS] turn [SEP] turn [SEP]`; the newest tokens are what is kept.

        No turns are a context of no tokens but the special ones.
        """
        ids: list[int] = []
        for encoding in self._tokenizer.encode_batch_fast(list(turns), add_special_tokens=False):
            ids += [*encoding.ids, self._last]
        ids = ids or [self._last]
        room = self._settings.context_tokens - 1
        return Context(np.array([self._first, *ids[-room:]], np.int64), max(0, len(ids) - room))

    def candidates(self, texts: Sequence[str]) -> Candidates:
        """Each text as `[CLS] text [SEP]`, in input order; its first tokens are what is kept."""
        room = self._settings.candidate_tokens - _SPECIAL
        found = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        rows = [np.array([self._first, *ids[:room], self._last], np.int64) for ids in found]
        return Candidates(rows, sum(len(ids) > room for ids in found))

    def window(self, turns: Sequence[str], text: str) -> PairWindow:
        """What is read of a context and a candidate together."""
        asked = self.context(turns).ids
        second = self._tokenizer.encode(text, add_special_tokens=False)
        read = min(len(second), self._settings.candidate_tokens - _SPECIAL)
        end = len(text) if read == len(second) else second.offsets[read - 1][1]
        tokens = int(np.isin(asked, [self._first, self._last], invert=True).sum()) + read
        return PairWindow(tokens, len(second) - read, end)
