from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import VOCABULARY, write_tokenizer
from tiercel.errors import ModelError
from tiercel.models.tokenize import Tokenizer


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def _words(ids: list[int]) -> list[str]:
    return [VOCABULARY[position] for position in ids]


def test_ids_are_unpadded_and_in_order(tokenizer_file: Path) -> None:
    batch = Tokenizer(tokenizer_file, max_tokens=16).encode(["The falcon", "bread"])
    assert [_words(ids.tolist()) for ids in batch.ids] == [
        ["[CLS]", "the", "falcon", "[SEP]"],
        ["[CLS]", "bread", "[SEP]"],
    ]
    assert batch.truncated == 0


def test_truncation_keeps_the_special_tokens_and_is_counted(tokenizer_file: Path) -> None:
    texts = ["the river is cold", "the river", "bread and bread and bread"]
    batch = Tokenizer(tokenizer_file, max_tokens=4).encode(texts)
    assert _words(batch.ids[0].tolist()) == ["[CLS]", "the", "river", "[SEP]"]
    assert _words(batch.ids[1].tolist()) == ["[CLS]", "the", "river", "[SEP]"]
    assert max(ids.size for ids in batch.ids) == 4
    assert batch.truncated == 2


def test_no_texts(tokenizer_file: Path) -> None:
    assert Tokenizer(tokenizer_file, max_tokens=4).encode([]) == ([], 0)


def test_no_room_beside_the_special_tokens(tokenizer_file: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens is 2; expected more than the 2 special tokens"):
        Tokenizer(tokenizer_file, max_tokens=2)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "cannot be read as JSON"), ("[]", "holds no tokenizer"), (None, "cannot be read")]
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=rf"tokenizer\.json: {message}.*Export the model again"):
        Tokenizer(path, max_tokens=8)
