from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercel.errors import UsageError
from tiercel.index.analysis import ENGLISH_STOP_WORDS, analyzer, analyzer_names, fold


def test_english_drops_stop_words_and_stems_the_rest() -> None:
    terms = analyzer("english").terms(["the", "falcons", "are", "hunting", "with", "running", "2024"])
    assert terms == [None, "falcon", None, "hunt", None, "run", "2024"]


def test_english_compares_stop_words_before_stemming() -> None:
    # "bys" and "noes" stem to what looks like a stop word and stay; "this" would stem to "this" and goes.
    assert analyzer("english").terms(["ins", "this", "theirs"]) == ["in", None, "their"]


def test_english_has_the_33_stop_words_of_lucene() -> None:
    assert len(ENGLISH_STOP_WORDS) == 33
    assert analyzer("english").terms(sorted(ENGLISH_STOP_WORDS)) == [None] * 33
    assert analyzer("english").terms(["The", "ＴＨＥ"]) == [None, None]


def test_none_keeps_words_as_they_are() -> None:
    none = analyzer("none")
    assert none.terms(["the", "falcons", "東京"]) == ["the", "falcons", "東京"]
    assert not none.cjk_bigrams


def test_cjk_keeps_words_and_asks_for_bigrams() -> None:
    cjk = analyzer("cjk")
    assert cjk.terms(["the", "falcons", "東京"]) == ["the", "falcons", "東京"]
    assert cjk.cjk_bigrams


def test_another_language_stems_without_stop_words() -> None:
    german = analyzer("german")
    assert german.terms(["der", "häuser", "laufen"]) == ["der", "haus", "lauf"]
    assert german.cjk_bigrams


@pytest.mark.parametrize("name", ["english", "none", "cjk", "french"])
def test_full_width_composed_and_upper_case_forms_meet(name: str) -> None:
    forms = ["café", "cafe\u0301", "CAFÉ", "ｃａｆé", "CAFE\u0301"]
    assert len(set(analyzer(name).terms(forms))) == 1


def test_sharp_s_meets_double_s() -> None:
    assert analyzer("none").terms(["straße", "STRASSE", "ﬁn", "ΣΑΣ", "σας"]) == [
        "strasse",
        "strasse",
        "fin",
        "σασ",
        "σασ",
    ]


def test_no_tokens_give_no_terms() -> None:
    assert [analyzer(name).terms([]) for name in ("english", "none")] == [[], []]


@pytest.mark.parametrize("name", analyzer_names())
def test_every_name_gives_an_analyzer_aligned_with_its_tokens(name: str) -> None:
    found = analyzer(name)
    assert found.name == name
    assert len(found.terms(["a", "falcon", "東京", "٣", "\u0301"])) == 5


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as refused:
        analyzer("englsh")
    assert str(refused.value).startswith("unknown analyzer 'englsh'; expected one of english, none, cjk, ")
    assert str(refused.value).endswith(". Did you mean 'english'?")


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(UsageError, match=r"^unknown analyzer 'qqqq'; expected one of english, .*[a-z]$"):
        analyzer("qqqq")


def test_names_come_once_and_the_main_three_first() -> None:
    names = analyzer_names()
    assert names[:3] == ["english", "none", "cjk"]
    assert len(set(names)) == len(names)


def test_fingerprints_differ_by_rules_and_stay() -> None:
    fingerprints = {name: analyzer(name).fingerprint for name in analyzer_names()}
    assert len(set(fingerprints.values())) == len(fingerprints)
    # Of format 1: an index made with another one is refused, so a change here needs a new rules version.
    assert fingerprints["none"] == "81f29ed9b460d0af"
    assert fingerprints["english"] == "a036a1b4efa070a4"


@given(st.text())
def test_folding_again_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_folding_any_code_point_again_changes_nothing() -> None:
    points = (chr(point) for point in range(sys.maxunicode + 1))
    assert [point for point in points if fold(fold(point)) != fold(point)] == []


@given(st.text())
def test_canonically_equal_texts_fold_alike(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))
