"""The reranker that compares a query with its candidates token by token: ColBERT's late interaction.

A document's vectors do not depend on the query, so they can come from a store; only queries are encoded then. Khattab &
Zaharia, ColBERT, SIGIR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tiercel.errors import UsageError
from tiercel.parts import Piece, Read, TokenMatch, TokenParts
from tiercel.protocols import CandidateGroup, ReadsTexts, TokenEncoder
from tiercel.rerankers.maxsim import maxsim
from tiercel.types import Document, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiercel.protocols import FloatMatrix, FloatVector

SCORES = ("sum", "mean")

_TASK_TOKENS = 2_048
"""Tokens whose vectors are in memory at a time, for each thread: 1 MB of 128 dimensions, which stays in the processor's
cache between decoding and comparing. A piece that has more is a task of its own."""

_SLAB_TEXTS = 256
"""Texts whose vectors are in memory at a time where nothing is stored: some 50 MB, for 400 tokens of 128 dimensions."""


class TokenPart(Protocol):
    """The token vectors of some candidates of a group, in pieces: what of a candidate is compared by itself."""

    @property
    def group(self) -> int:
        """Position of the group among those that were asked for."""

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Shape (pieces,): position in the group of the candidate that each piece is of."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Shape (pieces,): tokens of each piece."""

    def vectors(self, first: int, last: int) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """The vectors of the pieces from `first` up to `last`, one after the other, and where each piece's begin.

        Float32, shape (tokens, dimension), rows of L2 norm 1; int64, shape (last - first + 1,). May be asked from
        several threads at once.
        """


class TokenSource(Protocol):
    """Has the token vectors of candidates that were encoded before."""

    def parts(self, groups: Sequence[CandidateGroup]) -> Iterable[Sequence[TokenPart]]:
        """Every candidate of every group, in one piece or more: parts that are to be compared together.

        Raises IndexStoreError for a document, or the passage that a group means of it, that is not there.
        """

    def reads(self, document: Document) -> Sequence[Read]:
        """What each piece of a whole document was made of, in the order of its pieces."""


class LateInteraction:
    """MaxSim of each candidate: for each token of the query its best match in the document, added up.

    A candidate that is stored in several pieces, as a document in its passages, has the score of its best one. Sums
    grow with the number of the query's tokens: scores of different queries can only be compared as means. Where vectors
    come from a store, scores are off from those of vectors made anew by as much as the store's form rounds.

    Args:
        encoder: what encodes queries, and documents where nothing is stored.
        stored: where the candidates' vectors are; None to encode title and text of each candidate when it is scored:
            each distinct text of a call once, and 256 of them in memory at a time.
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
        self._making = _Encoded(encoder)
        self._source: TokenSource = self._making if stored is None else stored
        self._threads = threads
        self._score = score

    @property
    def fingerprint(self) -> str:
        """Changes whenever the scores of vectors made anew would: those of the encoder, sum or mean."""
        return f"{self._encoder.fingerprint}-{self._score}"

    @property
    def reads(self) -> bool:
        """Whether it reads the candidates' texts: not where their vectors are stored."""
        return self._source is self._making

    @property
    def truncated(self) -> int:
        """How many texts of candidates it has cut to what the model reads."""
        return self._making.truncated

    def score(self, groups: Sequence[CandidateGroup]) -> list[FloatVector]:
        """One float32 array per group. All queries are encoded in one call.

        A candidate without tokens gets -1 for each token of the query; a query without tokens gives 0 to all.
        """
        asked = [number for number, group in enumerate(groups) if group.documents]
        texts = [groups[number].query.text for number in asked]
        queries = dict(zip(asked, self._encoder.encode_queries(texts) if asked else [], strict=True))
        scores = [np.full(len(group.documents), -np.inf, dtype=np.float32) for group in groups]
        with ThreadPoolExecutor(self._threads) as pool:  # starts no thread before the first task
            for parts in self._source.parts(groups):
                tasks = [task for part in parts for task in _tasks(queries[part.group], part)]
                results = map(_sums, tasks) if min(self._threads, len(tasks)) == 1 else pool.map(_sums, tasks)
                for task, sums in zip(tasks, results, strict=True):
                    best = scores[task.part.group]
                    np.maximum.at(best, task.part.candidates[task.first : task.last], sums)
        if self._score == "mean":
            for number, query in queries.items():
                scores[number] /= np.float32(max(1, len(query)))
        return scores

    def explain(self, query: Query, document: Document) -> TokenParts:
        """Every token of the query with the most similar one of the document's best piece."""
        (parts,) = self.explain_all(query, [document])
        return parts

    def explain_all(self, query: Query, documents: Sequence[Document]) -> list[TokenParts]:
        """The same of several documents, in their order; the query is encoded once."""
        (asked,) = self._encoder.encode_queries([query.text])
        names = self._names(query.text, len(asked), query=True)
        return [self._explained(names, asked, CandidateGroup(query, [document])) for document in documents]

    def _explained(self, names: Sequence[Piece], asked: FloatMatrix, group: CandidateGroup) -> TokenParts:
        """Of the one document of a group."""
        best: list[TokenMatch] = []
        reads = self._source.reads(group.documents[0])
        read = reads[0]
        for vectors, piece in zip(list(_pieces(self._source, group)), reads, strict=True):
            found = self._matches(names, asked, vectors, piece)
            if not best or _sum(found) > _sum(best):
                best, read = found, piece
        share = max(1, len(asked)) if self._score == "mean" else 1
        return TokenParts(self._as_read(read), tuple(best), _sum(best) / share)

    def _matches(
        self, names: Sequence[Piece], asked: FloatMatrix, vectors: FloatMatrix, read: Read
    ) -> list[TokenMatch]:
        if not len(vectors):
            return [TokenMatch(name, None, -1.0) for name in names]
        similarities = asked @ vectors.T
        found = self._names(read.text, len(vectors), query=False)
        nearest = similarities.argmax(axis=1).tolist()
        return [
            TokenMatch(name, found[place], float(row[place]))
            for name, row, place in zip(names, similarities, nearest, strict=True)
        ]

    def _names(self, text: str, count: int, *, query: bool) -> list[Piece]:
        """How the tokens are called; by their numbers where the encoder does not tell."""
        if isinstance(self._encoder, ReadsTexts):
            (reading,) = self._encoder.readings([text], query=query)
            if len(reading.pieces) == count:
                return reading.pieces
        return [Piece(f"#{number + 1}", 0, 0) for number in range(count)]

    def _as_read(self, read: Read) -> Read:
        if not isinstance(self._encoder, ReadsTexts):
            return read
        (reading,) = self._encoder.readings([read.text], query=False)
        return replace(read, end=reading.end)


