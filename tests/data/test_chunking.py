from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiercel.data.chunking import CHUNK_KINDS, Chunking, ChunkKind, passages_of
from tiercel.data.pages import MarkdownHeading, markdown_headings
from tiercel.errors import UsageError
from tiercel.index.tokens import _CJK_RANGES
from tiercel.types import DocId, Document, Passage

FRAGMENTS = [
    "One two three.", "Is it?", "e.g. this", "Dr. A.\xa0B. Smith", "(unclosed", "word", "x" * 70, "3.14", "don't",
    "東京タワー。", "한국어", "𠮷野家", "😀!", "e\u0301", "𝔸𝔹.", "\u200b", "_", "\x00",
    " ", "  ", "\n", "\n\n", "\r\n", "\r\n \r\n", "\t", "\xa0", "\u2028", "\u3000", "\x85", "\x1f",
    "\n# One\n", "\n## Two ##\n", "\n###### Six\r\n", "\nOver\n===\n", "\n\nOver\n---\n", "\n```\n", "\n---\n",
]  # fmt: skip
TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)


@st.composite
def chunkings(draw: st.DrawFn) -> Chunking:
    size = draw(st.integers(1, 12))
    return Chunking(draw(st.sampled_from(CHUNK_KINDS)), size, draw(st.integers(0, size - 1)))


def cut(text: str, kind: ChunkKind, size: int = 200, overlap: int = 0) -> list[Passage]:
    return passages_of(Document(DocId("d"), text, "a title"), Chunking(kind, size, overlap))


def texts(text: str, kind: ChunkKind, size: int = 200, overlap: int = 0) -> list[str]:
    return [passage.text for passage in cut(text, kind, size, overlap)]


def sections(text: str, size: int = 200, overlap: int = 0) -> list[tuple[tuple[str, ...], str]]:
    return [(passage.headings, passage.text) for passage in cut(text, "headings", size, overlap)]


def count_tokens(text: str) -> int:
    """The rules once more, one character at a time."""
    count = run = 0
    for character in text:
        point = ord(character)
        is_cjk = 0x20000 <= point < 0x40000 or any(first <= point <= last for first, last in _CJK_RANGES)
        run = run + 1 if (character.isalnum() or character == "_") and not is_cjk else 0
        count += run % 32 == 1 if run else not character.isspace()
    return count


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("the falcon, it's 3.14", ["the", "falcon", ",", "it", "'", "s", "3", ".", "14"]),
        ("snake_case naïve", ["snake_case", "naïve"]),
        ("東京タワー한국𠮷x", ["東", "京", "タ", "ワ", "ー", "한", "국", "𠮷", "x"]),
        ("𝔸𝔹 😀😀", ["𝔸𝔹", "😀", "😀"]),
        ("x" * 70, ["x" * 32, "x" * 32, "x" * 6]),
        (" \r\n\ta\u3000\x85b\xa0", ["a", "b"]),
    ],
)
@pytest.mark.parametrize("kind", CHUNK_KINDS)
def test_what_counts_as_a_token(text: str, tokens: list[str], kind: ChunkKind) -> None:
    assert texts(text, kind, 1) == tokens


@pytest.mark.parametrize(
    ("size", "overlap", "expected"),
    [
        (3, 0, ["a b c", "d e f", "g"]),
        (3, 1, ["a b c", "c d e", "e f g"]),
        (4, 3, ["a b c d", "b c d e", "c d e f", "d e f g"]),
        (6, 2, ["a b c d e f", "e f g"]),
        (7, 6, ["a b c d e f g"]),
        (8, 0, ["a b c d e f g"]),
    ],
)
def test_windows_of_tokens(size: int, overlap: int, expected: list[str]) -> None:
    assert texts(" a b c d e f g\n", "tokens", size, overlap) == expected


def test_a_passage_knows_where_it_is() -> None:
    assert cut("\n𝔸 😀  b\r\nc ", "tokens", 2) == [
        Passage(DocId("d"), "𝔸 😀", 1, 4),
        Passage(DocId("d"), "b\r\nc", 6, 10),
    ]


