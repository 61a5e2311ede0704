from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tests.index.made import files_of
from tests.index.test_residual import clustered
from tiercel.errors import IndexStoreError, UsageError
from tiercel.index import token_vectors
from tiercel.index.ann import FloatMatrix
from tiercel.index.files import write_array
from tiercel.index.residual import CODECS, Codec, same, train
from tiercel.index.token_vectors import (
    CODES,
    OFFSETS,
    TokenVectors,
    TokenVectorWriter,
    merge_token_vectors,
    open_token_vectors,
)

DIMENSION = 8
SIZES = (3, 0, 1, 5, 0)
WORST = {"fp16": 1e-3, "int8": 0.02, "4bit": 0.4, "2bit": 0.7}
"""How far a number may be off, for so few vectors."""


def rows_of(sizes: Sequence[int] = SIZES, *, seed: int = 0) -> list[FloatMatrix]:
    tokens = clustered(sum(sizes), DIMENSION, seed=seed)
    return np.split(tokens, np.cumsum(sizes)[:-1])


def written(
    folder: Path, batches: Sequence[Sequence[FloatMatrix]], choice: str, *, codec: Codec | None = None
) -> TokenVectors:
    writer = TokenVectorWriter(folder, choice, DIMENSION, codec=codec)
    for batch in batches:
        writer.add(batch)
    writer.finish()
    return open_token_vectors(folder, sum(map(len, batches)), DIMENSION, choice)


def everything(vectors: TokenVectors) -> FloatMatrix:
    return vectors.gather(np.arange(vectors.offsets.size - 1))[0]


@pytest.mark.parametrize("choice", CODECS)
def test_rows_come_back(tmp_path: Path, choice: str) -> None:
    rows = rows_of()
    vectors = written(tmp_path / "tokens", [rows], choice)
    gathered, offsets = vectors.gather(np.array([3, 1, 0, 3]))
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [0, 5, 5, 8, 13]
    assert gathered.dtype == np.float32
    assert_allclose(gathered, np.concatenate([rows[3], rows[0], rows[3]]), atol=WORST[choice])


def test_float16_come_back_exactly(tmp_path: Path) -> None:
    rows = rows_of()
    vectors = written(tmp_path / "tokens", [rows], "fp16")
    assert np.array_equal(everything(vectors), np.concatenate(rows).astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("choice", CODECS)
@pytest.mark.parametrize("batches", [[], [[]], [rows_of((0, 0))]])
def test_nothing_is_kept_too(tmp_path: Path, choice: str, batches: list[list[FloatMatrix]]) -> None:
    vectors = written(tmp_path / "tokens", batches, choice)
    gathered, offsets = vectors.gather(np.zeros(0, np.int64))
    assert gathered.shape == (0, DIMENSION)
    assert offsets.tolist() == [0]
    assert everything(vectors).shape == (0, DIMENSION)


@pytest.mark.parametrize("choice", CODECS)
def test_batches_do_not_change_a_byte(tmp_path: Path, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_vectors, "_BLOCK", 64)
    monkeypatch.setattr(token_vectors, "TRAINING_TOKENS", 300)
    rows = rows_of([1 + i * 7 % 13 for i in range(150)])
    folders = [tmp_path / name for name in ("one", "many", "two")]
    for folder, batches in zip(folders, ([rows], [[row] for row in rows], [rows[:70], rows[70:]]), strict=True):
        written(folder, batches, choice)
    first, *others = ([(folder / name).read_bytes() for name in files_of(folder)] for folder in folders)
    assert others == [first, first]


def test_training_sees_the_first_tokens_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_vectors, "TRAINING_TOKENS", 300)
    rows = rows_of([10] * 100)
    vectors = written(tmp_path / "tokens", [[row] for row in rows], "4bit")
    sample = np.concatenate(rows)[:300].astype(np.float16).astype(np.float32)
    assert same(vectors.codec, train("4bit", sample, threads=1))


@pytest.mark.parametrize("choice", CODECS)
def test_merging_what_was_trained_alike_copies_bytes(tmp_path: Path, choice: str) -> None:
    codec = train(choice, clustered(500, DIMENSION), threads=1)
    first = written(tmp_path / "a", [rows_of()], choice, codec=codec)
    second = written(tmp_path / "b", [rows_of((2, 40, 4), seed=1)], choice, codec=codec)
    kept = np.array([True, True, False, True, False])
    merge_token_vectors(tmp_path / "merged", [(first, kept), (second, None)], choice)
    merged = open_token_vectors(tmp_path / "merged", 6, DIMENSION, choice)
    assert merged.offsets.tolist() == [0, 3, 3, 8, 10, 50, 54]
    codes = np.concatenate([first.gather_codes(np.array([0, 1, 3]))[0], second.codes])
    assert np.array_equal(merged.codes, codes)
    assert same(merged.codec, codec)


