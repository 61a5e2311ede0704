"""A small network over two vectors: how well does a document answer a query, by what was stored of it?

Barkan et al., Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding, AAAI 2020: [u, v, u*v, |u-v|]
through one hidden layer. It lies beside the encoder that it was trained with, in its folder.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models.description import HEAD_FILE

FloatArray = NDArray[np.float32]


class PairHead(NamedTuple):
    """`output . relu(hidden @ [u, v, u*v, |u-v|] + hidden_bias) + output_bias`.

    Attributes:
        hidden: shape (width, 4 * dimension), float32.
        hidden_bias: shape (width,), float32.
        output: shape (width,), float32.
        output_bias: shape (), float32.
    """

    hidden: FloatArray
    hidden_bias: FloatArray
    output: FloatArray
    output_bias: FloatArray

    @property
    def dimension(self) -> int:
        """Of the vectors that it compares."""
        return int(self.hidden.shape[1]) // 4

    def scores(self, query: FloatArray, documents: FloatArray) -> FloatArray:
        """Vectors of shape (dimension,) and (n, dimension) to scores of shape (n,), float32."""
        of_query, of_document, of_product, of_distance = np.split(self.hidden, 4, axis=1)
        # The product with the query is folded into the weights: two products a document instead of three.
        hidden = documents @ (of_document + of_product * query).T
        hidden += np.abs(documents - query) @ of_distance.T
        hidden += of_query @ query + self.hidden_bias
        scores: FloatArray = np.maximum(hidden, 0) @ self.output + self.output_bias
        return scores


def write_head(folder: Path, head: PairHead) -> None:
    """Write the head into an encoder's folder."""
    np.savez(folder / HEAD_FILE, **head._asdict())


def read_head(folder: Path) -> PairHead:
    """The head in an encoder's folder. Raises ModelError where there is none or it is damaged."""
    path = folder / HEAD_FILE
    if not path.is_file():
        raise ModelError(
            f"no {HEAD_FILE}",
            expected="an encoder with a head over two vectors",
            next_step="Train one with `tiercel train distil --set head=concat`",
            where=str(folder),
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            head = PairHead(**{name: arrays[name].astype(np.float32, copy=False) for name in PairHead._fields})
        width, joined = head.hidden.shape
        shapes = [head.hidden_bias.shape, head.output.shape, head.output_bias.shape]
        if joined % 4 or shapes != [(width,), (width,), ()] or not all(np.isfinite(part).all() for part in head):
            raise ValueError("its arrays do not fit together")
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot be read ({error})", next_step="Export the model again", where=str(path)) from error
    return head