@pytest.mark.parametrize("kind", CHUNK_KINDS)
@pytest.mark.parametrize("text", ["", " ", "\r\n\t\u3000\u2028\n\n"])
def test_a_document_without_text_has_one_empty_passage(text: str, kind: ChunkKind) -> None:
    assert cut(text, kind) == [Passage(DocId("d"), "", 0, 0)]


SENTENCES = "One two three. Four five six. Seven eight nine. Ten?"
"""Sentences of 4, 4, 4 and 2 tokens."""


@pytest.mark.parametrize(
    ("size", "overlap", "expected"),
    [
        (200, 0, [SENTENCES]),
        (4, 0, ["One two three.", "Four five six.", "Seven eight nine.", "Ten?"]),
        (8, 0, ["One two three. Four five six.", "Seven eight nine. Ten?"]),
        (8, 3, ["One two three. Four five six.", "Seven eight nine. Ten?"]),
        (8, 4, ["One two three. Four five six.", "Four five six. Seven eight nine.", "Seven eight nine. Ten?"]),
        # Two sentences would be no more than the overlap, but with them the next one would not fit.
        (10, 9, ["One two three. Four five six.", "Four five six. Seven eight nine. Ten?"]),
        (12, 8, ["One two three. Four five six. Seven eight nine.", "Four five six. Seven eight nine. Ten?"]),
    ],
)
def test_whole_sentences_are_packed(size: int, overlap: int, expected: list[str]) -> None:
    assert texts(SENTENCES, "sentences", size, overlap) == expected


def test_a_sentence_longer_than_a_passage_is_cut_by_tokens() -> None:
    text = "Short one. Big b c d e f g hen. End here. Last."
    assert texts(text, "sentences", 4) == ["Short one.", "Big b c d", "e f g hen", ".", "End here.", "Last."]
    assert texts(text, "sentences", 5, 2) == ["Short one.", "Big b c d e", "d e f g hen", "g hen.", "End here. Last."]


def test_the_offsets_of_sentences_are_characters() -> None:
    text = "𝔸𝔹 𠮷 😀. Next one is here. 日本です。はい。\r\n"
    assert texts(text, "sentences", 5) == ["𝔸𝔹 𠮷 😀.", "Next one is here.", "日本です。", "はい。"]


@pytest.mark.parametrize("blank", ["\n\n", "\n \t\n", "\r\n\r\n", "\r\n \r\n", "\n\n\n\n"])
def test_a_blank_line_ends_a_sentence(blank: str) -> None:
    assert texts(f"no end{blank}next part\nof it", "sentences", 4) == ["no end", "next part\nof it"]


def test_abbreviations_end_no_sentence() -> None:
    assert texts("Dr. Smith saw e.g. Mr. A. B. Jones. He left.", "sentences", 16) == [
        "Dr. Smith saw e.g. Mr. A. B. Jones.",
        "He left.",
    ]


@pytest.mark.parametrize("shift", range(28))
def test_sentences_of_a_long_text(shift: int) -> None:
    # The shift moves the ends of sentences over those of the blocks that the text is read in.
    sentences = ["x" * shift + " begins.", *(f"Number {number} hunts in tiers." for number in range(100, 400))]
    assert texts(" ".join(sentences).strip(), "sentences", 7) == [sentence.strip() for sentence in sentences]


def test_a_sentence_after_a_very_long_one() -> None:
    sentences = ["word " * 2000 + "end.", "Number one hunts."]
    assert texts(" ".join(sentences), "sentences", 2002) == sentences


@pytest.mark.parametrize(("opening", "closing"), ["()", "[]", "“”", '""'])
def test_brackets_far_apart_do_not_hide_the_sentences_between(opening: str, closing: str) -> None:
    text = f"It is {opening}see. " + "Number one hunts. " * 1000 + f"here{closing} now."
    assert len(texts(text, "sentences", 5)) > 900


