"""Documents cut into passages: by sentences, by tokens or by Markdown headings.

Passages are slices of the document's text that begin and end with a token. Whatever the kind, every character that is
no white space is in one of them, none is inside another, and the work grows with the length of the text.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias, get_args

from tiercel.data.pages import markdown_headings
from tiercel.errors import UsageError
from tiercel.types import Document, Passage

ChunkKind: TypeAlias = Literal["sentences", "tokens", "headings"]

CHUNK_KINDS: tuple[ChunkKind, ...] = get_args(ChunkKind)

_RULES_VERSION = 1
"""Raised whenever the same text would give other passages; part of every fingerprint."""

# Han, Hiragana, Katakana and Hangul: the ranges of tiercel/index/tokens.py.
_CJK = (
    r"\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3041-\u30ff\u3105-\u318f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[^\W{_CJK}]{{1,32}}|\S")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
# sentencex 1.0.32 panics at white space of several bytes (a no-break space after an initial), and takes no surrogates.
_NOT_FOR_SENTENCEX = re.compile(r"[^\S\x00-\x7f]|[\ud800-\udfff]")
# Its time can grow with the square of a text's length (320,000 characters of `日。` take a minute), and it ends no
# sentence between a bracket or quotation mark and the one that closes it, however far that is. Blocks bound both.
_BLOCK_CHARACTERS = 2048

_Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut into passages.

    A token is a word of at most 32 characters (a longer one is several), one CJK character, or one other character
    that is no white space. No model is asked. Its word pieces are somewhat more: MiniLM's are 1.24 a token in the
    abstracts of SciFact, so that a passage of 200 tokens may exceed a window of 256 pieces.

    Attributes:
        kind: "sentences" packs whole sentences, "tokens" cuts after `size` of them wherever that is, "headings" packs
            the sentences of each Markdown section.
        size: tokens that a passage holds at most.
        overlap: tokens that a passage repeats of the one before, at most; less than `size`. "tokens" repeats exactly
            so many, the others whole sentences.

    Raises UsageError for an unknown kind and for a size or overlap out of its range.
    """

    kind: ChunkKind
    size: int = 200
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.kind not in CHUNK_KINDS:
            raise UsageError(f"passages by {self.kind!r}", expected=f"one of {', '.join(CHUNK_KINDS)}")
        if self.size < 1:
            raise UsageError(f"passages of {self.size} tokens", expected="a size of 1 or more")
        if not 0 <= self.overlap < self.size:
            raise UsageError(
                f"an overlap of {self.overlap} tokens",
                expected=f"0 to {self.size - 1}, less than the size",
                next_step="Lower the overlap or raise the size" if self.overlap > 0 else "",
            )

    def __str__(self) -> str:
        return f"{self.kind} of at most {self.size} tokens, overlap {self.overlap}"

    @property
    def fingerprint(self) -> str:
        """Changes whenever our rules would give other passages; a newer release of sentencex is not seen."""
        return hashlib.blake2b(repr((_RULES_VERSION, *astuple(self))).encode(), digest_size=8).hexdigest()


class Sentence(NamedTuple):
    """A sentence as a slice of its text, `text[start:end]`, offsets in characters, and how many tokens it has."""

    start: int
    end: int
    tokens: int


class _Section(NamedTuple):
    """Tokens `first` to `last`, exclusive, under one heading, whose own tokens end at `body`."""

    first: int
    body: int
    last: int
    level: int
    headings: tuple[str, ...]


def count_tokens(text: str) -> int:
    """How many tokens, as `Chunking` defines them, a text has."""
    return len(_TOKEN.findall(text))


def sentences_of(text: str, *, longest: int) -> list[Sentence]:
    """The sentences and paragraphs of a text in its order; one of more than `longest` tokens is cut after so many.

    Each begins and ends with a token, and between two of them is white space or nothing. White space alone gives none.
    Raises UsageError for `longest` below 1.
    """
    cutting = Chunking("tokens", longest)
    spans = [match.span() for match in _TOKEN.finditer(text)]
    if not spans:
        return []
    limits = _token_limits(_sentence_starts(text), [start for start, _ in spans])
    return [
        Sentence(spans[first][0], spans[last - 1][1], last - first)
        for begin, end in pairwise(limits)
        for first, last in _windows(begin, end, cutting)
    ]


