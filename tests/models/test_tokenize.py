from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import VOCABULARY, write_tokenizer
from tiercel.errors import ModelError
from tiercel.models.tokenize import PairTokenizer, Tokenizer


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


def test_a_pair_is_joined_as_the_tokenizer_joins_it(tokenizer_file: Path) -> None:
    from tokenizers import Tokenizer as RustTokenizer

    library = RustTokenizer.from_file(str(tokenizer_file))
    library.no_padding()
    documents = ["bread is cold.", "", "Résumé 河 \u200b falcons", "the river"]
    batch = PairTokenizer(tokenizer_file, max_tokens=64).encode("who hunts?", documents)
    for document, pair in zip(documents, batch.pairs, strict=True):
        expected = library.encode("who hunts?", document)
        assert (pair.ids.tolist(), pair.types.tolist()) == (expected.ids, expected.type_ids)
    assert (batch.truncated, batch.query_truncated) == (0, False)


def test_the_document_of_a_pair_is_cut(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, max_tokens=8)
    batch = tokenizer.encode("the falcon hunts", ["bread", "cold deep river", "in winter", "in deep winter"])
    assert [_words(pair.ids.tolist())[5:] for pair in batch.pairs] == [
        ["bread", "[SEP]"],
        ["cold", "deep", "[SEP]"],
        ["in", "winter", "[SEP]"],
        ["in", "deep", "[SEP]"],
    ]
    assert batch.pairs[1].types.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert (batch.truncated, batch.query_truncated) == (2, False)


def test_a_query_is_cut_where_it_fills_the_window(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, max_tokens=7)
    whole = tokenizer.encode("the falcon hunts", ["cold river"])
    cut = tokenizer.encode("the falcon hunts bread", ["cold river"])
    assert (whole.query_truncated, cut.query_truncated) == (False, True)
    words = ["[CLS]", "the", "falcon", "hunts", "[SEP]", "cold", "[SEP]"]
    assert _words(whole.pairs[0].ids.tolist()) == _words(cut.pairs[0].ids.tolist()) == words
    assert tokenizer.encode("the falcon hunts bread", []) == ([], 0, True)


def test_no_room_for_a_pair(tokenizer_file: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens is 4; expected at least 5: the 3 special tokens of every pair"):
        PairTokenizer(tokenizer_file, max_tokens=4)


def test_the_window_of_a_pair_is_what_its_encoding_keeps(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, max_tokens=8)
    # Five tokens beside the special ones: three of the query, two of the document.
    assert tokenizer.window("the falcon hunts", "cold deep river") == (5, 1, 9)
    assert tokenizer.window("the falcon hunts", "in winter") == (5, 0, 9)
    assert tokenizer.window("the falcon hunts", "") == (3, 0, 0)
    assert tokenizer.window("the falcon hunts bread is sold", "cold river") == (5, 1, 4)
