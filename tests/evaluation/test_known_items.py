from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercel.evaluation.known_items import (
    WINDOW,
    forms_of,
    queries_of,
    remembered,
    shingles,
    signature,
    words_of,
)
from tiercel.types import DocId, Document

TEXT = "The tiercel, a male falcon, isn't as large as the female: it hunts smaller birds in tiers."
DOCUMENT = Document(DocId("d"), TEXT, "Male falcons")


def by_length(words: Sequence[str]) -> list[float]:
    """Short words weigh nothing, others what they have letters."""
    return [len(word) if len(word) > 3 else 0.0 for word in words]


def test_words_are_cut_as_people_see_them() -> None:
    assert words_of("The tiercel isn't LARGE, well-known") == ["the", "tiercel", "isn't", "large", "well-known"]
    assert words_of("隼は速い bird") == ["隼は", "速い", "bird"]
    assert words_of(" ,; ") == []


def test_a_short_text_is_remembered_whole_and_a_long_one_in_part() -> None:
    part = remembered(DOCUMENT, seed=1)
    assert part is not None
    assert part.text == TEXT.removesuffix(".")
    long = Document(DocId("long"), " ".join(f"w{n}" for n in range(3 * WINDOW)))
    part = remembered(long, seed=1)
    assert part is not None
    assert part.words == part.text.split()
    assert len(part.words) == WINDOW
    assert part.text in long.text
    assert part == remembered(long, seed=1)
    assert any(remembered(long, seed=seed) != part for seed in range(2, 5))


def test_what_a_document_gives() -> None:
    part = remembered(DOCUMENT, seed=1)
    plain = queries_of(DOCUMENT, part, by_length, 1)
    assert set(plain) == {"keywords", "snippet", "title"}
    assert plain["title"] == "Male falcons"
    assert plain["snippet"] in TEXT
    assert len(words_of(plain["snippet"])) == 10
    # Nine words have more than three letters; four of them, in the order of the text.
    heavy = "tiercel male falcon isn't large female hunts smaller birds tiers".split()
    words = plain["keywords"].split()
    assert len(words) == 4
    assert words == [word for word in heavy if word in words]


def test_no_title_no_text() -> None:
    bare = Document(DocId("d"), "two words")
    assert remembered(bare, seed=1) is None
    assert queries_of(bare, None, by_length, 1) == {}
    stops = Document(DocId("d"), "to be or not")
    assert set(queries_of(stops, remembered(stops, seed=1), by_length, 1)) == {"snippet"}


def test_the_signature_is_the_weightiest_words() -> None:
    part = remembered(Document(DocId("d"), "falcon Falcon of the tiers"), seed=1)
    assert part is not None
    assert signature(part, by_length) == "falcon tiers"


def test_forms() -> None:
    forms = forms_of(DocId("d"), "title", "Male Falcons", 1)
    assert list(forms) == ["plain", "typo", "lower", "reordered"]
    assert (forms["plain"], forms["lower"], forms["reordered"]) == ("Male Falcons", "male falcons", "Falcons Male")
    (changed,) = [pair for pair in zip(forms["typo"].split(), ["Male", "Falcons"], strict=True) if pair[0] != pair[1]]
    assert abs(len(changed[0]) - len(changed[1])) <= 1
    assert changed[0][0] == changed[1][0]


def test_what_cannot_be_changed_stays() -> None:
    assert set(forms_of(DocId("d"), "title", "a", 1).values()) == {"a"}
    assert forms_of(DocId("d"), "title", "who who", 1)["reordered"] == "who who"


@given(st.text(alphabet="abc XYZ,é隼速", max_size=60), st.integers(0, 3))
def test_any_text_has_its_forms(text: str, seed: int) -> None:
    forms = forms_of(DocId("d"), "snippet", text, seed)
    assert forms == forms_of(DocId("d"), "snippet", text, seed)
    assert sorted(forms["reordered"].split()) == sorted(text.split())
    slips = max(1, len(words_of(text)) // 3)
    assert abs(len(forms["typo"]) - len(text)) <= slips
    part = remembered(Document(DocId("d"), text), seed)
    assert (part is None) == (len(words_of(text)) < 3)
    if part is not None:
        assert [word.casefold() for word in part.words] == words_of(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d", {("a", "b", "c"), ("b", "c", "d")}),
        ("A b", {("a", "b")}),
        ("", {()}),
    ],
)
def test_shingles(text: str, expected: set[tuple[str, ...]]) -> None:
    assert shingles(text) == expected
