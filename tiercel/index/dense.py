"""The dense leg: which documents of all segments are nearest to queries?"""

from __future__ import annotations

from collections.abc import Sequence

from tiercel.index.segment import Segment
from tiercel.index.vectors import faiss_threads, nearest
from tiercel.protocols import Encoder
from tiercel.types import Query, Ranking

STAGE = "dense"


class DenseRetriever:
    """Nearest documents by inner product of L2-normalised vectors, that is by cosine."""

    def __init__(self, segments: Sequence[Segment], encoder: Encoder, *, threads: int = 1) -> None:
        self._segments = segments
        self._encoder = encoder
        self._threads = threads

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """One Ranking per query; a query of white space only gets an empty one, as it asks for nothing."""
        asked = [i for i, query in enumerate(queries) if query.text.strip()]
        vectors = self._encoder.encode_queries([queries[i].text for i in asked])
        rankings = [Ranking(query, (), STAGE) for query in queries]
        with faiss_threads(self._threads):
            found = [nearest(segment.vectors, vectors, keep) for segment in self._segments]
        for row, i in enumerate(asked):
            names, scores = [], []
            for segment, per_query in zip(self._segments, found, strict=True):
                ordinals, similarities = per_query[row]
                names += segment.documents.ids(ordinals)
                scores += similarities.tolist()
            rankings[i] = Ranking.from_scores(queries[i], names, scores, stage=STAGE, keep=keep)
        return rankings
