"""How far vectors or scores are from others of the same texts: what an export owes to the model it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

_DEPTH = 10


class Parity(Protocol):
    """What an export measures, whatever the family; a frozen dataclass whose fields are numbers."""

    @property
    def worst(self) -> float:
        """What a limit is set on; 0 is equal."""

    @property
    def spearman(self) -> float:
        """Mean rank correlation; 1 is the same order."""

    @property
    def top10_agreement(self) -> float:
        """Mean share of the ten best that both have; 1 is equal."""


@dataclass(frozen=True, slots=True)
class VectorParity:
    """An exported model against its source in torch fp32, on the same texts.

    Attributes:
        texts: how many texts were compared.
        max_cosine_distance: largest 1 - cosine between a text's two vectors; 0 is equal.
        max_similarity_difference: largest absolute difference of a similarity between two of the texts; 0 is equal.
        top10_agreement: mean share of each text's ten nearest other texts that both have; 1 is equal.
        spearman: mean over texts of the rank correlation of the other texts by similarity; 1 is the same order.
    """

    texts: int
    max_cosine_distance: float
    max_similarity_difference: float
    top10_agreement: float
    spearman: float

    @property
    def worst(self) -> float:
        """The larger of the two distances: what a limit is set on."""
        return max(self.max_cosine_distance, self.max_similarity_difference)


def compare_vectors(reference: NDArray[np.float32], other: NDArray[np.float32]) -> VectorParity:
    """Compare two matrices of shape (texts, dimension), at least two texts, rows of norm 1 and aligned."""
    wide_reference, wide_other = reference.astype(np.float64), other.astype(np.float64)
    cosines = np.sum(wide_reference * wide_other, axis=1)
    expected, got = wide_reference @ wide_reference.T, wide_other @ wide_other.T
    return VectorParity(
        texts=len(reference),
        max_cosine_distance=float(np.max(np.abs(1.0 - cosines))),
        max_similarity_difference=float(np.max(np.abs(expected - got))),
        top10_agreement=_neighbour_agreement(expected, got),
        spearman=float(np.mean([spearman(*rows) for rows in zip(_others(expected), _others(got), strict=True)])),
    )


@dataclass(frozen=True, slots=True)
class ScoreParity:
    """An exported cross-encoder against its source in torch fp32, on the same documents for each of some queries.

    Attributes:
        pairs: how many pairs were compared.
        max_score_difference: largest absolute difference between a pair's two scores; 0 is equal.
        score_deviation: standard deviation of the source's scores, which says what a difference is worth.
        spearman: mean over queries of the rank correlation of the documents; 1 is the same order.
        top10_agreement: mean share of each query's ten best documents that both have; 1 is equal.
    """

    pairs: int
    max_score_difference: float
    score_deviation: float
    spearman: float
    top10_agreement: float

    @property
    def worst(self) -> float:
        """The largest difference, or its share of the deviation where scores lie further apart than one."""
        return self.max_score_difference / max(1.0, self.score_deviation)


def compare_scores(reference: NDArray[np.float32], other: NDArray[np.float32]) -> ScoreParity:
    """Compare two matrices of scores of shape (queries, documents), at least one query and two documents, aligned."""
    expected, got = reference.astype(np.float64), other.astype(np.float64)
    depth = min(_DEPTH, expected.shape[1])
    best = zip(_best(expected, depth), _best(got, depth), strict=True)
    return ScoreParity(
        pairs=int(expected.size),
        max_score_difference=float(np.max(np.abs(expected - got))),
        score_deviation=float(expected.std()),
        spearman=float(np.mean([spearman(*rows) for rows in zip(expected, got, strict=True)])),
        top10_agreement=float(np.mean([len(first & second) / depth for first, second in best])),
    )


class EncodedTexts(NamedTuple):
    """What a late-interaction model gives for some queries and documents, all in float32.

    Attributes:
        queries: per query one matrix of shape (tokens, dimension), rows of norm 1.
        documents: the same per document; a document may have no token.
        sentences: a vector of each query, then of each document, rows of norm 1; None for a model without such.
    """

    queries: Sequence[NDArray[np.float32]]
    documents: Sequence[NDArray[np.float32]]
    sentences: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class TokenParity:
    """An exported late-interaction model against its source in torch fp32, on the same queries and documents.

    Attributes:
        tokens: how many tokens were compared.
        max_cosine_distance: largest 1 - cosine between a token's two vectors; 0 is equal.
        max_score_difference: largest absolute difference of a MaxSim score, as the mean over the query's tokens.
        spearman: mean over queries of the rank correlation of the documents by MaxSim; 1 is the same order.
        top10_agreement: mean share of each query's ten best documents that both have; 1 is equal.
        max_sentence_distance: largest 1 - cosine between a whole text's two vectors; 0 also where there are none.
    """

    tokens: int
    max_cosine_distance: float
    max_score_difference: float
    spearman: float
    top10_agreement: float
    max_sentence_distance: float

    @property
    def worst(self) -> float:
        """The largest of the three: what a limit is set on."""
        return float(np.max([self.max_cosine_distance, self.max_score_difference, self.max_sentence_distance]))


def compare_tokens(reference: EncodedTexts, other: EncodedTexts) -> TokenParity:
    """Compare what two models give for the same texts, at least one query and two documents.

    A text that has more tokens in one than in the other is infinitely far.
    """
    expected, got = ([*texts.queries, *texts.documents] for texts in (reference, other))
    distances = [_cosine_distance(*matrices) for matrices in zip(expected, got, strict=True)]
    scores = compare_scores(*(_mean_maxsim(texts.queries, texts.documents) for texts in (reference, other)))
    sentences = 0.0
    if reference.sentences is not None and other.sentences is not None:
        sentences = compare_vectors(reference.sentences, other.sentences).max_cosine_distance
    return TokenParity(
        tokens=sum(map(len, expected)),
        max_cosine_distance=float(np.max(distances)),
        max_score_difference=scores.max_score_difference,
        spearman=scores.spearman,
        top10_agreement=scores.top10_agreement,
        max_sentence_distance=sentences,
    )


def _cosine_distance(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Largest 1 - cosine between two rows; 0 where there are none."""
    if expected.shape != got.shape:
        return float("inf")
    cosines = np.sum(expected.astype(np.float64) * got.astype(np.float64), axis=1)
    return float(np.max(np.abs(1.0 - cosines), initial=0.0))