def _sum(matches: Sequence[TokenMatch]) -> float:
    return math.fsum(match.similarity for match in matches)


def _pieces(source: TokenSource, group: CandidateGroup) -> Iterator[FloatMatrix]:
    """The vectors of each piece of a group's one candidate, in order."""
    for parts in source.parts([group]):
        for part in parts:
            for number in range(part.sizes.size):
                yield part.vectors(number, number + 1)[0]


class _Task(NamedTuple):
    """Some pieces of candidates, and the query that they are compared with."""

    query: FloatMatrix
    part: TokenPart
    first: int
    last: int


def _tasks(query: FloatMatrix, part: TokenPart) -> Iterator[_Task]:
    """The pieces of a part, as many at a time as have _TASK_TOKENS."""
    ends = np.cumsum(part.sizes)
    first = done = 0
    while first < ends.size:
        last = max(first + 1, int(np.searchsorted(ends, done + _TASK_TOKENS, side="right")))
        yield _Task(query, part, first, last)
        first, done = last, int(ends[last - 1])


def _sums(task: _Task) -> FloatVector:
    return maxsim(task.query, *task.part.vectors(task.first, task.last))


class _Made(NamedTuple):
    """Candidates of a group whose vectors have just been made, each in one piece."""

    group: int
    candidates: NDArray[np.int64]
    matrices: Sequence[FloatMatrix]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.array([len(matrix) for matrix in self.matrices], dtype=np.int64)

    def vectors(self, first: int, last: int) -> tuple[FloatMatrix, NDArray[np.int64]]:
        some = self.matrices[first:last]
        return np.concatenate(some), np.cumsum([0, *map(len, some)], dtype=np.int64)


class _Encoded:
    """Encodes title and text of the candidates as they come, slab by slab of distinct texts."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self._encoder = encoder
        self.truncated = 0

    def reads(self, document: Document) -> list[Read]:
        """The whole document is one piece."""
        return [Read(document.full_text, len(document.full_text))]

    def parts(self, groups: Sequence[CandidateGroup]) -> Iterator[list[_Made]]:
        """The candidates of each slab's texts."""
        uses: dict[str, list[tuple[int, int]]] = {}
        for number, group in enumerate(groups):
            for position, document in enumerate(group.documents):
                uses.setdefault(document.full_text, []).append((number, position))
        waiting = iter(uses)
        while texts := list(islice(waiting, _SLAB_TEXTS)):
            before = self._encoder.truncated
            made = self._encoder.encode_documents(texts)
            self.truncated += self._encoder.truncated - before
            of_group: dict[int, list[tuple[int, FloatMatrix]]] = {}
            for text, matrix in zip(texts, made, strict=True):
                for number, position in uses[text]:
                    of_group.setdefault(number, []).append((position, matrix))
            yield [
                _Made(number, np.array([position for position, _ in found]), [matrix for _, matrix in found])
                for number, found in of_group.items()
            ]
