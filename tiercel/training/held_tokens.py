"""Token vectors that a frozen encoder gives once, for every step that needs them again."""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from tiercel.errors import ModelError

Tensor: TypeAlias = Any
Read: TypeAlias = Callable[[Sequence[str]], Sequence[Tensor]]
"""Gives for each text its token vectors, shape (tokens, width)."""

_TEXTS_AT_ONCE = 32
_SAY_SECONDS = 10.0


class HeldTokens:
    """The token vectors of texts in float16, in a nameless file that is mapped: 2 * width bytes a token.

    The file is where temporary files go (TMPDIR), and gone with the process. What a text has depends a little on those
    that it is padded with, so the same calls in the same order give the same numbers.
    """

    def __init__(self, read: Read, width: int, *, say: Callable[[str], None] = lambda line: None) -> None:
        self._read = read
        self._say = say
        self._width = width
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as this)
        weakref.finalize(self, self._file.close)
        self._mapped = np.empty((0, width), np.float16)
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, texts: Sequence[str]) -> None:
        """Read those that are not held yet, texts of like length together. Raises ModelError where the disk is full."""
        waiting = sorted(dict.fromkeys(text for text in texts if text not in self._places), key=len)
        if not waiting:
            return
        total, spoken = len(self._mapped), time.monotonic()
        try:
            for start in range(0, len(waiting), _TEXTS_AT_ONCE):
                if time.monotonic() - spoken >= _SAY_SECONDS:
                    self._say(f"token vectors of {start} of {len(waiting)} texts")
                    spoken = time.monotonic()
                part = waiting[start : start + _TEXTS_AT_ONCE]
                for text, tokens in zip(part, self._read(part), strict=True):
                    self._file.write(tokens.half().cpu().numpy().tobytes())
                    self._places[text] = (total, len(tokens))
                    total += len(tokens)
            self._file.flush()
        except OSError as error:
            raise ModelError(
                f"the token vectors of {len(waiting)} texts cannot be kept ({error.strerror or error})",
                expected="room where temporary files go",
                next_step="Make room, name another place in TMPDIR, or train with frozen = false",
                where=tempfile.gettempdir(),
            ) from error
        self._mapped = np.memmap(self._file, np.float16, "r", shape=(total, self._width))

    def padded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Float32 of shape (texts, most tokens, width), 0 where there is no token; and where there is one."""
        self.add(texts)
        places = [self._places[text] for text in texts]
        rows = [torch.from_numpy(np.array(self._mapped[start : start + count])).float() for start, count in places]
        counts = torch.tensor([count for _, count in places])
        filled = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return filled, torch.arange(filled.shape[1])[None, :] < counts[:, None]
