"""The reranker that compares two vectors by a small network: DSE's `concat` head, the cheapest that is not a cosine.

A document's vector does not depend on the query, so it can come from the index; only queries are encoded then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tiercel.errors import ModelError
from tiercel.protocols import CandidateGroup, Encoder

if TYPE_CHECKING:
    from tiercel.models.pair_head import PairHead
    from tiercel.protocols import FloatVector
    from tiercel.rerankers.late_interaction import TokenSource


class PairReranker:
    """Scores of a head over the vectors of query and document.

    A candidate that is stored in several rows, as a document in its passages, has the score of its best one.

    Args:
        encoder: what encodes queries, and documents where nothing is stored.
        head: trained with that encoder.
        stored: where the candidates' vectors are, one a row; None to encode title and text of each candidate: each
            distinct text of a call once.

    Raises:
        ModelError: a head over vectors of another length.
    """

    def __init__(self, encoder: Encoder, head: PairHead, *, stored: TokenSource | None = None) -> None:
        if head.dimension != encoder.dimension:
            raise ModelError(
                f"its head compares vectors of {head.dimension} numbers", expected=f"{encoder.dimension}, the encoder's"
            )
        self._encoder = encoder
        self._head = head
        self._stored = stored
        self._truncated = 0

    @property
    def reads(self) -> bool:
        """Whether it reads the candidates' texts: not where their vectors are stored."""
        return self._stored is None

    @property
    def truncated(self) -> int:
        """How many texts of candidates it has cut to what the model reads."""
        return self._truncated

    def score(self, groups: Sequence[CandidateGroup]) -> list[FloatVector]:
        """One float32 array per group. All queries are encoded in one call."""
        asked = [number for number, group in enumerate(groups) if group.documents]
        vectors = self._encoder.encode_queries([groups[number].query.text for number in asked])
        queries = dict(zip(asked, vectors, strict=True))
        if self._stored is None:
            return self._of_texts(groups, queries)
        scores = [np.full(len(group.documents), -np.inf, dtype=np.float32) for group in groups]
        for parts in self._stored.parts(groups):
            for part in parts:
                found = self._head.scores(queries[part.group], part.vectors(0, len(part.candidates))[0])
                np.maximum.at(scores[part.group], part.candidates, found)
        return scores

    def _of_texts(self, groups: Sequence[CandidateGroup], queries: dict[int, FloatVector]) -> list[FloatVector]:
        places: dict[str, int] = {}
        for group in groups:
            for document in group.documents:
                places.setdefault(document.full_text, len(places))
        before = self._encoder.truncated
        vectors = self._encoder.encode_documents(list(places))
        self._truncated += self._encoder.truncated - before
        scores = [np.empty(0, dtype=np.float32) for _ in groups]
        for number, query in queries.items():
            rows = [places[document.full_text] for document in groups[number].documents]
            scores[number] = self._head.scores(query, vectors[rows])
        return scores