def _mean_maxsim(
    queries: Sequence[NDArray[np.float32]], documents: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Shape (queries, documents), float32: a document without tokens gets -1."""
    rows = [[(query @ document.T).max(axis=1, initial=-1.0).mean() for document in documents] for query in queries]
    return np.array(rows, dtype=np.float32)


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Rank correlation of two arrays of one shape (values,), at least two values: Pearson's of their mean ranks.

    1 where the order is the same, -1 where it is reversed; 0 where one array holds a single value throughout.
    """
    ranks = [_mean_ranks(values) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = np.sqrt(np.sum(centred[0] ** 2) * np.sum(centred[1] ** 2))
    return float(np.sum(centred[0] * centred[1]) / scale) if scale > 0 else 0.0


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value from 0 on; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return ranks


def _neighbour_agreement(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    depth = min(_DEPTH, len(expected) - 1)
    shares = [
        len(nearest & other) / depth
        for nearest, other in zip(_neighbours(expected, depth), _neighbours(got, depth), strict=True)
    ]
    return float(np.mean(shares))


def _others(similarities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row without its text's similarity to itself."""
    count = len(similarities)
    return similarities[~np.eye(count, dtype=bool)].reshape(count, count - 1)


def _neighbours(similarities: NDArray[np.float64], depth: int) -> list[set[int]]:
    others_only = similarities.copy()
    np.fill_diagonal(others_only, -np.inf)
    return _best(others_only, depth)


def _best(scores: NDArray[np.float64], depth: int) -> list[set[int]]:
    """Columns of the `depth` largest values of each row."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return [set(row[:depth].tolist()) for row in order]
