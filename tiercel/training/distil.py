"""Distilled sentence embeddings (DSE, Barkan et al., AAAI 2020): two vectors and a small head learn a teacher's scores.

The vectors here are the encoder's own sentence vectors of norm 1, not the paper's mean over the top four layers: so
what is stored for the dense leg serves the head too. `dot` orders documents as the encoder's cosine does, so it is a
bi-encoder for recall; `concat` is no inner product, and reranks over stored vectors: the stage `pair`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.models.pair_head import PairHead, write_head
from tiercel.training.batches import Batch, TrainingGroup, objective_of
from tiercel.training.bi_encoder import Vectors
from tiercel.training.precision import exactly
from tiercel.training.settings import DistilSettings

Tensor: TypeAlias = Any

_START_SCALE = 5.0


class DotHead(torch.nn.Module):  # type: ignore[misc]
    """`exp(log_scale) * u.v + bias`: brings cosines to the teacher's range and never turns their order around."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor([_START_SCALE]).log())
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Two matrices of shape (pairs, dimension) to shape (pairs,)."""
        return (queries * documents).sum(dim=-1) * self.log_scale.exp() + self.bias


class ConcatHead(torch.nn.Module):  # type: ignore[misc]
    """A network with one hidden layer over [u, v, u*v, |u-v|]."""

    def __init__(self, dimension: int, width: int) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(4 * dimension, width)
        self.output = torch.nn.Linear(width, 1)

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Two matrices of shape (pairs, dimension) to shape (pairs,)."""
        joined = torch.cat([queries, documents, queries * documents, (queries - documents).abs()], dim=-1)
        return self.output(torch.relu(self.hidden(joined)))[..., 0]

    def as_arrays(self) -> PairHead:
        """The same without torch."""
        hidden, output = self.hidden, self.output
        parts = (hidden.weight, hidden.bias, output.weight[0], output.bias[0])
        return PairHead(*(part.detach().float().cpu().numpy() for part in parts))


class DseStudent:
    """A DSE student in training, from a folder of sentence-transformers; raises ModelError where that cannot be."""

    def __init__(self, folder: Path, settings: DistilSettings) -> None:
        torch.manual_seed(settings.seed)
        self._vectors = Vectors(folder, max_tokens=settings.max_tokens)
        self._settings = settings
        self._objective = objective_of(settings)
        dimension = int(self._vectors.model.get_embedding_dimension())
        head = DotHead() if settings.head == "dot" else ConcatHead(dimension, settings.width)
        self.module = torch.nn.ModuleDict({"encoder": self._vectors.model, "head": head})

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest document of each group."""
        return self._vectors.lengths(groups)

    def scores(self, batch: Batch) -> Tensor:
        """What the head gives for the vectors of each pair."""
        queries, documents = self._vectors.of_batch(batch)
        with exactly(self._settings.device):
            return batch.place(self.module["head"](queries[batch.owners], documents))

    def loss(self, batch: Batch) -> Tensor:
        """The mixed loss over each group."""
        return self._objective.loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)

    def save(self, folder: Path) -> None:
        """The encoder as sentence-transformers saves it; a head over both vectors beside it.

        The line of `dot` is not kept: it orders documents as the cosine does.
        """
        self._vectors.save(folder)
        if self._settings.head == "concat":
            write_head(folder, self.module["head"].as_arrays())
