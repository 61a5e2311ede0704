from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.index.made import HashedWords, files_of
from tiercel.index import journal
from tiercel.index.journal import JOURNAL, EncodingJournal

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


def encode(path: Path, encoder: HashedWords, texts: Sequence[str]) -> tuple[NDArray[np.float16], EncodingJournal]:
    kept = EncodingJournal(path, encoder)
    try:
        return np.concatenate(list(kept.encode(texts))), kept
    finally:
        kept.close()


def test_vectors_are_the_encoders_as_they_are_stored(tmp_path: Path) -> None:
    vectors, kept = encode(tmp_path, HashedWords(), TEXTS)
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, HashedWords().encode_documents(TEXTS).astype(np.float16))
    assert (kept.truncated, kept.resumed) == (0, 0)


def test_no_texts_give_no_slabs(tmp_path: Path) -> None:
    kept = EncodingJournal(tmp_path, HashedWords())
    assert list(kept.encode([])) == []
    kept.close()


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    long = [*TEXTS[:9], "a text that is too long"]
    first, kept = encode(tmp_path, Counting(), long)
    assert kept.truncated == 1
    encoder = Counting()
    again, kept = encode(tmp_path, encoder, [*long, "new"])
    # Slabs of four: the third one now holds another text.
    assert encoder.encoded == [*long[8:], "new"]
    assert (kept.resumed, kept.truncated) == (8, 1)
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


@pytest.mark.parametrize("name", ["slabs.jsonl", "vectors.f16"])
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


@pytest.mark.parametrize("line", [b"5", b'[["x"], 0, 0, 0, "d"]', b"null", b'["n", 9223372036854775807, 1, 0, "d"]'])
def test_a_line_that_is_no_slabs_is_passed_over(tmp_path: Path, line: bytes) -> None:
    expected, _ = encode(tmp_path, Counting(), TEXTS)
    (path,) = (tmp_path / JOURNAL).glob("*/slabs.jsonl")
    path.write_bytes(line + b"\n" + path.read_bytes())
    vectors, kept = encode(tmp_path, Counting(), TEXTS)
    assert kept.resumed == 10
    assert np.array_equal(vectors, expected)
