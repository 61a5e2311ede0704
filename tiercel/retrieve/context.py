"""What of the found passages goes into a prompt, in what order? Packing with citations into a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from tiercel.data.chunking import count_tokens
from tiercel.errors import UsageError
from tiercel.types import DocId, FoundDocument, Span

ContextOrder: TypeAlias = Literal["best-first", "best-last", "edges"]
"""Where the best passages stand: at the beginning, at the end, or at both, with the worst in the middle."""

SAME = 0.8
"""Share of a passage's shingles that have been said before, from which on it is taken to say nothing new."""

_SHINGLE_WORDS = 4
_WORD = re.compile(r"\w+")
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a passage of a context comes from.

    Attributes:
        number: that the passage bears in the context, from 1 for the first.
        doc_id: of its document.
        title: of its document, "" where it has none.
        score: of the hit.
        span: characters of the document's text that stand in the context; None: all of it.
    """

    number: int
    doc_id: DocId
    title: str
    score: float
    span: Span | None


@dataclass(frozen=True, slots=True)
class Context:
    """Passages for a prompt.

    Attributes:
        text: `[1] title`, a line end, the passage; an empty line between two. "" where nothing fitted.
        citations: one for each passage, in the order of the text.
        tokens: of the text.
        repeated: hits left out because they repeat what a better one says.
        left_out: hits left out because they did not fit.
        cut: the best passage did not fit whole, and its beginning stands alone.
    """

    text: str
    citations: tuple[Citation, ...]
    tokens: int
    repeated: int = 0
    left_out: int = 0
    cut: bool = False


def context(
    hits: Sequence[FoundDocument],
    *,
    max_tokens: int,
    order: ContextOrder = "best-first",
    dedupe: float | None = SAME,
    count: Callable[[str], int] = count_tokens,
) -> Context:
    """Pack the passages of hits, best first, into at most `max_tokens`.

    A passage that does not fit is left out and the next one is tried; where none fits, the best is cut at a word.
    Which order helps depends on the model that reads (N. F. Liu et al., Lost in the Middle, TACL 2024).

    Args:
        hits: best first, as a search returns them.
        max_tokens: that the whole text may have.
        order: where the best passages stand.
        dedupe: a passage of whose runs of four words this share stands in those taken before is left out; None: none.
        count: how many tokens a text has. By default words, CJK characters and marks; the model that reads makes more
            of them (1.2 to 1.4 a word of English), so give its own tokenizer where the budget is tight.

    Raises UsageError for an unknown order, and a budget or a share that cannot be.
    """
    if order not in get_args(ContextOrder):
        raise UsageError(f"order {order!r}", expected=f"one of {', '.join(get_args(ContextOrder))}")
    if max_tokens < 1:
        raise UsageError(f"max_tokens={max_tokens}", expected="1 or more")
    if dedupe is not None and not 0 < dedupe <= 1:
        raise UsageError(f"dedupe={dedupe:g}", expected="a share above 0 and at most 1, or None")
    distinct = list(hits) if dedupe is None else list(_distinct(hits, dedupe))
    taken: list[FoundDocument] = []
    for hit in distinct:
        if count(_text([*taken, hit])) <= max_tokens:
            taken.append(hit)
    cut = _cut(distinct[0], max_tokens, count) if distinct and not taken else None
    if cut is not None:
        taken = [cut]
    placed = [taken[rank] for rank in _places(len(taken), order)]
    text = _text(placed)
    citations = [
        Citation(number, hit.document.id, hit.document.title, hit.score, hit.span)
        for number, hit in enumerate(placed, start=1)
    ]
    left_out = len(distinct) - len(taken)
    return Context(text, tuple(citations), count(text), len(hits) - len(distinct), left_out, cut is not None)


def _text(hits: Sequence[FoundDocument]) -> str:
    return _BETWEEN.join(
        f"[{number}] {hit.document.title}\n{hit.text}" if hit.document.title else f"[{number}] {hit.text}"
        for number, hit in enumerate(hits, start=1)
    )


def _places(size: int, order: ContextOrder) -> list[int]:
    """Ranks, from 0, in the order in which they stand."""
    ranks = list(range(size))
    if order == "edges":
        return ranks[::2] + ranks[1::2][::-1]
    return ranks if order == "best-first" else ranks[::-1]


def _distinct(hits: Sequence[FoundDocument], share: float) -> Iterator[FoundDocument]:
    said: set[tuple[str, ...]] = set()
    for hit in hits:
        shingles = _shingles(hit.text)
        if shingles and len(shingles & said) >= share * len(shingles):
            continue
        said |= shingles
        yield hit


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[i : i + _SHINGLE_WORDS]) for i in range(max(1, len(words) - _SHINGLE_WORDS + 1))} - {()}


def _cut(hit: FoundDocument, max_tokens: int, count: Callable[[str], int]) -> FoundDocument | None:
    """The hit with as many of its passage's first words as fit; None where not even one does."""
    start = hit.span[0] if hit.span else 0
    ends = [match.end() for match in re.finditer(r"\S+", hit.text)]

    def shortened(words: int) -> FoundDocument:
        return FoundDocument(hit.document, hit.score, hit.scores, (start, start + ends[words - 1]))

    low, high = 0, len(ends)
    while low < high:
        middle = (low + high + 1) // 2
        if count(_text([shortened(middle)])) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    return shortened(low) if low else None
