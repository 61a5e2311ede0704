from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError, UsageError
from tiercel.index.ann import FloatMatrix
from tiercel.index.files import write_array
from tiercel.index.residual import (
    CODECS,
    Float16Codec,
    Int8Codec,
    ResidualCodec,
    centroid_count,
    open_codec,
    same,
    train,
    write_codec,
)

AXES = np.eye(4, dtype=np.float32)
CUTOFFS = np.array([-0.25, 0, 0.25], np.float32)
WEIGHTS = np.array([-0.5, -0.125, 0.125, 0.5], np.float32)


def unit(rows: NDArray[np.floating]) -> FloatMatrix:
    rows = rows.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def clustered(count: int, dimension: int, *, seed: int = 0, clusters: int = 50, spread: float = 0.7) -> FloatMatrix:
    """Unit vectors around `clusters` directions, `spread` away from them before they are made unit."""
    drawn = np.random.default_rng(seed)
    centres = unit(drawn.standard_normal((clusters, dimension)))
    around = unit(drawn.standard_normal((count, dimension)))
    return unit(centres[drawn.integers(0, clusters, count)] + spread * around)


def slowly_decoded(codec: ResidualCodec, bits: int, codes: NDArray[np.uint8]) -> FloatMatrix:
    """Number by number, in float64."""
    rows = []
    for code in codes.tolist():
        row = codec.arrays["centroids"][code[0] + 256 * code[1]].astype(np.float64)
        for j in range(codec.dimension):
            byte = code[2 + j * bits // 8]
            row[j] += codec.arrays["weights"][byte >> j * bits % 8 & (1 << bits) - 1]
        rows.append(row)
    return unit(np.array(rows).reshape(len(codes), codec.dimension))


def test_bytes_of_a_residual_worked_out_by_hand() -> None:
    codec = ResidualCodec(2, AXES[:2], CUTOFFS, WEIGHTS)
    row = unit(np.array([[0.3, 0.9, -0.3, 0.1]]))  # of norm 1 (0.9 + 0.09 + 0.01 = 1)
    # Nearest is axis 1; residual 0.3, -0.1, -0.3, 0.1 in buckets 3, 1, 0, 2, the first in the lowest bits.
    codes = codec.encode(row)
    assert codes.tolist() == [[1, 0, 0b10_00_01_11]]
    expected = np.array([[0.5, 1 - 0.125, -0.5, 0.125]])
    assert_allclose(codec.decode(codes), unit(expected), atol=1e-7)


def test_bytes_of_int8_worked_out_by_hand() -> None:
    codec = Int8Codec(3)
    codes = codec.encode(np.array([[0.6, -0.8, 0.0], [0, 0, 0]], np.float32))
    assert codes.view(np.int8).tolist() == [[95, -127, 0], [0, 0, 0]]  # 0.6 / 0.8 * 127 = 95.25
    norm = (95**2 + 127**2) ** 0.5
    assert_allclose(codec.decode(codes), [[95 / norm, -127 / norm, 0], [0, 0, 0]], atol=1e-7)


def test_every_finite_float16_is_widened_as_numpy_does() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    finite = halves[np.isfinite(halves.view(np.float16))]
    decoded = Float16Codec(1).decode(finite[:, None].view(np.uint8))
    assert (decoded[:, 0] == finite.view(np.float16).astype(np.float32)).all()


def test_bytes_that_no_float16_number_has_are_finite_still() -> None:
    assert np.isfinite(Float16Codec(1).decode(np.full((1, 2), 0xFF, np.uint8))).all()


@pytest.mark.parametrize(
    ("choice", "cosine", "size"),
    [("fp16", 0.999999, 128), ("int8", 0.99995, 64), ("4bit", 0.992, 34), ("2bit", 0.955, 18)],
)
def test_what_comes_back_is_nearly_what_went_in(choice: str, cosine: float, size: int) -> None:
    rows = clustered(8_000, 64)
    codec = train(choice, rows, threads=1)
    codes = codec.encode(rows)
    assert codes.shape == (8_000, size) == (8_000, codec.bytes_per_token)
    decoded = codec.decode(codes)
    assert decoded.dtype == np.float32
    cosines = (decoded * rows).sum(axis=1)
    assert cosine <= cosines.mean() <= 1.000001
    assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-3 if choice == "fp16" else 1e-6)


def test_more_bits_lose_less() -> None:
    rows = clustered(4_000, 32)
    cosines = []
    for choice in CODECS:
        codec = train(choice, rows, threads=1)
        cosines.append(float((codec.decode(codec.encode(rows)) * rows).sum(axis=1).mean()))
    assert cosines == sorted(cosines, reverse=True)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("dimension", [1, 5, 7, 8, 33])
