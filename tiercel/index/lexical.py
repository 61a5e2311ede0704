"""The BM25 leg: how are the words of queries found in all segments of an index?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.index.analysis import Analyzer
from tiercel.index.bm25 import BM25, CollectionStatistics, QueryBatch, okapi_idf, term_idf, term_weights, top_k
from tiercel.index.explained import frequencies, rows_of, term_marks
from tiercel.index.postings import Postings, find_terms
from tiercel.index.rollup import Rows, best_rows, rankings
from tiercel.index.tokens import TokenTable
from tiercel.index.view import View
from tiercel.parts import TermPart, TermParts
from tiercel.types import Document, Query, Ranking
from tiercel.workers import map_in_order

STAGE = "bm25"
_MOST_QUERIES_PER_TASK = 64
_PARAMETER = re.compile(r"(?P<name>k1|b)=(?P<value>[0-9]+(\.[0-9]+)?)")

TermWeights: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weight and constant of each term; see `bm25.term_weights`."""


class AnalyzedQueries(NamedTuple):
    """Queries as the terms they hold.

    Attributes:
        terms: the distinct terms of all queries, as UTF-8.
        starts: shape (queries + 1,), int64, where each query's entries begin in the next two.
        numbers: positions in `terms`, each at most once per query.
        counts: how often the query holds the term.
    """

    terms: list[bytes]
    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    counts: NDArray[np.int64]

    def take(self, queries: NDArray[np.int64]) -> AnalyzedQueries:
        """Some of the queries, by number."""
        if queries.size == self.starts.size - 1:  # numbers ascend and none comes twice: these are all
            return self
        sizes = np.diff(self.starts)[queries]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        entries = np.arange(starts[-1]) + np.repeat(self.starts[queries] - starts[:-1], sizes)
        return AnalyzedQueries(self.terms, starts, self.numbers[entries], self.counts[entries])


