"""How is a token's vector kept in few bytes? float16, int8, or its nearest centroid and what is left in 2 or 4 bits.

All forms want rows of L2 norm 1 and, but for float16, give back rows of norm 1; so int8 needs no scale beside it. The
codec of centroid and residual is ColBERTv2's (Santhanam et al., NAACL 2022) as PLAID uses it (Santhanam et al., CIKM
2022): centroids by k-means over a sample of the tokens; the differences from them are cut into buckets that hold equal
numbers, over all dimensions together, and each bucket stands for its mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tiercel.config import TokenCodec
from tiercel.errors import UsageError
from tiercel.index import ann
from tiercel.index.ann import FloatMatrix, faiss_threads
from tiercel.index.files import damaged, map_array, write_array

Codes: TypeAlias = NDArray[np.uint8]
"""One row of bytes per token, shape (tokens, bytes per token)."""

CODECS: tuple[TokenCodec, ...] = get_args(TokenCodec)
"""The forms, the most exact first. "4bit" and "2bit" are centroid and residual in so many bits per dimension."""

_BITS = {"4bit": 4, "2bit": 2}

TRAINING_TOKENS = 200_000
"""Tokens up to which a sample is worth its time: some 20 s for 128 dimensions on two cores."""

_TRAINING_RESIDUALS = 20_000
"""Tokens whose residuals cut the buckets: with 128 dimensions two million numbers and more."""
_ITERATIONS = 4
_SEED = 12
_TOKENS_PER_CENTROID = 16
_CENTROID_BYTES = 2
_MAX_CENTROIDS = 1 << 8 * _CENTROID_BYTES
_BLOCK = 1_024
_TOGETHER = 32


class Codec(Protocol):
    """Turns vectors into bytes and back. The same vectors give the same bytes, and each row is encoded by itself."""

    @property
    def name(self) -> str:
        """One of CODECS."""

    @property
    def dimension(self) -> int:
        """Number of columns of the vectors."""

    @property
    def bytes_per_token(self) -> int:
        """Number of columns of the codes."""

    @property
    def arrays(self) -> Mapping[str, NDArray[np.float32]]:
        """What was learnt in training, by name; codecs of one name and equal arrays read each other's codes."""

    def encode(self, rows: FloatMatrix) -> Codes:
        """Vectors of norm 1, shape (n, dimension), as codes, shape (n, bytes_per_token)."""

    def decode(self, codes: Codes) -> FloatMatrix:
        """Codes as float32 vectors, shape (n, dimension). Raises ValueError for bytes that `encode` cannot give."""


class Float16Codec:
    """Each number rounded to float16; every code is a finite number."""

    name = "fp16"
    arrays: Mapping[str, NDArray[np.float32]] = {}

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.bytes_per_token = 2 * dimension

    def encode(self, rows: FloatMatrix) -> Codes:
        """Little-endian float16."""
        return np.ascontiguousarray(rows, dtype="<f2").view(np.uint8)

    def decode(self, codes: Codes) -> FloatMatrix:
        """The rounded numbers as they are, not made unit again."""
        rows = np.empty((len(codes), self.dimension), dtype=np.float32)
        _widen(np.ascontiguousarray(codes).view("<u2"), rows.view(np.uint32), rows)
        return rows


class Int8Codec:
    """Each row stretched until its largest number is 127 or -127, and rounded. No scale is kept: the norm is 1."""

    name = "int8"
    arrays: Mapping[str, NDArray[np.float32]] = {}

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.bytes_per_token = dimension

    def encode(self, rows: FloatMatrix) -> Codes:
        """One signed byte per number."""
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        stretch = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 0)
        return np.ascontiguousarray(np.rint(rows * stretch).astype(np.int8)).view(np.uint8)

    def decode(self, codes: Codes) -> FloatMatrix:
        """Rows of norm 1; a row of zeros stays one."""
        rows = np.empty(codes.shape, dtype=np.float32)
        _unstretch(np.ascontiguousarray(codes).view(np.int8), rows)
        return rows


