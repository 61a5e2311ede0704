"""The dense leg: which documents of all segments are nearest to queries?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tiercel.index.explained import rows_of
from tiercel.index.rollup import Rows, best_rows, rankings
from tiercel.index.vectors import FloatMatrix, faiss_threads, nearest, similarities
from tiercel.index.view import View
from tiercel.parts import CosineParts
from tiercel.protocols import Encoder, ReadsTexts
from tiercel.types import Document, Query, Ranking
from tiercel.workers import map_in_order

STAGE = "dense"

_LEAST_SHARE = 8  # queries that are worth a thread


class DenseRetriever:
    """Nearest documents by inner product of L2-normalised vectors, that is by cosine.

    Args:
        views: the segments of one commit.
        encoder: the one that made their vectors.
        passages: rank passages, not documents by their best passage.
        threads: among which a batch of queries is divided.
    """

    def __init__(self, views: Sequence[View], encoder: Encoder, *, passages: bool = False, threads: int = 1) -> None:
        self._views = views
        self._encoder = encoder
        self._passages = passages
        self._threads = threads

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """One Ranking per query; a query of white space only gets an empty one, as it asks for nothing."""
        asked = [query for query in queries if query.text.strip()]
        vectors = self._encoder.encode_queries([query.text for query in asked])
        found = [(view, self._search(view, vectors, keep)) for view in self._views]
        answers = rankings(asked, found, stage=STAGE, keep=keep, passages=self._passages)
        return [next(answers) if query.text.strip() else Ranking(query, (), STAGE, self._passages) for query in queries]

    @property
    def truncated(self) -> int:
        """How many texts, which are queries here, its encoder has cut so far."""
        return self._encoder.truncated

    def explain(self, query: Query, document: Document) -> CosineParts | None:
        """The cosine of the document's nearest row; None where the query is of white space only."""
        if not query.text.strip():
            return None
        view, rows = rows_of(self._views, document.id)
        (vector,) = self._encoder.encode_queries([query.text])
        cosines = similarities(view.segment.vectors.stored, rows, vector)
        best = int(cosines.argmax())
        read = view.segment.reads(document)[best]
        if isinstance(self._encoder, ReadsTexts):
            (reading,) = self._encoder.readings([read.text], query=False)
            read = replace(read, end=reading.end)
        return CosineParts(read, float(cosines[best]))

    def _search(self, view: View, vectors: FloatMatrix, keep: int) -> list[Rows]:
        share = max(_LEAST_SHARE, -(-len(vectors) // self._threads))
        shares = [vectors[first : first + share] for first in range(0, len(vectors), share)]
        found = map_in_order(partial(self._search_share, view, keep), shares, workers=self._threads)
        return [rows for of_share in found for rows in of_share]

    def _search_share(self, view: View, keep: int, vectors: FloatMatrix) -> list[Rows]:
        with faiss_threads(1):  # its own go on spinning when they are done, beside the encoder of the next batch
            return best_rows(view.segment, partial(_rows, view, vectors), len(vectors), keep, passages=self._passages)


def _rows(view: View, vectors: FloatMatrix, numbers: NDArray[np.int64], keep: int) -> list[Rows]:
    return [Rows(*pair) for pair in nearest(view.segment.vectors, vectors[numbers], keep, view.selection)]