@pytest.mark.parametrize("text", ["A\xa0B. C", "J.\u2028B.\u3000Smith", "A\x85.x", "half \udc80 a pair. \ud800"])
@pytest.mark.parametrize("kind", CHUNK_KINDS)
def test_white_space_of_any_width_and_half_pairs(text: str, kind: ChunkKind) -> None:
    assert texts(text, kind) == [text]


PAGE = """---
title: x
---
Before.

# One

First words. More words.

```
# a comment
```

## Two
Second.

Under
-----
Third.
### Deep
Fourth.
# Last
"""


def test_sections_of_a_page() -> None:
    assert sections(PAGE) == [
        ((), "---\ntitle: x\n---\nBefore."),
        (("One",), "# One\n\nFirst words. More words.\n\n```\n# a comment\n```"),
        (("One", "Two"), "## Two\nSecond."),
        (("One", "Under"), "Under\n-----\nThird."),
        (("One", "Under", "Deep"), "### Deep\nFourth."),
        (("Last",), "# Last"),
    ]


def test_a_section_too_long_is_packed_by_sentences_within_it() -> None:
    text = f"# One\n{SENTENCES}\n# Two\nEleven."
    assert sections(text, 8, 4) == [
        (("One",), "# One\nOne two three."),
        (("One",), "One two three. Four five six."),
        (("One",), "Four five six. Seven eight nine."),
        (("One",), "Seven eight nine. Ten?"),
        (("Two",), "# Two\nEleven."),
    ]
    assert sections(text, 4)[:2] == [(("One",), "# One"), (("One",), "One two three.")]


def test_levels_that_are_left_out() -> None:
    text = "## B\nb\n#### D\nd\n### C\nc\n# A\na\n### C\nc"
    assert [headings for headings, _ in sections(text)] == [("B",), ("B", "D"), ("B", "C"), ("A",), ("A", "C")]


def test_a_heading_alone_joins_the_deeper_section_after_it() -> None:
    assert sections("# A\n\n## B\n\n### C\nwords\n## D\n# E\n# F\n") == [
        (("A",), "# A\n\n## B\n\n### C\nwords"),
        (("A", "D"), "## D"),
        (("E",), "# E"),
        (("F",), "# F"),
    ]
    # "# A" is 2 tokens, "## B" 3 and "### C" with its words 6.
    text = "# A\n## B\n### C\nand words"
    assert sections(text, 10) == [(("A",), "# A"), (("A", "B"), "## B\n### C\nand words")]
    assert sections(text, 8) == [(("A",), "# A\n## B"), (("A", "B", "C"), "### C\nand words")]


def test_a_text_without_headings_is_packed_by_sentences() -> None:
    assert cut(SENTENCES, "headings", 8, 4) == cut(SENTENCES, "sentences", 8, 4)


@given(TEXTS, chunkings())
@settings(deadline=None, max_examples=500)
@example("x" * 100, Chunking("sentences", 2, 1))
@example("# A\n## B\n### C\nand words", Chunking("headings", 9, 8))
def test_passages_hold_the_whole_text_in_order(text: str, chunking: Chunking) -> None:
    passages = passages_of(Document(DocId("d"), text), chunking)
    assert all(passage.text == text[passage.start : passage.end] for passage in passages)
    assert all(passage.text == passage.text.strip() for passage in passages)
    assert max(count_tokens(passage.text) for passage in passages) <= chunking.size
    reached = 0
    for passage in passages:
        assert not text[reached : passage.start].strip()
        reached = passage.end
    assert not text[reached:].strip()
    for one, next_one in pairwise(passages):
        assert one.start < next_one.start
        assert one.end < next_one.end
        assert count_tokens(text[next_one.start : one.end]) <= chunking.overlap
        assert next_one.start >= one.end or chunking.overlap
    if len(passages) > 1:
        assert all(passage.text for passage in passages)


