from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.index.made import HashedTokens, HashedWords, JointWords, files_of
from tiercel.index import journal
from tiercel.index.journal import JOURNAL, EncodingJournal
from tiercel.index.row_encoder import Encoded, RowEncoder

TEXTS = [f"falcon number {i}" for i in range(10)]


class Counting(HashedWords):
    """Counts what it encodes; a text of more than 15 characters is cut."""

    truncated = 0

    def __init__(self, dimension: int = 16) -> None:
        super().__init__(dimension)
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += texts
        self.truncated += sum(len(text) > 15 for text in texts)
        return super().encode_documents(texts)


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SLAB_ROWS", 4)
    monkeypatch.setattr(journal, "_SLAB_ROWS_WITH_TOKENS", 4)


def encode(path: Path, encoder: HashedWords, texts: Sequence[str]) -> tuple[NDArray[np.float16], EncodingJournal]:
    kept = EncodingJournal(path, RowEncoder(encoder))
    try:
        return np.concatenate([slab.vectors for slab in kept.encode(texts) if slab.vectors is not None]), kept
    finally:
        kept.close()


def test_vectors_are_the_encoders_as_they_are_stored(tmp_path: Path) -> None:
    vectors, kept = encode(tmp_path, HashedWords(), TEXTS)
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, HashedWords().encode_documents(TEXTS).astype(np.float16))
    assert (kept.truncated.rows, kept.resumed) == (0, 0)


def test_no_texts_give_no_slabs(tmp_path: Path) -> None:
    kept = EncodingJournal(tmp_path, RowEncoder(HashedWords()))
    assert list(kept.encode([])) == []
    kept.close()


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    long = [*TEXTS[:9], "a text that is too long"]
    first, kept = encode(tmp_path, Counting(), long)
    assert kept.truncated == (1, 0)
    encoder = Counting()
    again, kept = encode(tmp_path, encoder, [*long, "new"])
    # Slabs of four: the third one now holds another text.
    assert encoder.encoded == [*long[8:], "new"]
    assert (kept.resumed, kept.truncated) == (8, (1, 0))
    assert np.array_equal(again[:10], first)


def test_a_slab_is_found_wherever_it_stands(tmp_path: Path) -> None:
    first, _ = encode(tmp_path, Counting(), TEXTS[:8])
    encoder = Counting()
    moved, _ = encode(tmp_path, encoder, TEXTS[4:8] + TEXTS[:4])
    assert encoder.encoded == []
    assert np.array_equal(moved, np.concatenate([first[4:], first[:4]]))


def test_another_encoder_starts_from_nothing(tmp_path: Path) -> None:
    encode(tmp_path, Counting(16), TEXTS)
    encoder = Counting(8)
    vectors, kept = encode(tmp_path, encoder, TEXTS)
    assert (len(encoder.encoded), kept.resumed, vectors.shape) == (10, 0, (10, 8))


@pytest.mark.parametrize("name", ["slabs.jsonl", "vectors.bin"])
def test_what_a_crash_or_damage_left_is_encoded_again(tmp_path: Path, name: str) -> None:
    expected, _ = encode(tmp_path, Counting(), TEXTS)
    (path,) = [tmp_path / JOURNAL / found for found in files_of(tmp_path / JOURNAL) if found.endswith(name)]
    whole = path.read_bytes()
    for content in [whole[:length] for length in range(0, len(whole), 7)] + [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), 7)
    ]:
        path.write_bytes(content)
        vectors, _ = encode(tmp_path, Counting(), TEXTS)
        assert np.array_equal(vectors, expected)
        encoder = Counting()
        vectors, kept = encode(tmp_path, encoder, TEXTS)  # and it is whole again
        assert (encoder.encoded, kept.resumed) == ([], 10)
        assert np.array_equal(vectors, expected)


@pytest.mark.parametrize(
    "line",
    [b"5", b'[["x"], 0, 0, 0, "d"]', b"null", b'["n", 9223372036854775807, 1, [0, 0], "d"]', b'["n", 0, 8, 1, "d"]'],
)
def test_a_line_that_is_no_slabs_is_passed_over(tmp_path: Path, line: bytes) -> None:
    expected, _ = encode(tmp_path, Counting(), TEXTS)
    (path,) = (tmp_path / JOURNAL).glob("*/slabs.jsonl")
    path.write_bytes(line + b"\n" + path.read_bytes())
    vectors, kept = encode(tmp_path, Counting(), TEXTS)
    assert kept.resumed == 10
    assert np.array_equal(vectors, expected)


def encode_all(path: Path, encoder: RowEncoder, texts: Sequence[str]) -> tuple[list[Encoded], EncodingJournal]:
    kept = EncodingJournal(path, encoder)
    try:
        return list(kept.encode(texts)), kept
    finally:
        kept.close()


def tokens_of(slabs: Sequence[Encoded]) -> list[list[list[float]]]:
    return [matrix.tolist() for slab in slabs for matrix in slab.tokens or []]


def test_vectors_of_rows_and_tokens_are_one_record_and_one_pass(tmp_path: Path) -> None:
    texts = [*TEXTS[:5], "", *TEXTS[5:]]
    encoder = JointWords()
    first, _ = encode_all(tmp_path, RowEncoder(encoder, jointly=True), texts)
    assert encoder.passes == encoder.tokens.encoded == [4, 4, 3]
    again, kept = encode_all(tmp_path, RowEncoder(encoder, jointly=True), texts)
    assert (kept.resumed, len(encoder.passes)) == (11, 3)
    expected = [matrix.astype(np.float16).tolist() for matrix in JointWords().tokens.encode_documents(texts)]
    assert tokens_of(first) == tokens_of(again) == expected
    vectors = np.concatenate([slab.vectors for slab in again if slab.vectors is not None])
    assert np.array_equal(vectors, HashedWords().encode_documents(texts).astype(np.float16))
    assert len((tmp_path / JOURNAL).glob("*/slabs.jsonl").__next__().read_bytes().split()) == 3


def test_tokens_alone_are_kept_too_and_what_is_cut_is_counted(tmp_path: Path) -> None:
    for resumed in (0, 10):
        slabs, kept = encode_all(tmp_path, RowEncoder(tokens=HashedTokens(window=2)), TEXTS)
        assert all(slab.vectors is None for slab in slabs)
        assert [len(matrix) for slab in slabs for matrix in slab.tokens or []] == [2] * 10
        assert (kept.truncated, kept.resumed) == ((0, 10), resumed)


def test_other_models_of_tokens_start_from_nothing(tmp_path: Path) -> None:
    models = [
        RowEncoder(HashedWords()), RowEncoder(JointWords(), jointly=True), RowEncoder(tokens=HashedTokens()),
        RowEncoder(HashedWords(), HashedTokens(8)),
    ]  # fmt: skip
    assert len({model.fingerprint for model in models}) == 4
    assert [encode_all(tmp_path, model, TEXTS)[1].resumed for model in models] == [0, 0, 0, 0]


def test_damaged_tokens_are_encoded_again(tmp_path: Path) -> None:
    expected, _ = encode_all(tmp_path, RowEncoder(JointWords(), jointly=True), TEXTS)
    (path,) = (tmp_path / JOURNAL).glob("*/vectors.bin")
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole[:1200] + bytes([whole[1200] ^ 1]) + whole[1201:]):
        path.write_bytes(content)
        found, _ = encode_all(tmp_path, RowEncoder(JointWords(), jointly=True), TEXTS)
        assert tokens_of(found) == tokens_of(expected)
