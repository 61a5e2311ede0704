"""The sentences of a document that cover a query, in as many tokens as there is room for."""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from tiercel.data.chunking import Sentence, count_tokens, sentences_of
from tiercel.errors import UsageError
from tiercel.types import Document

Idf: TypeAlias = Callable[[str], float] | Mapping[str, float]
"""What a term weighs. A mapping may lack terms: those are rare, so each weighs what the query's heaviest does."""

Terms: TypeAlias = Callable[[str], Sequence[str]]
"""The terms of a text, as an analyser cuts and folds them."""

_COVERED = 0.5  # what is left of a term's weight each time a sentence that holds it is taken
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in NFKC and case-folded; a run of CJK characters is one, so such texts need an analyser."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def extract(query: str, document: Document, *, budget: int, idf: Idf, terms: Terms = words) -> Document:
    """The document with only those sentences that cover the query best, in its own order; id, title, metadata stay.

    A sentence is worth the summed weight of the different query terms in it. The one worth most is taken, the earliest
    of equals; the terms that it holds lose half of their weight, and so on as long as one with a query term fits. What
    room is left goes to the document's first sentences, up to the first that does not fit. Sentences that follow each
    other stay as they are in the text, others are joined by a space. This is the query-weighted summary that Zou et
    al. 2021 (Pre-trained Language Model based Ranking in Baidu Search) feed to their reranker, Pyramid-ERNIE.

    Args:
        query: what the sentences should cover. None of its terms in the document: its beginning is the extract.
        document: a text of at most `budget` tokens comes back as it is, the same object.
        budget: tokens of the extract's text at most, the title not counted, as `tiercel.data.chunking` counts; a
            sentence that is longer is first cut into pieces of so many.
        idf: what a term weighs; below 0 counts as 0, which never makes a sentence worth taking.
        terms: cuts both query and sentences into terms, which are those that `idf` is asked for.

    Raises UsageError for a budget below 1.
    """
    if budget < 1:
        raise UsageError(f"an extract of {budget} tokens", expected="a budget of 1 or more")
    if count_tokens(document.text) <= budget:
        return document
    text = document.text
    sentences = sentences_of(text, longest=budget)
    weights = _weights(terms(query), idf)
    holds = [weights.keys() & set(terms(text[start:end])) for start, end, _ in sentences] if weights else []
    taken = _covering(holds, weights, [sentence.tokens for sentence in sentences], budget)
    room = budget - sum(sentences[place].tokens for place in taken)
    for place, sentence in enumerate(sentences):
        if place in taken:
            continue
        if sentence.tokens > room:
            break
        taken.add(place)
        room -= sentence.tokens
    return replace(document, text=_joined(text, sentences, sorted(taken)))


def _weights(query_terms: Iterable[str], idf: Idf) -> dict[str, float]:
    """The weights above 0 of the query's different terms."""
    different = sorted(set(query_terms))
    if isinstance(idf, Mapping):
        known = {term: idf[term] for term in different if term in idf}
        rare = max(known.values(), default=1.0)
        weights = {term: known.get(term, rare) for term in different}
    else:
        weights = {term: idf(term) for term in different}
    return {term: weight for term, weight in weights.items() if weight > 0}


def _covering(holds: Sequence[set[str]], weights: dict[str, float], tokens: Sequence[int], room: int) -> set[int]:
    """The places of the sentences that are worth most, one after the other; `weights` is used up.

    Weights only ever fall, so what a sentence was worth once is a bound: only the one on top is worth looking at again.
    """

    def worth(place: int) -> float:
        # Sorted, since the order of a set, and with it the last bit of a sum, differs from process to process.
        return sum(weights[term] for term in sorted(holds[place]))

    waiting = [(-worth(place), place) for place, held in enumerate(holds) if held]
    heapq.heapify(waiting)
    taken: set[int] = set()
    while waiting and room:
        bound, place = waiting[0]
        if tokens[place] > room:
            heapq.heappop(waiting)
        elif worth(place) < -bound:
            heapq.heapreplace(waiting, (-worth(place), place))
        else:
            heapq.heappop(waiting)
            taken.add(place)
            room -= tokens[place]
            for term in holds[place]:
                weights[term] *= _COVERED
    return taken


def _joined(text: str, sentences: Sequence[Sentence], places: Sequence[int]) -> str:
    """The sentences at these places, ascending, with what is between neighbours as it is in the text."""
    runs: list[tuple[int, int]] = []
    previous = -2
    for place in places:
        start, end, _ = sentences[place]
        if place == previous + 1:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
        previous = place
    return " ".join(text[start:end] for start, end in runs)
