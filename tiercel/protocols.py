"""What a stage must do. Every implementation passes the suite of the same name in tests/conformance/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from tiercel.parts import Parts, Reading
from tiercel.types import DocId, Document, Query, Ranking, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatMatrix = NDArray[np.float32]
    FloatVector = NDArray[np.float32]


class Encoder(Protocol):
    """Turns texts into vectors whose inner product is their similarity."""

    @property
    def dimension(self) -> int:
        """Number of columns of every matrix this encoder returns."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would: weights, precision, tokenizer, truncation, prompts."""

    @property
    def truncated(self) -> int:
        """How many texts have been cut to the model's window since this encoder was made."""

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        """Shape (len(texts), dimension), float32, rows of L2 norm 1, in input order; no texts: zero rows."""

    def encode_documents(self, texts: Sequence[str]) -> FloatMatrix:
        """Shape (len(texts), dimension), float32, rows of L2 norm 1, in input order; no texts: zero rows."""


class Retriever(Protocol):
    """Finds documents in a collection: a recall leg, a fusion of legs, or a whole cascade."""

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """One Ranking of at most `keep` hits per query, in input order; no match is an empty Ranking."""


class CandidateGroup(NamedTuple):
    """One query with the candidates that a reranker is to score, in the order of the stage before.

    Where passages are ranked, `documents` hold the text of a passage each and `spans`, aligned with them, say which
    one of its document that is; () where the candidates are whole documents.
    """

    query: Query
    documents: Sequence[Document]
    spans: Sequence[Span | None] = ()


class Reranker(Protocol):
    """Scores candidates against their query."""

    def score(self, groups: Sequence[CandidateGroup]) -> list[FloatVector]:
        """One float32 array per group, shape (len(group.documents),), both in input order; larger is better.

        Pure: no sorting, no cutting, no files. Batches are formed across groups. An empty group gives shape (0,).
        """


class Located(NamedTuple):
    """What a reranker gave the candidates of a group, and where in each it found it.

    Attributes:
        scores: float32, shape (len(group.documents),), as `Reranker.score` gives it.
        spans: aligned with them, in characters of each document's text; None where there is no such place.
    """

    scores: FloatVector
    spans: Sequence[Span | None]


@runtime_checkable
class Locates(Reranker, Protocol):
    """A Reranker that says where in a document it found what it scored: hits then have that span."""

    def locate(self, groups: Sequence[CandidateGroup]) -> list[Located]:
        """One per group, in input order, with the scores that `score` gives."""


class DocumentStore(Protocol):
    """Gives back what was indexed."""

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        """The documents of these ids, in the same order. Raises IndexStoreError for an id that is not there."""


class TokenEncoder(Protocol):
    """Turns texts into one vector per token, for late interaction."""

    @property
    def dimension(self) -> int:
        """Number of columns of every matrix this encoder returns."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would: weights, precision, tokenizer, truncation, markers, skipped tokens."""

    @property
    def truncated(self) -> int:
        """How many texts have been cut to the model's window since this encoder was made."""

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """One matrix per text, in input order: shape (tokens, dimension), float32, rows of L2 norm 1.

        The tokens that a model appends to short queries are among them.
        """

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """One matrix per text, in input order: shape (tokens, dimension), float32, rows of L2 norm 1.

        Tokens that the model skips are not among them; a text without any that counts gives shape (0, dimension).
        """


@runtime_checkable
class JointEncoder(Encoder, Protocol):
    """An Encoder whose one pass over a text gives both its vector and those of its tokens."""

    @property
    def tokens(self) -> TokenEncoder:
        """The same model as an encoder of tokens, for queries and for documents that come alone."""

    def encode_documents_jointly(self, texts: Sequence[str]) -> tuple[FloatMatrix, list[FloatMatrix]]:
        """What `encode_documents` and `tokens.encode_documents` give for the texts, in one pass over each."""


@runtime_checkable
class Explains(Protocol):
    """A Retriever or Reranker that can say what it makes a document's score of."""

    def explain(self, query: Query, document: Document) -> Parts | None:
        """Parts that add up to what it scores the document for the query; None where the query asks it for nothing.

        A Retriever explains documents of its collection, found or not.
        """


@runtime_checkable
class ReadsTexts(Protocol):
    """An Encoder or TokenEncoder that can show what it reads of a text."""

    def readings(self, texts: Sequence[str], *, query: bool) -> list[Reading]:
        """One per text, in input order: its tokens, and where it is cut."""
