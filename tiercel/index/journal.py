"""What has been encoded already? The dear part of a build, kept so that a build that was stopped goes on.

Rows are encoded and appended slab by slab: what was made of them to one file, a line about it to another. The line
carries a digest of the texts, so a slab is found again by what it says and not by where it stood, and one of the
vectors, so a slab that a crash cut short is encoded again. A commit removes the journal.

A slab is the rows' vectors, float16; where there are token vectors, then the number of each row's tokens, int32, and
the vectors of all tokens, float16, as a codec may have to see many of them before it can encode the first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import orjson

from tiercel.index.files import reached
from tiercel.index.row_encoder import Encoded, RowEncoder, Truncated

JOURNAL = "journal"

_SLAB_ROWS = 512
_SLAB_ROWS_WITH_TOKENS = 128
"""Some 50 MB of vectors, for rows of 256 tokens and 384 dimensions."""
_LINES = "slabs.jsonl"
_VECTORS = "vectors.bin"


class _Slab(NamedTuple):
    start: int
    size: int
    truncated: Truncated
    digest: str


class EncodingJournal:
    """Encodes rows for an index at this path, taking from its journal what an interrupted build left there.

    Attributes:
        truncated: rows cut to the models' windows, so far.
        resumed: rows that did not have to be encoded again, so far.
    """

    def __init__(self, path: Path, encoder: RowEncoder) -> None:
        self.truncated = Truncated()
        self.resumed = 0
        self._encoder = encoder
        self._slab_rows = _SLAB_ROWS if encoder.tokens is None else _SLAB_ROWS_WITH_TOKENS
        # Vectors of other models are of no use: each choice of them has a folder of its own.
        folder = path / JOURNAL / encoder.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        self._slabs = dict(_read_lines(folder / _LINES))
        self._vectors: BinaryIO = (folder / _VECTORS).open("ab+")
        self._lines: BinaryIO = (folder / _LINES).open("ab")
        if self._lines.tell():
            self._lines.write(b"\n")  # ends a line that a crash cut short

    def encode(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """What is stored of the rows in input order, slab by slab."""
        for first in range(0, len(texts), self._slab_rows):
            slab = texts[first : first + self._slab_rows]
            name = _digest(orjson.dumps(list(slab)))
            data = self._found(name, len(slab))
            if data is None:
                data = self._encoded(name, slab)
            yield _unpacked(data, len(slab), self._encoder.dimensions)

    def close(self) -> None:
        """Give the files up; what they hold stays for the next build."""
        self._vectors.close()
        self._lines.close()

    def _found(self, name: str, rows: int) -> bytes | None:
        """What was made of a slab, if it is there and whole."""
        slab = self._slabs.get(name)
        if slab is None or slab.start + slab.size > self._vectors.seek(0, os.SEEK_END):
            return None
        self._vectors.seek(slab.start)
        data = self._vectors.read(slab.size)
        if _digest(data) != slab.digest:
            return None
        self.resumed += rows
        self.truncated = _sum(self.truncated, slab.truncated)
        return data

    def _encoded(self, name: str, texts: Sequence[str]) -> bytes:
        before = self._encoder.truncated
        data = _packed(self._encoder.encode(texts))
        truncated = Truncated(*(now - then for now, then in zip(self._encoder.truncated, before, strict=True)))
        slab = _Slab(self._vectors.seek(0, os.SEEK_END), len(data), truncated, _digest(data))
        self._vectors.write(data)
        self._vectors.flush()
        os.fsync(self._vectors.fileno())
        reached("journal written")
        line = [name, slab.start, slab.size, list(truncated), slab.digest]
        self._lines.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._lines.flush()
        os.fsync(self._lines.fileno())
        reached("journal synced")
        self.truncated = _sum(self.truncated, truncated)
        return data


def _packed(encoded: Encoded) -> bytes:
    parts = [] if encoded.vectors is None else [encoded.vectors.tobytes()]
    if encoded.tokens is not None:
        parts.append(np.array([len(matrix) for matrix in encoded.tokens], dtype="<i4").tobytes())
        parts += [matrix.tobytes() for matrix in encoded.tokens]
    return b"".join(parts)


def _unpacked(data: bytes, rows: int, dimensions: tuple[int | None, int | None]) -> Encoded:
    dimension, token_dimension = dimensions
    vectors, tokens, place = None, None, 0
    if dimension is not None:
        vectors = np.frombuffer(data, dtype="<f2", count=rows * dimension).reshape(rows, dimension)
        place = vectors.nbytes
    if token_dimension is not None:
        sizes = np.frombuffer(data, dtype="<i4", count=rows, offset=place)
        flat = np.frombuffer(data, dtype="<f2", offset=place + sizes.nbytes).reshape(-1, token_dimension)
        tokens = np.split(flat, np.cumsum(sizes)[:-1])
    return Encoded(vectors, tokens)


def _sum(first: Truncated, second: Truncated) -> Truncated:
    return Truncated(*map(sum, zip(first, second, strict=True)))


def _read_lines(path: Path) -> Iterator[tuple[str, _Slab]]:
    """The slabs that a journal names; a line that a crash cut short, or that is no slab's, is passed over."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            name, start, size, (rows, token_rows), digest = orjson.loads(line)
        except (ValueError, TypeError):
            continue
        if type(name) is str and all(type(number) is int and number >= 0 for number in (start, size, rows, token_rows)):
            yield name, _Slab(start, size, Truncated(rows, token_rows), digest)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