@given(TEXTS, st.integers(1, 12))
@settings(deadline=None, max_examples=300)
def test_passages_stay_within_their_section(text: str, size: int) -> None:
    headings = list(markdown_headings(text))
    lines = {place for heading in headings for place in range(heading.start, heading.end)}
    for passage in cut(text, "headings", size):
        path: list[MarkdownHeading] = []
        for heading in headings:
            if heading.start <= passage.start:
                path = [*(above for above in path if above.level < heading.level), heading]
        assert passage.headings == tuple(heading.title for heading in path)
        inside = [heading for heading in headings if passage.start <= heading.start < passage.end]
        if inside:
            # What precedes the last heading of a passage is headings only, each deeper than the one before.
            before = range(passage.start, inside[-1].start)
            assert not "".join(text[place] for place in before if place not in lines).strip()
            assert [heading.level for heading in inside] == sorted({heading.level for heading in inside})


@given(st.lists(st.integers(1, 8), min_size=1, max_size=30), st.integers(9, 20), st.integers(0, 8))
@settings(deadline=None)
def test_passages_begin_and_end_with_a_sentence_and_are_full(words: list[int], size: int, overlap: int) -> None:
    sentences = [f"Word{' word' * (count - 1)}." for count in words]
    passages = texts(" ".join(sentences), "sentences", size, overlap)
    done = 0
    for passage in passages:
        # Its first sentences repeat the last ones done; find how many, the most that the settings allow.
        repeated = 0
        while (
            repeated + 1 < max(done, 1)
            and sum(words[done - repeated - 1 : done]) + repeated + 1 <= overlap
            and sum(words[done - repeated - 1 : done + 1]) + repeated + 2 <= size
        ):
            repeated += 1
        end = done + 1
        while end < len(words) and sum(words[done - repeated : end + 1]) + (end + 1 - done + repeated) <= size:
            end += 1
        assert passage == " ".join(sentences[done - repeated : end])
        done = end
    assert done == len(words)


@pytest.mark.parametrize("kind", CHUNK_KINDS)
@pytest.mark.parametrize("text", ["x", "日", "日。", ".", "word ", "(", "a\n", "\n", "# a\n", "a\n\n", "a\n-\n", "`"])
def test_long_texts_of_one_kind(text: str, kind: ChunkKind) -> None:
    long = text * (100_000 // len(text))
    passages = cut(long, kind, 50, 10)
    assert sum(len(passage.text) for passage in passages) >= len(long) * (long.strip() != "") / 2
    assert max(count_tokens(passage.text) for passage in passages) <= 50


def test_real_abstracts(scifact: Path) -> None:
    with gzip.open(scifact / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [json.loads(line)["text"] for line, _ in zip(lines, range(200), strict=False)]
    for text in documents:
        passages = cut(text, "sentences", 100, 30)
        assert passages[0].start == 0
        assert passages[-1].end == len(text.rstrip())
        # Most abstracts have no sentence of 100 tokens: passages then end where sentences do.
        assert passages[0].text[-1] in ".?!)" or count_tokens(passages[0].text) == 100


def test_the_fingerprint_changes_with_every_setting() -> None:
    all_different = [
        Chunking("sentences"),
        Chunking("tokens"),
        Chunking("headings"),
        Chunking("sentences", 100),
        Chunking("sentences", 200, 20),
    ]
    assert len({chunking.fingerprint for chunking in all_different}) == len(all_different)
    assert Chunking("sentences").fingerprint == Chunking("sentences", 200, 0).fingerprint
    # Indexes hold it: it changes together with the rules and not otherwise.
    assert Chunking("sentences").fingerprint == "dab3be94a8dac3ba"


@pytest.mark.parametrize(
    ("kind", "size", "overlap", "message"),
    [
        ("words", 200, 0, "passages by 'words'; expected one of sentences, tokens, headings"),
        ("tokens", 0, 0, "passages of 0 tokens; expected a size of 1 or more"),
        ("tokens", -5, 0, "passages of -5 tokens; expected a size of 1 or more"),
        ("tokens", 10, -1, "an overlap of -1 tokens; expected 0 to 9, less than the size"),
        (
            "tokens",
            10,
            10,
            "an overlap of 10 tokens; expected 0 to 9, less than the size. Lower the overlap or raise the size",
        ),
    ],
)
def test_settings_that_cannot_be_meant(kind: ChunkKind, size: int, overlap: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Chunking(kind, size, overlap)
    assert str(caught.value) == message