def test_any_dimension_is_decoded_as_it_is_slowly(bits: int, dimension: int) -> None:
    rows = clustered(300, dimension, clusters=10)
    codec = train(f"{bits}bit", rows, threads=1)
    assert isinstance(codec, ResidualCodec)
    codes = codec.encode(rows)
    assert_allclose(codec.decode(codes), slowly_decoded(codec, bits, codes), atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(CODECS), st.integers(1, 70), st.integers(0, 90))
def test_a_row_is_encoded_and_decoded_by_itself(seed: int, choice: str, count: int, start: int) -> None:
    rows = clustered(count, 12, seed=seed)
    codec = train(choice, clustered(200, 12), threads=1)
    start = min(start, count - 1)
    codes = codec.encode(rows)
    assert np.array_equal(codec.decode(codes)[start:], codec.decode(codes[start:]))
    if choice != "4bit" and choice != "2bit":  # a tie between two centroids may fall either way
        assert np.array_equal(codes[start:], codec.encode(rows[start:]))


@pytest.mark.parametrize("choice", CODECS)
def test_training_again_gives_the_same_bytes(choice: str) -> None:
    rows = clustered(3_000, 16)
    once, again = train(choice, rows, threads=1), train(choice, rows.copy(), threads=2)
    assert same(once, again)
    assert np.array_equal(once.encode(rows), again.encode(rows))


def test_buckets_hold_as_many_each_and_stand_for_their_mean() -> None:
    rows = clustered(2_000, 16)
    codec = train("2bit", rows, threads=1)
    codes = codec.encode(rows)
    buckets = (codes[:, 2:, None] >> np.arange(0, 8, 2) & 3).reshape(len(rows), -1)
    counts = np.bincount(buckets.ravel(), minlength=4)
    assert_allclose(counts / counts.sum(), 0.25, atol=0.01)
    centroids = codec.arrays["centroids"][codes[:, 0] + 256 * codes[:, 1].astype(np.int64)]
    means = [(rows - centroids)[buckets == bucket].mean() for bucket in range(4)]
    assert_allclose(codec.arrays["weights"], means, atol=1e-3)


@pytest.mark.parametrize(
    ("tokens", "count"),
    [(0, 1), (1, 1), (31, 1), (32, 2), (16_000, 512), (200_000, 4_096), (1_000_000, 8_192), (10**9, 65_536)],
)
def test_there_are_sixteen_times_the_root_but_sixteen_tokens_for_each(tokens: int, count: int) -> None:
    assert centroid_count(tokens) == count


@pytest.mark.parametrize("choice", CODECS)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_vectors_are_kept_too(choice: str, count: int) -> None:
    rows = clustered(count, 8)
    codec = train(choice, rows, threads=1)
    decoded = codec.decode(codec.encode(rows))
    assert decoded.shape == (count, 8)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("choice", CODECS)
def test_a_codec_comes_back_as_it_was_written(tmp_path: Path, choice: str) -> None:
    codec = train(choice, clustered(500, 8), threads=1)
    write_codec(tmp_path, codec)
    assert same(codec, open_codec(tmp_path, choice, 8))


def test_codecs_that_differ_are_not_the_same() -> None:
    assert not same(Float16Codec(4), Int8Codec(4))
    assert not same(Int8Codec(4), Int8Codec(8))
    moved = ResidualCodec(2, AXES[:2], CUTOFFS, WEIGHTS * np.float32(2))
    assert not same(ResidualCodec(2, AXES[:2], CUTOFFS, WEIGHTS), moved)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("centroids", np.zeros((2, 5), np.float32)),
        ("centroids", np.zeros((0, 4), np.float32)),
        ("centroids", AXES.astype(np.float64)),
        ("cutoffs", np.zeros(4, np.float32)),
        ("weights", np.array([0, 0, 0, np.nan], np.float32)),
    ],
)
def test_what_was_learnt_must_fit(tmp_path: Path, name: str, array: NDArray[np.floating]) -> None:
    write_codec(tmp_path, ResidualCodec(2, AXES[:2], CUTOFFS, WEIGHTS))
    write_array(tmp_path / f"{name}.npy", array)
    with pytest.raises(IndexStoreError, match=rf"{name}\.npy: it holds"):
        open_codec(tmp_path, "2bit", 4)


def test_a_missing_centroid_is_refused() -> None:
    codec = ResidualCodec(2, AXES[:2], CUTOFFS, WEIGHTS)
    with pytest.raises(ValueError, match="above 1"):
        codec.decode(np.array([[2, 0, 0]], np.uint8))


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown form of token vectors 'pq'; expected one of fp16, int8, 4bit, 2bit"):
        train("pq", AXES, threads=1)
