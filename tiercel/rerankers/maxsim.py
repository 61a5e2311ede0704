"""How well does a document match a query, token by token? MaxSim, the score of late interaction.

Each token of the query takes the document's token that is most like it, and these similarities are added up (Khattab &
Zaharia, ColBERT, SIGIR 2020). The tokens of all documents lie one after the other, and nothing is padded: a row of
zeros would win over tokens whose similarity is negative.

The kernel is our own, as a matrix product of BLAS cannot be told how many threads to use without one more dependency,
and its last bits depend on how many rows it is given. benchmarks/maxsim.py compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tiercel.errors import UsageError

if TYPE_CHECKING:
    from tiercel.protocols import FloatMatrix, FloatVector

_LANES = 16
"""Queries are filled up to a multiple of so many tokens, which are computed and not counted: whole vector registers."""


def maxsim(query: FloatMatrix, tokens: FloatMatrix, offsets: NDArray[np.int64]) -> FloatVector:
    """The sum over the query's tokens of the largest inner product with a token of the document.

    Exact, in float32: products are added in the order of the dimensions (two at a time, fused), maxima in the order of
    the query's tokens. A document's score depends on the query and the document alone, to the last bit.

    A document without tokens gets the least that a sum of cosines can be, -1 for each token of the query; a query
    without tokens gives every document 0.

    Args:
        query: shape (query tokens, dimension), float32, rows of L2 norm 1.
        tokens: shape (tokens, dimension), float32, rows of L2 norm 1: the tokens of all documents, one after the other.
        offsets: shape (documents + 1,), int64, ascending from 0: where each document's tokens begin.

    Returns:
        Shape (documents,), float32.

    Raises:
        UsageError: dimensions or offsets that do not fit.
    """
    if query.ndim != 2 or tokens.ndim != 2 or query.shape[1] != tokens.shape[1]:
        raise UsageError(
            f"tokens of shape {tokens.shape} cannot be compared with a query of shape {query.shape}",
            expected="vectors of one dimension",
            next_step="Take the encoder that the documents were encoded with.",
        )
    if not offsets.size or offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
        raise UsageError(
            f"offsets that do not divide {len(tokens)} tokens", expected="ascending from 0 to the number of tokens"
        )
    width = -(-len(query) // _LANES) * _LANES
    columns = np.zeros((query.shape[1], width), dtype=np.float32)
    columns[:, : len(query)] = query.T
    scores = np.empty(offsets.size - 1, dtype=np.float32)
    _maxsim(
        columns,
        len(query),
        np.ascontiguousarray(tokens, dtype=np.float32),
        offsets.astype(np.int64, copy=False),
        scores,
    )
    return scores


@njit(cache=True, nogil=True, fastmath={"contract"})
def _maxsim(columns, count, tokens, offsets, scores):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Four tokens of the document and two dimensions at a time, against all tokens of the query side by side.

    Where fewer than four are left the last one is computed again, so that all go through the same instructions.
    """
    dimension, width = columns.shape
    even = dimension - dimension % 2
    sums = np.empty((4, width), np.float32)
    best = np.empty(width, np.float32)
    for n in range(scores.size):
        first, last = offsets[n], offsets[n + 1] - 1
        best[:] = -1.0 if last < first else -np.inf
        for a in range(first, last + 1, 4):
            b, c, d = min(a + 1, last), min(a + 2, last), min(a + 3, last)
            sums[:] = 0
            for j in range(0, even, 2):
                a0, a1, b0, b1 = tokens[a, j], tokens[a, j + 1], tokens[b, j], tokens[b, j + 1]
                c0, c1, d0, d1 = tokens[c, j], tokens[c, j + 1], tokens[d, j], tokens[d, j + 1]
                for q in range(width):
                    x0, x1 = columns[j, q], columns[j + 1, q]
                    sums[0, q] = sums[0, q] + a0 * x0 + a1 * x1
                    sums[1, q] = sums[1, q] + b0 * x0 + b1 * x1
                    sums[2, q] = sums[2, q] + c0 * x0 + c1 * x1
                    sums[3, q] = sums[3, q] + d0 * x0 + d1 * x1
            if even < dimension:
                for q in range(width):
                    x0 = columns[even, q]
                    sums[0, q] += tokens[a, even] * x0
                    sums[1, q] += tokens[b, even] * x0
                    sums[2, q] += tokens[c, even] * x0
                    sums[3, q] += tokens[d, even] * x0
            for q in range(width):
                best[q] = max(best[q], max(max(sums[0, q], sums[1, q]), max(sums[2, q], sums[3, q])))
        total = np.float32(0)
        for q in range(count):
            total += best[q]
        scores[n] = total
