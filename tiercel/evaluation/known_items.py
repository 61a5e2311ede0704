"""Queries made from a document that is there: what somebody who remembers it might type.

Keywords, a snippet and the title, each as it stands and as people mistype, lower and mix up words. Every draw follows
from the seed and the document's id, so one document gives the same queries whatever else is drawn.

L. Azzopardi, M. de Rijke, K. Balog: Building Simulated Queries for Known-Item Topics. SIGIR 2007; the worst of several
forms as in G. Penha, A. Câmara, C. Hauff: Evaluating the Robustness of Retrieval Pipelines with Query Variation
Generators. ECIR 2022.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from tiercel.types import DocId, Document

Kind: TypeAlias = Literal["keywords", "snippet", "title"]
"""What of the document is remembered."""

Form: TypeAlias = Literal["plain", "typo", "lower", "reordered"]
"""How it is written down."""

KINDS: tuple[Kind, ...] = get_args(Kind)
FORMS: tuple[Form, ...] = get_args(Form)

Weigh: TypeAlias = Callable[[Sequence[str]], Sequence[float]]
"""How much each of these words tells documents apart, 0 for nothing."""

WINDOW = 100
"""Words of the stretch that is remembered of a document: about a passage."""

_KEYWORDS, _KEYWORDS_OF = 4, 10
_SNIPPET = 10
_SIGNATURE = 32
_SHINGLE = 3
_WORDS_PER_TYPO = 3
_LEAST_WORDS = 3

_CJK = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7ff"
# Where words are not set apart, two characters stand for one, as they do in the index.
_WORD = re.compile(rf"[{_CJK}]{{1,2}}|[^\W{_CJK}]+(?:['’-][^\W{_CJK}]+)*")


@dataclass(frozen=True, slots=True)
class Remembered:
    """A stretch of a document's text, cut into words.

    Attributes:
        text: at most WINDOW words of it.
        spans: of each word, in characters of `text`.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        """The words in their order."""
        return [self.text[start:end] for start, end in self.spans]


def words_of(text: str) -> list[str]:
    """The words of a text in their order, folded for comparison."""
    return [match[0].casefold() for match in _WORD.finditer(text)]


def remembered(document: Document, seed: int) -> Remembered | None:
    """A stretch of the text, drawn; None for a text of less than three words."""
    spans = [match.span() for match in _WORD.finditer(document.text)]
    if len(spans) < _LEAST_WORDS:
        return None
    first = _drawn(seed, document.id, "window").randrange(max(1, len(spans) - WINDOW + 1))
    some = spans[first : first + WINDOW]
    start, end = some[0][0], some[-1][1]
    return Remembered(document.text[start:end], tuple((a - start, b - start) for a, b in some))


def queries_of(document: Document, part: Remembered | None, weigh: Weigh, seed: int) -> dict[Kind, str]:
    """The plain query of every kind that the document gives: no title, no query of the title."""
    found: dict[Kind, str] = {}
    if part is not None:
        drawn = _drawn(seed, document.id, "keywords")
        heavy = _weightiest(part.words, weigh, _KEYWORDS_OF)
        if heavy:
            chosen = set(drawn.sample(range(len(heavy)), min(_KEYWORDS, len(heavy))))
            found["keywords"] = " ".join(word for number, word in enumerate(heavy) if number in chosen)
        first = _drawn(seed, document.id, "snippet").randrange(max(1, len(part.spans) - _SNIPPET + 1))
        last = min(first + _SNIPPET, len(part.spans)) - 1
        found["snippet"] = part.text[part.spans[first][0] : part.spans[last][1]]
    if words_of(document.title):
        found["title"] = document.title
    return found


def forms_of(doc_id: DocId, kind: Kind, plain: str, seed: int) -> Mapping[Form, str]:
    """The query in every form: as it is, a slip in every third word, in lower case, with its words in another order."""
    drawn = _drawn(seed, doc_id, kind)
    return {
        "plain": plain,
        "typo": _mistyped(plain, drawn),
        "lower": plain.lower(),
        "reordered": _reordered(plain, drawn),
    }


def signature(part: Remembered, weigh: Weigh) -> str:
    """The words that tell most of a stretch, as a query that finds its near-duplicates."""
    return " ".join(_weightiest(part.words, weigh, _SIGNATURE))


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Every three words in a row; the words of a shorter text as one."""
    words = words_of(text)
    return frozenset(tuple(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1)))


def _drawn(seed: int, doc_id: DocId, what: str) -> random.Random:
    return random.Random(f"{seed} {what} {doc_id}")


def _weightiest(words: Sequence[str], weigh: Weigh, count: int) -> list[str]:
    """At most `count` distinct words of most weight, none of weight 0, in the order of the text."""
    distinct = list({word.casefold(): word for word in reversed(words)}.values())[::-1]
    weights = weigh(distinct)
    ranked = sorted((n for n in range(len(distinct)) if weights[n] > 0), key=lambda n: (-weights[n], n))
    return [distinct[n] for n in sorted(ranked[:count])]


def _mistyped(text: str, drawn: random.Random) -> str:
    """One slip in every third word, at least one, in words of four letters or more where there are such."""
    spans = [match.span() for match in _WORD.finditer(text)]
    long = [span for span in spans if span[1] - span[0] >= 4] or [span for span in spans if span[1] - span[0] >= 2]
    slips = min(len(long), max(1, len(spans) // _WORDS_PER_TYPO))
    for start, end in sorted(drawn.sample(long, slips), reverse=True):
        text = text[:start] + _slip(text[start:end], drawn) + text[end:]
    return text


def _slip(word: str, drawn: random.Random) -> str:
    """One letter left out, doubled, or changed places with the next; never the first."""
    place = drawn.randrange(1, len(word))
    swapped = word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :]
    others = [word[:place] + word[place + 1 :], word[:place] + word[place] + word[place:]]
    return drawn.choice([*others, swapped] if place > 1 and swapped != word else others)


def _reordered(text: str, drawn: random.Random) -> str:
    """The words in another order, where there are two different ones with a space between them."""
    words = text.split()
    if len(set(words)) < 2:
        return text
    mixed = list(words)
    while mixed == words:
        drawn.shuffle(mixed)
    return " ".join(mixed)
