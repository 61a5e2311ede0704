"""One segment's token vectors: how are they kept for late interaction, and how are those of some rows fetched?

The tokens of all rows lie one after the other, each in the bytes that a codec of `residual.py` makes of it. Merging
copies these bytes where it can: to decode and encode again would lose a little each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tiercel.index.ann import FloatMatrix
from tiercel.index.files import damaged, map_array, write_array
from tiercel.index.residual import (
    TRAINING_TOKENS,
    Codec,
    Codes,
    centroid_count,
    check_codec,
    needs_training,
    open_codec,
    same,
    train,
    write_codec,
)

TOKENS = "tokens"
"""Name of the folder below a segment's."""

CODES = "codes.u8"
OFFSETS = "offsets.npy"

_BLOCK = 8_192
_MERGED_ROWS = 256

Part: TypeAlias = tuple["TokenVectors", NDArray[np.bool_] | None]
"""What of a segment is merged: its token vectors, and a mask over its rows (None: all)."""


class TokenVectors:
    """The token vectors of one segment, mapped into memory.

    Attributes:
        codec: what made the codes.
        offsets: shape (rows + 1,), int64: where each row's tokens begin. A row may have none.
        codes: shape (tokens, codec.bytes_per_token), uint8.
    """

    def __init__(self, folder: Path, codec: Codec, offsets: NDArray[np.int64], codes: Codes) -> None:
        self._folder = folder
        self.codec = codec
        self.offsets = offsets
        self.codes = codes

    def gather(self, rows: NDArray[np.integer]) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """The tokens of these rows, in their order, and where each row's begin.

        Args:
            rows: ordinals, shape (n,); one may come more than once.

        Returns:
            Float32 vectors, shape (tokens, dimension), and int64 offsets, shape (n + 1,).

        Raises:
            IndexStoreError: damaged codes.
        """
        codes, offsets = self.gather_codes(rows)
        return self._decoded(codes), offsets

    def check(self) -> None:
        """Decode everything. Raises IndexStoreError for codes that cannot be read."""
        for first in range(0, len(self.codes), _BLOCK):
            self._decoded(self.codes[first : first + _BLOCK])

    def gather_codes(self, rows: NDArray[np.integer]) -> tuple[Codes, NDArray[np.int64]]:
        """As `gather`, but as they are stored: shape (tokens, codec.bytes_per_token)."""
        starts = self.offsets[rows]
        sizes = self.offsets[np.asarray(rows) + 1] - starts
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        tokens = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return self.codes.take(tokens, axis=0), offsets

    def _decoded(self, codes: Codes) -> FloatMatrix:
        try:
            return self.codec.decode(codes)
        except ValueError as error:
            raise damaged(self._folder / CODES, str(error)) from error


class TokenVectorWriter:
    """Writes the token vectors of one segment in the order they come.

    A codec that must be trained is trained on the segment's first 200,000 tokens (all, where there are fewer), which
    are held in memory as float16 until then; where a collection is sorted by topic, what comes later is kept less
    exactly. Vectors pass through float16, and are encoded in blocks of a fixed size: how they are divided into batches
    does not change a byte.

    Args:
        folder: that is made.
        choice: one of `residual.CODECS`.
        dimension: of the vectors.
        codec: a trained one, of the same choice, that is used again unless what comes first would have more than
            twice its centroids; None to train one.
        threads: that training may use.

    Raises:
        UsageError: unknown choice.
    """

    def __init__(
        self, folder: Path, choice: str, dimension: int, *, codec: Codec | None = None, threads: int = 1
    ) -> None:
        check_codec(choice)
        folder.mkdir()
        self._folder = folder
        self._choice = choice
        self._dimension = dimension
        self._offered = codec
        self._codec: Codec | None = None
        self._threads = threads
        self._waiting: list[NDArray[np.float16]] = []
        self._waiting_tokens = 0
        self._sizes: list[NDArray[np.int64]] = []
        self._file: BinaryIO = (folder / CODES).open("wb")

    def add(self, vectors: Sequence[NDArray[np.floating]]) -> None:
        """Append rows: a matrix of shape (tokens, dimension) each, of norm 1; without tokens shape (0, dimension)."""
        self._sizes.append(np.array([len(matrix) for matrix in vectors], dtype=np.int64))
        self._waiting += (matrix.astype(np.float16) for matrix in vectors)
        self._waiting_tokens += sum(map(len, vectors))
        untrained = self._codec is None and needs_training(self._choice)
        if self._waiting_tokens >= (TRAINING_TOKENS if untrained else _BLOCK):
            self._encode(complete=False)

    def add_stored(self, codes: Codes, sizes: NDArray[np.int64]) -> None:
        """Append rows of so many tokens each, as the codec that this writer was given has encoded them."""
        self._encode(complete=True)
        self._sizes.append(sizes)
        self._file.write(codes.tobytes())

    def finish(self) -> int:
        """Encode what is waiting, and write what it takes to read the codes; the number of tokens in all."""
        codec = self._encode(complete=True)
        self.close()
        offsets = np.concatenate(
            [np.zeros(1, np.int64), np.cumsum(np.concatenate([np.zeros(0, np.int64), *self._sizes]))]
        )
        write_array(self._folder / OFFSETS, offsets)
        write_codec(self._folder, codec)
        return int(offsets[-1])

    def close(self) -> None:
        """Give the file up without finishing."""
        self._file.close()

    def _encode(self, *, complete: bool) -> Codec:
        """Encode whole blocks of what is waiting, and the rest too if that is all there is; the codec."""
        waiting = np.concatenate([np.zeros((0, self._dimension), np.float16), *self._waiting])
        if self._codec is None:
            self._codec = self._settled(waiting)
        end = len(waiting) if complete else len(waiting) // _BLOCK * _BLOCK
        for first in range(0, end, _BLOCK):
            block = waiting[first : min(end, first + _BLOCK)].astype(np.float32)
            self._file.write(self._codec.encode(block).tobytes())
        self._waiting = [waiting[end:].copy()]
        self._waiting_tokens = len(waiting) - end
        return self._codec

    def _settled(self, waiting: NDArray[np.float16]) -> Codec:
        """The codec for this segment, of which these tokens are the first."""
        if self._offered is not None and not _outgrown(self._offered, len(waiting)):
            return self._offered
        return train(self._choice, waiting[:TRAINING_TOKENS].astype(np.float32), threads=self._threads)


