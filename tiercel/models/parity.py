"""How far one set of vectors of some texts is from another: what an export owes to the model it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Parity:
    """An exported model against its source in torch fp32, on the same texts.

    Attributes:
        texts: how many texts were compared.
        max_cosine_distance: largest 1 - cosine between a text's two vectors; 0 is equal.
        max_similarity_difference: largest absolute difference of a similarity between two of the texts; 0 is equal.
        top10_agreement: mean share of each text's ten nearest other texts that both have; 1 is equal.
    """

    texts: int
    max_cosine_distance: float
    max_similarity_difference: float
    top10_agreement: float

    @property
    def worst(self) -> float:
        """The larger of the two distances: what a limit is set on."""
        return max(self.max_cosine_distance, self.max_similarity_difference)


def compare_vectors(reference: NDArray[np.float32], other: NDArray[np.float32]) -> Parity:
    """Compare two matrices of shape (texts, dimension), at least two texts, rows of norm 1 and aligned."""
    wide_reference, wide_other = reference.astype(np.float64), other.astype(np.float64)
    cosines = np.sum(wide_reference * wide_other, axis=1)
    expected, got = wide_reference @ wide_reference.T, wide_other @ wide_other.T
    return Parity(
        texts=len(reference),
        max_cosine_distance=float(np.max(np.abs(1.0 - cosines))),
        max_similarity_difference=float(np.max(np.abs(expected - got))),
        top10_agreement=_neighbour_agreement(expected, got),
    )


def _neighbour_agreement(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    depth = min(_DEPTH, len(expected) - 1)
    shares = [
        len(nearest & other) / depth
        for nearest, other in zip(_neighbours(expected, depth), _neighbours(got, depth), strict=True)
    ]
    return float(np.mean(shares))


def _neighbours(similarities: NDArray[np.float64], depth: int) -> list[set[int]]:
    others_only = similarities.copy()
    np.fill_diagonal(others_only, -np.inf)
    order = np.argsort(-others_only, axis=1, kind="stable")
    return [set(row[:depth].tolist()) for row in order]