def test_merging_keeps_the_training_of_the_part_with_the_most_tokens(tmp_path: Path) -> None:
    large, small = rows_of([10] * 80), rows_of([7] * 9, seed=1)
    first = written(tmp_path / "a", [small], "4bit")
    second = written(tmp_path / "b", [large], "4bit")
    merge_token_vectors(tmp_path / "merged", [(first, None), (second, None)], "4bit")
    merged = open_token_vectors(tmp_path / "merged", 89, DIMENSION, "4bit")
    assert same(merged.codec, second.codec)
    assert np.array_equal(merged.codes[63:], second.codes)
    # What is trained otherwise is encoded again, from what it was decoded to.
    again = second.codec.encode(everything(first).astype(np.float16).astype(np.float32))
    assert np.array_equal(merged.codes[:63], again)


def test_merging_trains_again_what_has_grown(tmp_path: Path) -> None:
    parts = [written(tmp_path / str(i), [rows_of([8] * 8, seed=i)], "4bit") for i in range(5)]
    assert len(parts[0].codec.arrays["centroids"]) == 4
    merge_token_vectors(tmp_path / "merged", [(part, None) for part in parts], "4bit")
    merged = open_token_vectors(tmp_path / "merged", 40, DIMENSION, "4bit")
    assert len(merged.codec.arrays["centroids"]) == 16
    before = np.concatenate([everything(part) for part in parts])
    assert (everything(merged) * before).sum(axis=1).mean() > 0.98


def test_merging_into_another_form(tmp_path: Path) -> None:
    rows = rows_of()
    vectors = written(tmp_path / "a", [rows], "fp16")
    merge_token_vectors(tmp_path / "merged", [(vectors, np.array([False, True, True, True, True]))], "int8")
    merged = open_token_vectors(tmp_path / "merged", 4, DIMENSION, "int8")
    assert_allclose(everything(merged), np.concatenate(rows[1:]), atol=WORST["int8"])


def test_merging_nothing_that_is_kept(tmp_path: Path) -> None:
    vectors = written(tmp_path / "a", [rows_of()], "2bit")
    merge_token_vectors(tmp_path / "merged", [(vectors, np.zeros(5, bool))], "2bit")
    assert everything(open_token_vectors(tmp_path / "merged", 0, DIMENSION, "2bit")).shape == (0, DIMENSION)


@pytest.mark.parametrize(
    "offsets",
    [
        np.array([0, 3, 3, 4, 9], np.int64),  # one row too few
        np.array([0, 3, 3, 4, 9, 9], np.int32),
        np.array([1, 3, 3, 4, 9, 9], np.int64),
        np.array([0, 3, 2, 4, 9, 9], np.int64),
    ],
)
def test_offsets_that_do_not_fit_are_refused(tmp_path: Path, offsets: NDArray[np.integer]) -> None:
    written(tmp_path / "tokens", [rows_of()], "int8")
    write_array(tmp_path / "tokens" / OFFSETS, offsets)
    with pytest.raises(IndexStoreError, match="does not say where the tokens of 5 rows begin"):
        open_token_vectors(tmp_path / "tokens", 5, DIMENSION, "int8")


def test_short_codes_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "tokens", [rows_of()], "int8")
    path = tmp_path / "tokens" / CODES
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexStoreError, match="it holds 71 bytes, 9 tokens of 8 are 72"):
        open_token_vectors(tmp_path / "tokens", 5, DIMENSION, "int8")
    path.unlink()
    with pytest.raises(IndexStoreError, match="the file is missing"):
        open_token_vectors(tmp_path / "tokens", 5, DIMENSION, "int8")


@pytest.mark.parametrize("name", [OFFSETS, "centroids.npy", "cutoffs.npy", "weights.npy"])
def test_missing_arrays_are_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "tokens", [rows_of()], "2bit")
    (tmp_path / "tokens" / name).unlink()
    with pytest.raises(IndexStoreError, match=name):
        open_token_vectors(tmp_path / "tokens", 5, DIMENSION, "2bit")


def test_a_centroid_that_is_not_there_is_damage(tmp_path: Path) -> None:
    vectors = written(tmp_path / "tokens", [rows_of()], "2bit")
    path = tmp_path / "tokens" / CODES
    path.write_bytes(b"\xff" * len(path.read_bytes()))
    vectors = open_token_vectors(tmp_path / "tokens", 5, DIMENSION, "2bit")
    with pytest.raises(IndexStoreError, match=r"codes\.u8: a token names a centroid above 0"):
        vectors.gather(np.array([0]))


def test_an_unknown_form_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown form"):
        TokenVectorWriter(tmp_path / "tokens", "pq", DIMENSION)
    assert not (tmp_path / "tokens").exists()
