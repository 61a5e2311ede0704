"""What is a document's score made of? What a stage read of it, and parts that add up to what it scored.

Frozen values, standard library only; a stage that satisfies `tiercel.protocols.Explains` gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tiercel.types import Span


@dataclass(frozen=True, slots=True)
class Read:
    """What of a document a stage was given to read.

    Attributes:
        text: a document or a passage, with what is put before it.
        end: how many characters of it were read; the rest was cut.
        span: of the passage, in characters of the document's text; None for a whole document.
    """

    text: str
    end: int
    span: Span | None = None

    @property
    def cut(self) -> int:
        """How many characters were not read."""
        return len(self.text) - self.end


class Piece(NamedTuple):
    """A token as a model's tokenizer cuts it, with its place in the text; start equals end where it is not of the text.

    Special tokens, markers, prompts and fillers are not of the text: `text` is then how the tokenizer calls them.
    """

    text: str
    start: int
    end: int


class Reading(NamedTuple):
    """What a model reads of a text.

    Attributes:
        pieces: one for each vector that it gives, in that order.
        end: how many characters it reads; fewer than the text has where it cuts.
    """

    pieces: list[Piece]
    end: int


class Mark(NamedTuple):
    """A slice of what was read, in characters, and what it adds to the score."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class TermPart:
    """One term of the query.

    Attributes:
        term: as the analyser folds and stems it.
        asked: how often the query holds it.
        frequency: how often the document does.
        document_frequency: how many rows of the collection hold it.
        idf: what its rarity makes it weigh.
        weight: the idf times how often the query holds the term, times what the variant multiplies both by.
        saturation: from 0 to 1 in most variants: f / (f + K(length)), which grows ever more slowly with the frequency.
        constant: what the variant gives to every document for this term; 0 in most.
        part: what it adds to the score: constant + weight * saturation.
    """

    term: str
    asked: int
    frequency: int
    document_frequency: int
    idf: float
    weight: float
    saturation: float
    constant: float
    part: float


@dataclass(frozen=True, slots=True)
class TermParts:
    """BM25: terms in the order of their parts, the largest first.

    Attributes:
        read: the row that scores best.
        length: its number of terms; `mean_length` is that of all rows.
        norm: K(length), what the length makes the saturation begin with.
        marks: where the terms are.
    """

    read: Read
    terms: tuple[TermPart, ...]
    length: int
    mean_length: float
    norm: float
    marks: tuple[Mark, ...]

    @property
    def score(self) -> float:
        """The sum of the parts."""
        return math.fsum(term.part for term in self.terms)


@dataclass(frozen=True, slots=True)
class CosineParts:
    """A dense leg: the cosine of the query's vector and that of the row that is nearest."""

    read: Read
    score: float


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """One token of the query, and the token of the document that is most like it.

    `found` is None where the document has no token, which counts as a similarity of -1.
    """

    asked: Piece
    found: Piece | None
    similarity: float


@dataclass(frozen=True, slots=True)
class TokenParts:
    """Late interaction: the tokens of the query in their order, and the piece of the document that scores best.

    `score` is the sum of the similarities, or their mean where that is what the reranker gives.
    """

    read: Read
    tokens: tuple[TokenMatch, ...]
    score: float

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Where the document's tokens are that were found."""
        return tuple(
            Mark(part.found.start, part.found.end, part.similarity)
            for part in self.tokens
            if part.found is not None and part.found.end > part.found.start
        )


@dataclass(frozen=True, slots=True)
class Window:
    """What a cross-encoder read in one go.

    Attributes:
        tokens: of query and text as the model counts them, special ones not among them.
        cut_tokens: how many tokens of the text did not fit.
        used: whether its score has a say in the document's.
    """

    read: Read
    score: float
    tokens: int
    cut_tokens: int
    used: bool = True


@dataclass(frozen=True, slots=True)
class WindowParts:
    """A cross-encoder: the windows that it read, and what `strategy` made of their scores."""

    windows: tuple[Window, ...]
    strategy: str
    score: float


Parts: TypeAlias = TermParts | CosineParts | TokenParts | WindowParts
"""All have a `score`: what the stage gives the document by itself, before any fusion."""
