"""Out of what does BM25 make the score of one document? Its terms, one by one, and where they are in the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError
from tiercel.index.analysis import Analyzer
from tiercel.index.postings import Postings, find_terms
from tiercel.index.tokens import CJK, SEPARATOR, TokenTable, character_class
from tiercel.index.view import View, place_of
from tiercel.parts import Mark
from tiercel.types import DocId


def rows_of(views: Sequence[View], doc_id: DocId) -> tuple[View, NDArray[np.int64]]:
    """The segment that holds a document, and its rows there. Raises IndexStoreError for one that is not there."""
    place = place_of(views, doc_id)
    if place is None:
        raise IndexStoreError(f"no document has the id {doc_id!r}")
    view, ordinal = place
    table = view.segment.passages
    if table is None:
        return view, np.array([ordinal])
    return view, np.arange(table.first_rows[ordinal], table.first_rows[ordinal + 1])


def frequencies(postings: Postings, terms: Sequence[bytes], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each row of a segment holds each term: shape (rows, terms)."""
    counts = np.zeros((rows.size, len(terms)), dtype=np.int64)
    for column, number in enumerate(find_terms(postings, terms).tolist() if terms else []):
        if number < 0:
            continue
        held = slice(postings.starts[number], postings.starts[number + 1])
        documents = postings.documents[held]
        places = np.minimum(np.searchsorted(documents, rows), documents.size - 1)
        counts[:, column] = np.where(documents[places] == rows, postings.frequencies[held][places], 0)
    return counts


def term_marks(analyzer: Analyzer, text: str, weights: Mapping[str, float]) -> tuple[Mark, ...]:
    """Where the terms are in a text, each occurrence with the weight of its term."""
    places = list(_token_places(text, cjk_bigrams=analyzer.cjk_bigrams))
    terms = _terms(analyzer, [text[start:end] for start, end in places])
    found = ((place, weights.get(term or "", 0.0)) for place, term in zip(places, terms, strict=True))
    return tuple(Mark(*place, weight) for place, weight in found if weight)


def _terms(analyzer: Analyzer, tokens: Sequence[str]) -> list[str | None]:
    """The term of each token, folded as `tokens.py` folds it."""
    table = TokenTable(cjk_bigrams=analyzer.cjk_bigrams)
    numbers, ends = table.tokenize(tokens)
    known = analyzer.terms(table.strings())
    firsts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if ends.size else ends
    return [known[number] for number in numbers[firsts].tolist()]


def _token_places(text: str, *, cjk_bigrams: bool) -> Iterator[tuple[int, int]]:
    """Start and end of each token, in characters; `tokens.py` has the rule, but in bytes and without places.

    A run of more than MAX_TOKEN_BYTES counts as one token here, by its beginning.
    """
    for kind, run in groupby(range(len(text)), lambda place: character_class(text[place], cjk_bigrams=cjk_bigrams)):
        places = list(run)
        if kind == CJK and len(places) > 1:
            yield from ((place, place + 2) for place in places[:-1])
        elif kind != SEPARATOR:
            yield places[0], places[-1] + 1