def open_token_vectors(folder: Path, rows: int, dimension: int, choice: str) -> TokenVectors:
    """Map what a TokenVectorWriter wrote. Raises IndexStoreError for files that are not of so many rows, or damaged."""
    codec = open_codec(folder, choice, dimension)
    offsets = map_array(folder / OFFSETS)
    fits = offsets.shape == (rows + 1,) and offsets.dtype == np.int64
    if not fits or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise damaged(folder / OFFSETS, f"it does not say where the tokens of {rows} rows begin")
    path, tokens = folder / CODES, int(offsets[-1])
    found = path.stat().st_size if path.exists() else -1
    if found != tokens * codec.bytes_per_token:
        problem = "the file is missing" if found < 0 else f"it holds {found} bytes"
        raise damaged(
            path, f"{problem}, {tokens} tokens of {codec.bytes_per_token} are {tokens * codec.bytes_per_token}"
        )
    shape = (tokens, codec.bytes_per_token)
    codes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r", shape=shape)) if tokens else np.zeros(shape, np.uint8)
    return TokenVectors(folder, codec, offsets, codes)


def merge_token_vectors(folder: Path, parts: Sequence[Part], choice: str, *, threads: int = 1) -> int:
    """Write the rows that a part's mask keeps, the parts one after the other; the number of their tokens.

    Of the training, that of the part with the most tokens is kept: parts with the same are copied byte by byte, others
    are decoded and encoded anew. It is trained again where the part is of another choice, or where so many tokens as
    there are now would have more than twice its centroids.

    Args:
        folder: that is made.
        parts: at least one, all of one dimension.
        choice: one of `residual.CODECS`.
        threads: that training may use.

    Raises:
        UsageError: unknown choice.
        IndexStoreError: damaged codes.
    """
    kept = [_rows(vectors, mask) for vectors, mask in parts]
    counts = [int(np.diff(vectors.offsets)[rows].sum()) for (vectors, _), rows in zip(parts, kept, strict=True)]
    largest = parts[int(np.argmax(counts))][0].codec
    codec = None if largest.name != choice or _outgrown(largest, sum(counts)) else largest
    writer = TokenVectorWriter(folder, choice, parts[0][0].codec.dimension, codec=codec, threads=threads)
    try:
        for (vectors, _), rows in zip(parts, kept, strict=True):
            copied = codec is not None and same(codec, vectors.codec)
            for some in _batches(rows):
                if copied:
                    codes, offsets = vectors.gather_codes(some)
                    writer.add_stored(codes, np.diff(offsets))
                else:
                    decoded, offsets = vectors.gather(some)
                    writer.add(np.split(decoded, offsets[1:-1]))
        return writer.finish()
    finally:
        writer.close()


def _rows(vectors: TokenVectors, mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    return np.arange(vectors.offsets.size - 1) if mask is None else np.flatnonzero(mask)


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, rows.size, _MERGED_ROWS):
        yield rows[first : first + _MERGED_ROWS]


def _outgrown(codec: Codec, tokens: int) -> bool:
    centroids = codec.arrays.get("centroids")
    return centroids is not None and centroid_count(min(tokens, TRAINING_TOKENS)) > 2 * len(centroids)
