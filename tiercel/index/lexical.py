"""The BM25 leg: how are the words of queries found in all segments of an index?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tiercel.index.analysis import Analyzer
from tiercel.index.bm25 import BM25, CollectionStatistics, QueryBatch, okapi_idf, term_weights, top_k
from tiercel.index.postings import Postings, find_terms
from tiercel.index.segment import Segment
from tiercel.index.tokens import TokenTable
from tiercel.types import DocId, Query, Ranking

STAGE = "bm25"
_MOST_QUERIES_PER_TASK = 64

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


class LexicalRetriever:
    """BM25 over segments that score as if they were one: document frequencies and lengths are taken over all."""

    def __init__(
        self, segments: Sequence[Segment], analyzer: Analyzer, *, parameters: BM25 | None = None, threads: int = 1
    ) -> None:
        self._segments = segments
        self._analyzer = analyzer
        self.parameters = parameters or BM25()
        self._threads = threads
        self._statistics = self._collection_statistics()

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """One Ranking per query. A query without a term of the collection gets an empty one."""
        analyzed = analyze_queries(self._analyzer, [query.text for query in queries])
        weights = self.weigh(analyzed.terms)
        parts = [(segment, *self.search(segment, analyzed, weights, keep)) for segment in self._segments]
        return list(_rankings(queries, parts, keep)) if parts else [Ranking(query, (), STAGE) for query in queries]

    def search(
        self, segment: Segment, queries: AnalyzedQueries, weights: TermWeights, keep: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
        """The best documents of one segment for each query: what `bm25.top_k` returns, constants added in float64."""
        batch, constant = _query_batch(segment.postings, queries, *weights)
        norm = self.parameters.norm(self._statistics.mean_length)
        growth = self.parameters.growth

        # Enough tasks for every thread, none so small that its call costs more than its work.
        size = min(_MOST_QUERIES_PER_TASK, max(8, -(-(batch.starts.size - 1) // self._threads)))

        def task(first: int) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
            part = QueryBatch(batch.starts[first : first + size + 1], batch.terms, batch.weights)
            return top_k(segment.postings, part, norm, growth, segment.documents.order, keep)

        firsts = range(0, batch.starts.size - 1, size)
        if self._threads > 1 and len(firsts) > 1:
            with ThreadPoolExecutor(self._threads) as pool:
                parts = list(pool.map(task, firsts))
        else:
            parts = [task(first) for first in firsts]
        if not parts:
            return np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float64), np.zeros(0, np.int64)
        hits, scores, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
        # In float32 a large constant would make equals of scores that differ.
        return hits, scores + constant[:, None], sizes

    def weigh(self, terms: Sequence[bytes]) -> TermWeights:
        """Weight and constant of each term over the whole collection; see `bm25.term_weights`."""
        frequencies = np.zeros(len(terms), dtype=np.int64)
        for segment in self._segments:
            numbers = find_terms(segment.postings, terms)
            there = numbers >= 0
            starts = segment.postings.starts
            frequencies[there] += starts[numbers[there] + 1] - starts[numbers[there]]
        return term_weights(self.parameters, frequencies, self._statistics)

    def _collection_statistics(self) -> CollectionStatistics:
        documents = sum(segment.postings.lengths.size for segment in self._segments)
        terms = sum(segment.record.terms for segment in self._segments)
        needs_idf = self.parameters.variant == "rank-bm25-okapi" and documents
        mean_idf = _mean_idf(self._segments, documents) if needs_idf else 0.0
        return CollectionStatistics(documents, terms / documents if documents else 0.0, mean_idf)


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


def _rankings(
    queries: Sequence[Query],
    parts: Sequence[tuple[Segment, NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]],
    keep: int,
) -> Iterator[Ranking]:
    """Put the segments' best together, query by query."""
    doc_ids: list[list[DocId]] = [[] for _ in queries]
    all_scores: list[list[float]] = [[] for _ in queries]
    for segment, hits, scores, sizes in parts:
        filled = np.arange(hits.shape[1]) < sizes[:, None]
        names = segment.documents.ids(hits[filled])
        ends = np.cumsum(sizes).tolist()
        for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            doc_ids[i] += names[start:end]
            all_scores[i] += scores[i, : sizes[i]].tolist()
    for query, names, found in zip(queries, doc_ids, all_scores, strict=True):
        yield Ranking.from_scores(query, names, found, stage=STAGE, keep=keep)


def _mean_idf(segments: Sequence[Segment], documents: int) -> float:
    """Mean over the terms of all segments; a term that several hold counts once."""
    frequencies: dict[bytes, int] = {}
    for segment in segments:
        postings = segment.postings
        blob, starts = postings.term_bytes.tobytes(), postings.term_starts.tolist()
        for term, count in enumerate(np.diff(postings.starts).tolist()):
            name = blob[starts[term] : starts[term + 1]]
            frequencies[name] = frequencies.get(name, 0) + count
    if not frequencies:
        return 0.0
    return float(okapi_idf(np.fromiter(frequencies.values(), dtype=np.int64), documents).mean())
