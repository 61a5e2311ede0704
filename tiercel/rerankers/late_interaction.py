"""The reranker that compares a query with its candidates token by token: ColBERT's late interaction.

A document's vectors do not depend on the query, so they can come from a store; only queries are encoded then. Khattab &
Zaharia, ColBERT, SIGIR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tiercel.errors import UsageError
from tiercel.protocols import CandidateGroup, TokenEncoder
from tiercel.rerankers.maxsim import maxsim
from tiercel.types import DocId, Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiercel.protocols import FloatMatrix, FloatVector

SCORES = ("sum", "mean")

_CANDIDATES_PER_TASK = 32
"""Candidates whose vectors are in memory at a time, for each thread: some 2,000 tokens, 1 MB of 128 dimensions, which
stays in the processor's cache between decoding and comparing."""


class TokenSource(Protocol):
    """Has the token vectors of documents that were encoded before. May be asked from several threads at once."""

    def token_vectors(self, doc_ids: Sequence[DocId]) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """The vectors of these documents, one after the other, and where each document's begin.

        Float32, shape (tokens, dimension), rows of L2 norm 1; int64, shape (len(doc_ids) + 1,). Raises IndexStoreError
        for an id that is not there.
        """


class LateInteraction:
    """MaxSim of each candidate: for each token of the query its best match in the document, added up.

    Sums grow with the number of the query's tokens: scores of different queries can only be compared as means. Where
    vectors come from a store, scores are off from those of vectors made anew by as much as the store's form rounds.

    Args:
        encoder: what encodes queries, and documents where nothing is stored.
        stored: where the candidates' vectors are; None to encode title and text of each candidate when it is scored,
            and hold the vectors of all candidates of one call in memory.
        threads: among which the candidates are divided.
        score: "sum", or "mean" over the query's tokens, which is from -1 to 1.

    Raises:
        UsageError: another score, or no threads.
    """

    def __init__(
        self, encoder: TokenEncoder, *, stored: TokenSource | None = None, threads: int = 1, score: str = "sum"
    ) -> None:
        if score not in SCORES:
            raise UsageError(f"unknown score {score!r} of late interaction", expected=f"one of {', '.join(SCORES)}")
        if threads < 1:
            raise UsageError(f"threads={threads}", expected="at least 1")
        self._encoder = encoder
        self._stored = stored
        self._threads = threads
        self._score = score

    def score(self, groups: Sequence[CandidateGroup]) -> list[FloatVector]:
        """One float32 array per group. All queries are encoded in one call, and all distinct texts of candidates.

        A candidate without tokens gets -1 for each token of the query; a query without tokens gives 0 to all.
        """
        asked = [group for group in groups if group.documents]
        queries = iter(self._encoder.encode_queries([group.query.text for group in asked]) if asked else [])
        made = self._encode(asked)
        scores = [np.zeros(len(group.documents), dtype=np.float32) for group in groups]
        tasks = [
            _Task(
                query,
                group.documents[first : first + _CANDIDATES_PER_TASK],
                array[first : first + _CANDIDATES_PER_TASK],
            )
            for group, array in zip(groups, scores, strict=True)
            if group.documents
            for query in [next(queries)]
            for first in range(0, len(group.documents), _CANDIDATES_PER_TASK)
        ]

        def run(task: _Task) -> None:
            sums = maxsim(task.query, *self._vectors(task.documents, made))
            task.scores[:] = sums / np.float32(max(1, len(task.query))) if self._score == "mean" else sums

        if self._threads == 1 or len(tasks) == 1:
            for task in tasks:
                run(task)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for _ in pool.map(run, tasks):
                    pass
        return scores

    def _encode(self, groups: Sequence[CandidateGroup]) -> dict[str, FloatMatrix]:
        """The vectors of each distinct text, where nothing is stored."""
        if self._stored is not None:
            return {}
        texts = list(dict.fromkeys(document.full_text for group in groups for document in group.documents))
        return dict(zip(texts, self._encoder.encode_documents(texts), strict=True)) if texts else {}

    def _vectors(
        self, documents: Sequence[Document], made: dict[str, FloatMatrix]
    ) -> tuple[FloatMatrix, NDArray[np.int64]]:
        if self._stored is not None:
            return self._stored.token_vectors([document.id for document in documents])
        matrices = [made[document.full_text] for document in documents]
        return np.concatenate(matrices), np.cumsum([0, *map(len, matrices)], dtype=np.int64)


class _Task(NamedTuple):
    """Some candidates of a query, and where their scores go."""

    query: FloatMatrix
    documents: Sequence[Document]
    scores: FloatVector