def passages_of(document: Document, chunking: Chunking) -> list[Passage]:
    """The passages of a document in the order of its text, starts and ends strictly ascending.

    `headings` is set by the kind "headings" alone. A text without anything but white space gives one passage, empty
    and at 0, so that every document has one.
    """
    text = document.text
    spans = [match.span() for match in _TOKEN.finditer(text)]
    if not spans:
        return [Passage(document.id, "", 0, 0)]

    def passage(window: _Span, headings: tuple[str, ...] = ()) -> Passage:
        start, end = spans[window[0]][0], spans[window[1] - 1][1]
        return Passage(document.id, text[start:end], start, end, headings)

    if chunking.kind == "tokens":
        return [passage(window) for window in _windows(0, len(spans), chunking)]
    starts = [start for start, _ in spans]
    cuts = _token_limits(_sentence_starts(text), starts)
    if chunking.kind == "sentences":
        return [passage(window) for window in _packed(cuts, chunking)]
    return [
        passage(window, section.headings)
        for section in _merged(_sections(text, starts), chunking.size)
        for window in _packed(_limits_within(cuts, section), chunking)
    ]


def _windows(first: int, last: int, chunking: Chunking) -> Iterator[_Span]:
    """Tokens `first` to `last`, exclusive, as windows that repeat the overlap; none lies inside the one before."""
    while last - first > chunking.size:
        yield first, first + chunking.size
        first += chunking.size - chunking.overlap
    yield first, last


def _packed(limits: Sequence[int], chunking: Chunking) -> Iterator[_Span]:
    """Sentences, the i-th from token limits[i] to limits[i + 1], packed in order into windows of tokens.

    Each window holds a sentence that none before it held, and repeats only what leaves room for that one.
    """
    count = len(limits) - 1
    first = fresh = 0  # the sentence that the window begins with, and the one that it begins to add
    while fresh < count:
        if limits[fresh + 1] - limits[fresh] > chunking.size:
            yield from _windows(limits[fresh], limits[fresh + 1], chunking)
            first = fresh = fresh + 1
            continue
        end = fresh + 1
        while end < count and limits[end + 1] - limits[first] <= chunking.size:
            end += 1
        yield limits[first], limits[end]
        if end == count:
            return
        # Less than all is repeated, or the next sentence would be in this window; nothing where it is to be cut.
        room = chunking.size - (limits[end + 1] - limits[end])
        while first < end and limits[end] - limits[first] > min(chunking.overlap, room):
            first += 1
        fresh = end


def _token_limits(positions: Iterable[int], starts: Sequence[int]) -> list[int]:
    """Positions in the text as numbers of the tokens that begin there or next, with 0 and the number of tokens.

    Ascending, each once: a position inside a token or before white space moves up to the next token.
    """
    return sorted({0, len(starts), *(bisect_left(starts, position) for position in positions)})


def _sentence_starts(text: str) -> list[int]:
    """Where sentences and paragraphs begin, in characters; in no order, repeated where both do. 0 is left out.

    Sentences are cut by sentencex with its rules for English, which know the full stops of many other scripts. The
    text goes in block by block, the next beginning with the last sentence that the one before has begun.
    """
    from sentencex import get_sentence_boundaries

    plain = _NOT_FOR_SENTENCEX.sub(" ", text)
    starts = [match.end() for match in _BLANK_LINE.finditer(text)]
    block = 0
    while block < len(plain):
        # Only starts are taken: it may leave out pieces of a text, but all that is between two starts is ours.
        sentences = get_sentence_boundaries("en", plain[block : block + _BLOCK_CHARACTERS])
        found = [block + sentence["start_index"] for sentence in sentences if sentence["start_index"] > 0]
        starts += found
        if block + _BLOCK_CHARACTERS >= len(plain):
            break
        # Half a block at least, so that no text is read more than twice.
        block = max([block + _BLOCK_CHARACTERS // 2, *found[-1:]])
    return starts


def _sections(text: str, starts: Sequence[int]) -> list[_Section]:
    """What precedes the first heading, where there is anything, and one section a heading, as they follow."""
    found: list[_Section] = []
    path: list[tuple[int, str]] = []
    first = body = level = 0
    for heading in markdown_headings(text):
        at = bisect_left(starts, heading.start)
        found.append(_Section(first, body, at, level, tuple(title for _, title in path)))
        first, body, level = at, bisect_left(starts, heading.end), heading.level
        path = [(above, title) for above, title in path if above < level]
        path.append((level, heading.title))
    found.append(_Section(first, body, len(starts), level, tuple(title for _, title in path)))
    return [section for section in found if section.first < section.last]


def _merged(sections: Sequence[_Section], size: int) -> list[_Section]:
    """Sections that are a heading and nothing else, joined to the deeper section that follows where both fit."""
    merged: list[_Section] = []
    for section in reversed(sections):
        is_bare = section.body == section.last
        if is_bare and merged and section.level < merged[-1].level and merged[-1].last - section.first <= size:
            section = section._replace(last=merged.pop().last)
        merged.append(section)
    return merged[::-1]


def _limits_within(cuts: Sequence[int], section: _Section) -> list[int]:
    """Where the sentences of a section begin, and where its last ends; the heading counts as one."""
    inside = cuts[bisect_left(cuts, section.first) : bisect_left(cuts, section.last)]
    return sorted({section.first, section.body, *inside, section.last})