class LexicalRetriever:
    """BM25 over segments that score as if they were one: document frequencies and lengths are taken over all.

    Deleted documents count for nothing; those that a filter leaves out cannot be found but count in the statistics.

    Args:
        views: the segments of one commit.
        analyzer: the one that the documents were analysed with.
        parameters: BM25's; None for the defaults.
        passages: rank passages, not documents by their best passage.
        threads: among which a batch of queries is divided.
    """

    def __init__(
        self,
        views: Sequence[View],
        analyzer: Analyzer,
        *,
        parameters: BM25 | None = None,
        passages: bool = False,
        threads: int = 1,
    ) -> None:
        self._views = views
        self.analyzer = analyzer
        self.parameters = parameters or BM25()
        self._passages = passages
        self._threads = threads
        self._statistics = self._collection_statistics()

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """One Ranking per query. A query without a term of the collection gets an empty one."""
        analyzed = analyze_queries(self.analyzer, [query.text for query in queries])
        weights = self.weigh(analyzed.terms)
        found = []
        for view in self._views:
            search = partial(self._rows, view, analyzed, weights)
            rows = best_rows(view.segment, search, len(queries), keep, passages=self._passages)
            found.append((view, rows))
        return list(rankings(queries, found, stage=STAGE, keep=keep, passages=self._passages))

    def search(
        self, view: View, queries: AnalyzedQueries, weights: TermWeights, keep: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
        """The best rows of one segment for each query: what `bm25.top_k` returns, constants added in float64."""
        segment = view.segment
        batch, constant = _query_batch(segment.postings, queries, *weights)
        norm = self.parameters.norm(self._statistics.mean_length)
        growth = self.parameters.growth

        # Enough tasks for every thread, none so small that its call costs more than its work.
        size = min(_MOST_QUERIES_PER_TASK, max(8, -(-(batch.starts.size - 1) // self._threads)))

        def task(first: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
            part = QueryBatch(batch.starts[first : first + size + 1], batch.terms, batch.weights)
            return top_k(segment.postings, part, norm, growth, segment.order, keep, view.eligible)

        parts = map_in_order(task, range(0, batch.starts.size - 1, size), workers=self._threads)
        if not parts:
            return np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float64), np.zeros(0, np.int64)
        hits, scores, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
        # In float32 a large constant would make equals of scores that differ.
        return hits, scores + constant[:, None], sizes

    def weigh(self, terms: Sequence[bytes]) -> TermWeights:
        """Weight and constant of each term over the whole collection; see `bm25.term_weights`."""
        return term_weights(self.parameters, self._document_frequencies(terms), self._statistics)

    def explain(self, query: Query, document: Document) -> TermParts | None:
        """The terms of the query in the document's best row; None where the query has no term of the collection."""
        analyzed = analyze_queries(self.analyzer, [query.text])
        found = self._document_frequencies(analyzed.terms)[analyzed.numbers]
        names = [analyzed.terms[number].decode() for number in analyzed.numbers]
        if not found.any():
            return None
        view, rows = rows_of(self._views, document.id)
        lengths = view.segment.postings.lengths[rows].astype(np.int64)[:, None]
        held = frequencies(view.segment.postings, analyzed.terms, rows)[:, analyzed.numbers]
        saturations = self.parameters.saturation(held, lengths, self._statistics.mean_length)
        weights, constants = (array[analyzed.numbers] * analyzed.counts for array in self.weigh(analyzed.terms))
        parts = constants + weights * saturations
        best = int(parts.sum(axis=1).argmax())
        idf = term_idf(self.parameters, found, self._statistics)
        columns = [analyzed.counts, held[best], found, idf, weights, saturations[best], constants, parts[best]]
        rows_of_terms = zip(names, *(column.tolist() for column in columns), strict=True)
        terms = sorted((TermPart(*values) for values in rows_of_terms), key=lambda term: (-term.part, term.term))
        base, slope = self.parameters.norm(self._statistics.mean_length)
        length = int(lengths[best, 0])
        read = view.segment.reads(document)[best]
        marks = term_marks(self.analyzer, read.text, {term.term: term.part for term in terms if term.frequency})
        return TermParts(read, tuple(terms), length, self._statistics.mean_length, base + slope * length, marks)

    def _document_frequencies(self, terms: Sequence[bytes]) -> NDArray[np.int64]:
        """How many rows that count hold each term."""
        found = np.zeros(len(terms), dtype=np.int64)
        for view in self._views:
            numbers = find_terms(view.segment.postings, terms)
            there = numbers >= 0
            found[there] += _live_frequencies(view, numbers[there])
        return found

    def _rows(
        self, view: View, queries: AnalyzedQueries, weights: TermWeights, numbers: NDArray[np.int64], keep: int
    ) -> list[Rows]:
        rows, scores, sizes = self.search(view, queries.take(numbers), weights, keep)
        return [Rows(rows[i, :size], scores[i, :size]) for i, size in enumerate(sizes.tolist())]

    def _collection_statistics(self) -> CollectionStatistics:
        rows = sum(view.record.live_rows for view in self._views)
        terms = sum(view.record.live_terms for view in self._views)
        needs_idf = self.parameters.variant == "rank-bm25-okapi" and rows
        mean_idf = _mean_idf(self._views, rows) if needs_idf else 0.0
        return CollectionStatistics(rows, terms / rows if rows else 0.0, mean_idf)


def parameters_of(text: str, usual: BM25) -> BM25:
    """BM25's parameters as a pipeline string says them of its leg, `k1=1.2:b=0.6`; those not said are the usual ones.

    Raises UsageError for anything else, and for a value that cannot be meant.
    """
    said: dict[str, float] = {}
    for part in text.split(":") if text else ():
        found = _PARAMETER.fullmatch(part)
        if found is None or found["name"] in said:
            raise UsageError(f"the leg bm25:{text}", expected="bm25, or with its k1 and b, as in bm25:k1=1.2:b=0.6")
        said[found["name"]] = float(found["value"])
    return replace(usual, **said)  # type: ignore[arg-type]


def analyze_queries(analyzer: Analyzer, texts: Sequence[str]) -> AnalyzedQueries:
    """Cut and analyse the texts exactly as the documents were."""
    table = TokenTable(cjk_bigrams=analyzer.cjk_bigrams)
    tokens, ends = table.tokenize(texts)
    numbers: dict[str, int] = {}
    number_of_token = [
        -1 if term is None else numbers.setdefault(term, len(numbers)) for term in analyzer.terms(table.strings())
    ]
    terms = np.array(number_of_token, dtype=np.int64)[tokens] if tokens.size else np.zeros(0, dtype=np.int64)
    query_of = np.repeat(np.arange(len(texts)), np.diff(ends, prepend=0))
    kept = terms >= 0
    pairs, counts = np.unique(query_of[kept] * max(len(numbers), 1) + terms[kept], return_counts=True)
    queries, terms = np.divmod(pairs, max(len(numbers), 1))
    starts = np.searchsorted(queries, np.arange(len(texts) + 1))
    return AnalyzedQueries([term.encode() for term in numbers], starts.astype(np.int64), terms, counts)


def _query_batch(
    postings: Postings, queries: AnalyzedQueries, weights: NDArray[np.float64], constants: NDArray[np.float64]
) -> tuple[QueryBatch, NDArray[np.float64]]:
    """The queries in the segment's own term numbers, heaviest term first, and each query's constant."""
    count = queries.starts.size - 1
    query_of = np.repeat(np.arange(count), np.diff(queries.starts))
    weight = weights[queries.numbers] * queries.counts
    term = find_terms(postings, queries.terms)[queries.numbers] if queries.terms else np.zeros(0, np.int32)
    there = (term >= 0) & (weight > 0)
    # Equal weights are ordered by the term itself, which neither a segment nor the rest of the batch can change.
    name_rank = np.argsort(np.argsort(np.array(queries.terms, dtype=object))) if queries.terms else np.zeros(0, int)
    order = np.lexsort((name_rank[queries.numbers], -weight, query_of))
    constants_in_order = (constants[queries.numbers] * queries.counts)[order]
    constant = np.bincount(query_of[order], constants_in_order, minlength=count).astype(np.float64)
    order = order[there[order]]
    starts = np.searchsorted(query_of[order], np.arange(count + 1))
    return QueryBatch(starts.astype(np.int64), term[order], weight[order].astype(np.float32)), constant


def _live_frequencies(view: View, terms: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How many rows that count hold each of these terms of the segment, shape (len(terms),)."""
    starts = view.segment.postings.starts
    frequencies: NDArray[np.int64] = starts[terms + 1] - starts[terms]
    deletes = view.deletes
    if deletes is not None and deletes.terms.size:
        places = np.minimum(np.searchsorted(deletes.terms, terms), deletes.terms.size - 1)
        frequencies -= np.where(deletes.terms[places] == terms, deletes.frequencies[places], 0)
    return frequencies


def _mean_idf(views: Sequence[View], rows: int) -> float:
    """Mean over the terms of all rows that count; a term that several segments hold counts once."""
    frequencies: dict[bytes, int] = {}
    for view in views:
        postings = view.segment.postings
        blob, starts = postings.term_bytes.tobytes(), postings.term_starts.tolist()
        for term, count in enumerate(_live_frequencies(view, np.arange(postings.starts.size - 1)).tolist()):
            name = blob[starts[term] : starts[term + 1]]
            frequencies[name] = frequencies.get(name, 0) + count
    # In ascending order, so that the mean does not depend on which segment holds what.
    counts = np.sort(np.fromiter(frequencies.values(), dtype=np.int64))
    counts = counts[counts > 0]
    return float(okapi_idf(counts, rows).mean()) if counts.size else 0.0