class ResidualCodec:
    """The number of the nearest centroid (16 bits, little-endian), then the bucket of each dimension's residual.

    The buckets of dimensions 0, 1, … fill a byte from its lowest bits on.

    Args:
        bits: per dimension, 2 or 4.
        centroids: shape (centroids, dimension), float32, rows of norm 1; at most 65,536.
        cutoffs: shape (2**bits - 1,), float32, ascending: where the next bucket begins.
        weights: shape (2**bits,), float32: what each bucket stands for.
    """

    def __init__(
        self, bits: int, centroids: FloatMatrix, cutoffs: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> None:
        self.name = f"{bits}bit"
        self.arrays = {"centroids": centroids, "cutoffs": cutoffs, "weights": weights}
        self.dimension = centroids.shape[1]
        self.bytes_per_token = _CENTROID_BYTES + math.ceil(self.dimension * bits / 8)
        self._bits = bits
        self._centroids, self._cutoffs = centroids, cutoffs
        shifts = np.arange(0, 8, bits)
        values = weights[np.arange(256)[:, None] >> shifts & (1 << bits) - 1]
        self._table = np.ascontiguousarray(values).view(np.uint64)

    def encode(self, rows: FloatMatrix) -> Codes:
        """Nearest is what has the largest inner product."""
        codes = np.zeros((len(rows), self.bytes_per_token), dtype=np.uint8)
        for first in range(0, len(rows), _BLOCK):
            part = slice(first, first + _BLOCK)
            nearest, residuals = _residuals(self._centroids, rows[part])
            codes[part, :_CENTROID_BYTES] = nearest.astype("<u2")[:, None].view(np.uint8)
            buckets = np.searchsorted(self._cutoffs, residuals, side="right").astype(np.uint8)
            for place in range(8 // self._bits):
                column = buckets[:, place :: 8 // self._bits]
                codes[part, _CENTROID_BYTES : _CENTROID_BYTES + column.shape[1]] |= column << place * self._bits
        return codes

    def decode(self, codes: Codes) -> FloatMatrix:
        """Centroid and residual added, and made unit; ValueError where there is no such centroid."""
        rows = np.empty((len(codes), self.dimension), dtype=np.float32)
        if not _add_up(np.ascontiguousarray(codes), self._centroids, self._table, rows):
            raise ValueError(f"a token names a centroid above {len(self._centroids) - 1}")
        return rows


def check_codec(choice: str) -> None:
    """Raise UsageError unless the choice is one of CODECS."""
    if choice not in CODECS:
        raise UsageError(f"unknown form of token vectors {choice!r}", expected=f"one of {', '.join(CODECS)}")


def needs_training(choice: str) -> bool:
    """Whether vectors must be seen before the first can be encoded. Raises UsageError for an unknown choice."""
    check_codec(choice)
    return choice in _BITS


def centroid_count(tokens: int) -> int:
    """The power of two at or below 16 * sqrt(tokens), as PLAID has it, where there are at least 16 tokens for each."""
    wanted = min(16 * math.sqrt(tokens), tokens / _TOKENS_PER_CENTROID, _MAX_CENTROIDS)
    return 1 << max(0, int(wanted).bit_length() - 1)


def train(choice: str, sample: FloatMatrix, *, threads: int) -> Codec:
    """Make the codec of this name for vectors like those of a sample, shape (n, dimension), rows of norm 1.

    An empty sample trains too: what such a codec gives back is of norm 1, but of no use.

    Args:
        choice: one of CODECS; for fp16 and int8 only the dimension of the sample matters.
        sample: the vectors; all of them are used.
        threads: that k-means may use.

    Raises:
        UsageError: unknown choice.
    """
    if not needs_training(choice):
        return Float16Codec(sample.shape[1]) if choice == "fp16" else Int8Codec(sample.shape[1])
    bits = _BITS[choice]
    if not len(sample):
        sample = np.eye(1, sample.shape[1], dtype=np.float32)
    with faiss_threads(threads):
        centroids = ann.kmeans(sample, centroid_count(len(sample)), _ITERATIONS, _SEED)
    drawn = ann.sample(sample.astype(np.float16), _TRAINING_RESIDUALS)
    values = np.sort(np.concatenate([_residuals(centroids, part)[1].ravel() for part in _blocks(drawn)]))
    edges = np.linspace(0, values.size, (1 << bits) + 1).astype(np.int64)
    sums = np.add.reduceat(values.astype(np.float64), np.minimum(edges[:-1], values.size - 1))
    weights = (sums / np.maximum(1, np.diff(edges))).astype(np.float32)
    return ResidualCodec(bits, centroids, values[np.minimum(edges[1:-1], values.size - 1)], weights)


def same(first: Codec, second: Codec) -> bool:
    """Whether each reads the other's codes."""
    if (first.name, first.dimension) != (second.name, second.dimension):
        return False
    return all(np.array_equal(array, second.arrays[name]) for name, array in first.arrays.items())


def write_codec(folder: Path, codec: Codec) -> None:
    """Write what was learnt in training, one .npy each."""
    for name, array in codec.arrays.items():
        write_array(folder / f"{name}.npy", array)


def open_codec(folder: Path, choice: str, dimension: int) -> Codec:
    """Read a codec of `write_codec`. Raises IndexStoreError for damaged files, UsageError for an unknown choice."""
    if not needs_training(choice):
        return train(choice, np.zeros((0, dimension), dtype=np.float32), threads=1)
    bits = _BITS[choice]
    centroids, cutoffs, weights = (
        _checked(folder / f"{name}.npy", shape)
        for name, shape in (("centroids", (-1, dimension)), ("cutoffs", ((1 << bits) - 1,)), ("weights", (1 << bits,)))
    )
    if not 1 <= len(centroids) <= _MAX_CENTROIDS:
        raise damaged(folder / "centroids.npy", f"it holds {len(centroids)} centroids")
    return ResidualCodec(bits, centroids, cutoffs, weights)


def _checked(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A copy in memory of a small array; a shape of -1 is any."""
    array = map_array(path)
    fits = array.ndim == len(shape) and all(size in (-1, found) for size, found in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != np.float32 or not np.isfinite(array).all():
        raise damaged(path, f"it holds {array.dtype} of shape {array.shape}, or what is not a number")
    return np.array(array)


def _blocks(rows: FloatMatrix) -> list[FloatMatrix]:
    return [rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK)]


def _residuals(centroids: FloatMatrix, rows: FloatMatrix) -> tuple[NDArray[np.int64], FloatMatrix]:
    """Nearest centroid of each row, and what is left of the row."""
    nearest = np.argmax(rows @ centroids.T, axis=1)
    return nearest, rows - centroids[nearest]


@njit(cache=True, nogil=True)
def _widen(halves, bits, rows):  # type: ignore[no-untyped-def]  # pragma: no cover
    """float16 as float32: sign and digits moved to their places in `bits`, the exponent's bias made good by a product.

    `bits` and `rows` are the same memory. NumPy's own cast takes ten times as long where it is not vectorised.
    """
    for t in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            half = np.uint32(halves[t, j])
            bits[t, j] = (half & np.uint32(0x8000)) << np.uint32(16) | (half & np.uint32(0x7FFF)) << np.uint32(13)
        for j in range(rows.shape[1]):
            rows[t, j] *= np.float32(2.0**112)


# A row's squares are added in whatever order is fast, but in the same one for every row.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _unstretch(codes, rows):  # type: ignore[no-untyped-def]  # pragma: no cover
    for t in range(codes.shape[0]):
        total = np.int32(0)
        for j in range(codes.shape[1]):
            total += np.int32(codes[t, j]) * np.int32(codes[t, j])
        scale = np.float32(1 / math.sqrt(total)) if total > 0 else np.float32(0)
        for j in range(codes.shape[1]):
            rows[t, j] = np.float32(codes[t, j]) * scale


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _add_up(codes, centroids, table, rows):  # type: ignore[no-untyped-def]  # pragma: no cover
    """False, and nothing useful in `rows`, where a code names a centroid that is not there.

    A byte's values are fetched from the table two at a time, as the 8 bytes that they take; and for some tokens before
    the first is read, as reading what has just been written in smaller pieces halts the processor.
    """
    count = codes.shape[1] - 2
    words = np.empty((_TOGETHER, count * table.shape[1]), np.uint64)
    residuals = words.view(np.float32)
    for first in range(0, codes.shape[0], _TOGETHER):
        together = min(_TOGETHER, codes.shape[0] - first)
        for k in range(together):
            if table.shape[1] == 1:
                for i in range(count):
                    words[k, i] = table[codes[first + k, 2 + i], 0]
            else:
                for i in range(count):
                    words[k, 2 * i] = table[codes[first + k, 2 + i], 0]
                    words[k, 2 * i + 1] = table[codes[first + k, 2 + i], 1]
        for k in range(together):
            t = first + k
            centroid = np.int64(codes[t, 0]) | np.int64(codes[t, 1]) << 8
            if centroid >= centroids.shape[0]:
                return False
            total = np.float32(0)
            for j in range(rows.shape[1]):
                value = residuals[k, j] + centroids[centroid, j]
                rows[t, j] = value
                total += value * value
            scale = np.float32(1) / np.sqrt(total) if total > 0 else np.float32(0)
            for j in range(rows.shape[1]):
                rows[t, j] *= scale
    return True
