from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import VOCABULARY, write_tokenizer
from tiercel.errors import ModelError
from tiercel.models.uni_inputs import UniMask, UniSettings, UniTokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> UniTokenizer:
    from tokenizers import Tokenizer

    rust = Tokenizer.from_file(str(write_tokenizer(tmp_path)))
    return UniTokenizer(rust, UniSettings(context_tokens=8, candidate_tokens=5))


def _words(ids: object) -> str:
    return " ".join(VOCABULARY[token] for token in ids)  # type: ignore[attr-defined]


def test_turns_are_joined_oldest_first(tokenizer: UniTokenizer) -> None:
    context = tokenizer.context(["who hunts", "the falcon"])
    assert (_words(context.ids), context.cut_tokens) == ("[CLS] who hunts [SEP] the falcon [SEP]", 0)
    assert _words(tokenizer.context(["who"]).ids) == "[CLS] who [SEP]"


def test_a_long_context_loses_its_oldest_tokens(tokenizer: UniTokenizer) -> None:
    context = tokenizer.context(["the cold river is deep", "who hunts", "in winter"])
    assert (_words(context.ids), context.cut_tokens) == ("[CLS] [SEP] who hunts [SEP] in winter [SEP]", 5)


def test_an_empty_context_is_read(tokenizer: UniTokenizer) -> None:
    assert _words(tokenizer.context([]).ids) == _words(tokenizer.context([""]).ids) == "[CLS] [SEP]"


def test_a_long_candidate_loses_its_end(tokenizer: UniTokenizer) -> None:
    candidates = tokenizer.candidates(["the cold river is deep", "bread", "", "the cold river"])
    expected = ["the cold river", "bread", "", "the cold river"]
    assert [_words(ids).split() for ids in candidates.ids] == [["[CLS]", *text.split(), "[SEP]"] for text in expected]
    assert candidates.truncated == 1
    assert tokenizer.candidates([]) == ([], 0)


def test_a_tokenizer_that_joins_otherwise_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(ModelError, match="puts 0 tokens around a text; expected 2"):
        UniTokenizer(Tokenizer(models.WordPiece({"a": 0}, unk_token="a")), UniSettings())


@pytest.mark.parametrize(("mask", "size"), [("arrow", 0), ("one-way", 3)])
def test_the_group_size_has_to_fit_the_mask(mask: UniMask, size: int) -> None:
    with pytest.raises(ModelError, match=f"group_size {size} with mask {mask}; expected 1 or more with arrow, 0 with"):
        UniSettings(mask, size)


def test_windows_hold_more_than_special_tokens() -> None:
    with pytest.raises(ModelError, match="windows of 2 and 9 tokens; expected more than the 2 special tokens"):
        UniSettings(context_tokens=2, candidate_tokens=9)
