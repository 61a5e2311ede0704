"""What has been encoded already? The dear part of a build, kept so that a build that was stopped goes on.

Rows are encoded and appended slab by slab: their vectors to one file, a line about them to another. The line carries a
digest of the texts, so a slab is found again by what it says and not by where it stood, and one of the vectors, so a
slab that a crash cut short is encoded again. A commit removes the journal.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from tiercel.index.files import reached
from tiercel.protocols import Encoder

JOURNAL = "journal"

_SLAB_ROWS = 512
_LINES = "slabs.jsonl"
_VECTORS = "vectors.f16"


class _Slab(NamedTuple):
    start: int
    rows: int
    truncated: int
    digest: str


class EncodingJournal:
    """Encodes rows for an index at this path, taking from its journal what an interrupted build left there.

    Attributes:
        truncated: rows cut to the encoder's window, so far.
        resumed: rows that did not have to be encoded again, so far.
    """

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self.truncated = 0
        self.resumed = 0
        self._encoder = encoder
        # Vectors of another encoder are of no use: each has a folder of its own.
        folder = path / JOURNAL / encoder.fingerprint[:32]
        folder.mkdir(parents=True, exist_ok=True)
        self._slabs = dict(_read_lines(folder / _LINES))
        self._vectors: BinaryIO = (folder / _VECTORS).open("ab+")
        self._lines: BinaryIO = (folder / _LINES).open("ab")
        if self._lines.tell():
            self._lines.write(b"\n")  # ends a line that a crash cut short

    def encode(self, texts: Sequence[str]) -> Iterator[NDArray[np.float16]]:
        """Vectors of the rows in input order, slab by slab, each of shape (n, dimension), as they are stored."""
        for first in range(0, len(texts), _SLAB_ROWS):
            slab = texts[first : first + _SLAB_ROWS]
            name = _digest(orjson.dumps(list(slab)))
            data = self._found(name, len(slab))
            if data is None:
                data = self._encoded(name, slab)
            yield np.frombuffer(data, dtype="<f2").reshape(len(slab), self._encoder.dimension)

    def close(self) -> None:
        """Give the files up; what they hold stays for the next build."""
        self._vectors.close()
        self._lines.close()

    def _found(self, name: str, rows: int) -> bytes | None:
        """The vectors of a slab, if they are there and whole."""
        slab = self._slabs.get(name)
        if slab is None or slab.rows != rows or slab.start > self._vectors.seek(0, os.SEEK_END):
            return None
        self._vectors.seek(slab.start)
        data = self._vectors.read(2 * slab.rows * self._encoder.dimension)
        if _digest(data) != slab.digest:
            return None
        self.resumed += slab.rows
        self.truncated += slab.truncated
        return data

    def _encoded(self, name: str, texts: Sequence[str]) -> bytes:
        before = self._encoder.truncated
        data = self._encoder.encode_documents(texts).astype("<f2").tobytes()
        truncated = self._encoder.truncated - before
        slab = _Slab(self._vectors.seek(0, os.SEEK_END), len(texts), truncated, _digest(data))
        self._vectors.write(data)
        self._vectors.flush()
        os.fsync(self._vectors.fileno())
        reached("journal written")
        self._lines.write(orjson.dumps([name, *slab], option=orjson.OPT_APPEND_NEWLINE))
        self._lines.flush()
        os.fsync(self._lines.fileno())
        reached("journal synced")
        self.truncated += truncated
        return data


def _read_lines(path: Path) -> Iterator[tuple[str, _Slab]]:
    """The slabs that a journal names; a line that a crash cut short, or that is no slab's, is passed over."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            name, start, rows, truncated, digest = orjson.loads(line)
        except (ValueError, TypeError):
            continue
        if type(name) is str and all(type(number) is int and number >= 0 for number in (start, rows, truncated)):
            yield name, _Slab(start, rows, truncated, digest)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
