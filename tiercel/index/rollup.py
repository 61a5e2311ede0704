"""From the rows that a leg found to documents, or to passages where those were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.index.segment import Segment
from tiercel.index.view import View
from tiercel.types import DocId, Query, Ranking, Span

_OVERFETCH = 2
_MORE = 4


class Rows(NamedTuple):
    """What a leg found for one query in one segment: rows, and their scores as float64 or float32, aligned."""

    rows: NDArray[np.integer[Any]]
    scores: NDArray[np.floating[Any]]


RowSearch = Callable[[NDArray[np.int64], int], Sequence[Rows]]
"""(numbers of queries, how many rows) -> the best rows of each, fewer only where there are no more."""


def best_rows(segment: Segment, search: RowSearch, queries: int, keep: int, *, passages: bool) -> list[Rows]:
    """For each query, enough rows of a segment to hold its `keep` best documents, or its `keep` best passages.

    A document counts with its best row. More rows are asked for until they are of `keep` distinct documents.
    """
    numbers = np.arange(queries)
    if passages or segment.passages is None:
        return list(search(numbers, keep))
    found: list[Rows] = [Rows(np.zeros(0, np.int64), np.zeros(0))] * queries
    fetch = _OVERFETCH * keep
    while numbers.size:
        lacking = []
        for number, rows in zip(numbers.tolist(), search(numbers, fetch), strict=True):
            found[number] = _best_of_each_document(segment, rows)
            if found[number].rows.size < keep and fetch <= rows.rows.size < segment.record.rows:
                lacking.append(number)
        numbers = np.array(lacking, dtype=np.int64)
        fetch *= _MORE
    return found


def rankings(
    queries: Sequence[Query],
    found: Sequence[tuple[View, Sequence[Rows]]],
    *,
    stage: str,
    keep: int,
    passages: bool,
) -> Iterator[Ranking]:
    """Put together what the segments gave, query by query."""
    parts = [list(_named(view.segment, per_query)) for view, per_query in found]
    for number, query in enumerate(queries):
        doc_ids: list[DocId] = []
        spans: list[Span] = []
        scores: list[float] = []
        for part in parts:
            names, slices, values = part[number]
            doc_ids += names
            spans += slices
            scores += values
        yield Ranking.from_scores(
            query, doc_ids, scores, stage=stage, keep=keep, spans=spans or None, passages=passages
        )


def _best_of_each_document(segment: Segment, found: Rows) -> Rows:
    if segment.passages is None or not found.rows.size:
        return found
    order = np.lexsort((segment.order.ranks[found.rows], -found.scores))
    _, first = np.unique(segment.passages.documents[found.rows[order]], return_index=True)
    best = order[first]
    return Rows(found.rows[best], found.scores[best])


def _named(segment: Segment, found: Sequence[Rows]) -> Iterator[tuple[list[DocId], list[Span], list[float]]]:
    """Ids, spans (none where rows are documents) and scores of each query's rows; all ids are fetched at once."""
    if not found:
        return
    rows = np.concatenate([part.rows for part in found])
    table = segment.passages
    names = segment.documents.ids(rows if table is None else table.documents[rows])
    spans = [] if table is None else table.spans(rows)
    end = 0
    for part in found:
        start, end = end, end + part.rows.size
        yield names[start:end], spans[start:end], part.scores.tolist()
