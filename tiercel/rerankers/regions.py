"""How well do the best regions of a document match a query? TKL's kernels, saturation and regions, without a network.

The numbers are those of `tiercel.models.local_network`, which learns them and has the source. One document at a time:
its score is the same bits whatever is scored beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.models.local_attention import CENTRES, KERNEL_WIDTH, Geometry, Head

if TYPE_CHECKING:
    from tiercel.protocols import FloatMatrix, FloatVector

_FIRST_POWER = np.float32(0.01)
_BLOCK = 512
"""Windows whose activations are in memory at a time: some 1.5 MB for 30 terms."""

_CENTRES = np.array(CENTRES, dtype=np.float32)


class Regions(NamedTuple):
    """Of one document, in the order in which its regions were found.

    Attributes:
        score: the sum of `parts`.
        best: the best window of each region; -1 for one that the document is too short for.
        parts: what each adds to the score.
    """

    score: float
    best: tuple[int, ...]
    parts: tuple[float, ...]


class RegionScorer:
    """A query, ready to be compared with documents. May be asked from several threads at once.

    Args:
        query: shape (terms, dimension), float32, rows of L2 norm 1.
        geometry: how documents are divided.
        head: the learnt numbers.

    Raises UsageError for vectors of another dimension than the head's.
    """

    def __init__(self, query: FloatMatrix, geometry: Geometry, head: Head) -> None:
        if query.ndim != 2 or query.shape[1] != head.term.size:
            raise UsageError(
                f"a query of shape {query.shape}",
                expected=f"vectors of {head.term.size} dimensions, as the model's",
                next_step="Take the encoder that the head was trained with.",
            )
        self._columns = np.ascontiguousarray(query.T, dtype=np.float32)
        self._of_terms = (query * head.term).sum(axis=1, dtype=np.float32)
        self._geometry = geometry
        self._head = head
        nothing = np.zeros((1, _CENTRES.size, len(query)), dtype=np.float32)
        self._empty = self._weighed(nothing, np.zeros(1, dtype=np.float32))[0]

    def windows(self, document: FloatMatrix) -> FloatVector:
        """The score of every window of a document of shape (tokens, dimension): shape (windows,), float32."""
        if document.ndim != 2 or document.shape[1] != len(self._columns):
            raise UsageError(
                f"a document of shape {document.shape}",
                expected=f"vectors of {len(self._columns)} dimensions, as the query's",
                next_step="Take the encoder that the documents were encoded with.",
            )
        geometry, tokens = self._geometry, len(document)
        count = geometry.windows(tokens)
        starts = np.arange(count) * geometry.stride
        shares = (np.clip(tokens - starts, 0, geometry.window) / geometry.window).astype(np.float32)
        scores = np.empty(count, dtype=np.float32)
        cosines = np.zeros((tokens, self._columns.shape[1]), dtype=np.float32)
        _products(np.ascontiguousarray(document, dtype=np.float32), self._columns, cosines)
        for first in range(0, count, _BLOCK):
            last = min(count, first + _BLOCK)
            part = cosines[starts[first] : starts[last - 1] + geometry.window, np.newaxis, :]
            activations = np.exp(-0.5 * np.square((part - _CENTRES[:, np.newaxis]) / np.float32(KERNEL_WIDTH)))
            sums = np.zeros((last - first, *activations.shape[1:]), dtype=np.float32)
            _window_sums(activations, geometry.window, geometry.stride, sums)
            scores[first:last] = self._weighed(sums, shares[first:last])
        return scores

    def score(self, document: FloatMatrix) -> Regions:
        """The regions of a document of shape (tokens, dimension), rows of norm 1; of none it is empty ones."""
        windows = self.windows(document)
        left = np.ones(len(windows), dtype=bool)
        places, offsets = np.arange(len(windows)), np.array(self._geometry.offsets)
        best: list[int] = []
        parts: list[float] = []
        for weights in self._head.regions:
            if not left.any():
                best.append(-1)
                parts.append(float(self._empty * weights.sum()))
                continue
            found = int(np.argmax(np.where(left, windows, -np.inf)))
            near = np.clip(found + offsets, 0, len(windows) - 1)
            best.append(found)
            parts.append(float((windows[near] * weights).sum()))
            left &= np.abs(places - found) >= self._geometry.apart
        return Regions(sum(parts), tuple(best), tuple(parts))

    def _weighed(self, sums: NDArray[np.float32], shares: FloatVector) -> FloatVector:
        """Sums of shape (windows, kernels, terms) to one number for each window."""
        logs = np.log(np.maximum(sums, np.float32(self._geometry.floor)))
        if self._geometry.saturation == "learned":
            u, v, w = (
                (row[0] * self._of_terms + row[1] * shares[:, np.newaxis] + row[2])[:, np.newaxis, :]
                for row in self._head.saturation
            )
            power = _FIRST_POWER * np.exp(u)
            logs = np.exp(v) * ((np.exp(power * logs) - 1) / power) + w
        weighed: FloatVector = np.einsum("wkq,k->w", logs, self._head.kernels)
        return weighed


@njit(cache=True, nogil=True, fastmath={"contract"})
def _products(document, columns, cosines):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Every token with every term; of a token in the order of the dimensions."""
    for n in range(document.shape[0]):
        row = cosines[n]
        for j in range(document.shape[1]):
            value = document[n, j]
            for q in range(columns.shape[1]):
                row[q] += value * columns[j, q]


@njit(cache=True, nogil=True)
def _window_sums(activations, window, stride, sums):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Activations of each window's tokens, added in their order."""
    for w in range(sums.shape[0]):
        for n in range(w * stride, min(w * stride + window, activations.shape[0])):
            for k in range(sums.shape[1]):
                for q in range(sums.shape[2]):
                    sums[w, k, q] += activations[n, k, q]
