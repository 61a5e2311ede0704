"""Uni-Encoders: a context read once with all its candidates (Song et al., ACL Findings 2023).

The paper's other loss, of masked words, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tiercel.models.uni_checkpoint import load_uni_encoder, save_uni_encoder
from tiercel.models.uni_inputs import UniSettings, UniTokenizer
from tiercel.training.batches import Batch, TrainingGroup, objective_of
from tiercel.training.groups import MinedDocument
from tiercel.training.settings import UniTrainSettings
from tiercel.types import Query

Tensor: TypeAlias = Any
_Ids: TypeAlias = NDArray[np.int64]

_NOTHING: _Ids = np.empty(0, np.int64)


class UniStudent:
    """A Uni-Encoder in training, from a folder of one, or of a bi-encoder's or cross-encoder's BERT.

    Raises ModelError for what cannot be loaded, and for windows that are too long for the network together.
    """

    def __init__(self, folder: Path, settings: UniTrainSettings) -> None:
        torch.manual_seed(settings.seed)
        reads = UniSettings(settings.mask, settings.group_size, settings.context_tokens, settings.max_tokens)
        self._checkpoint = load_uni_encoder(folder, reads)
        self._tokenizer = UniTokenizer(self._checkpoint.tokenizer.backend_tokenizer, reads)
        self._settings = settings
        self._objective = objective_of(settings)
        self.module = self._checkpoint.network

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the context and the longest candidate of each group."""
        longest = [max((g.texts[d.id] for d in g.mined.documents), key=len) for g in groups]
        candidates = self._tokenizer.candidates(longest).ids
        return [len(self._context(group.mined.query)) + len(ids) for group, ids in zip(groups, candidates, strict=True)]

    def scores(self, batch: Batch) -> Tensor:
        """Logits. With `arrow` at most `group_size` candidates are read together, in the order of the first stage."""
        parts = [(row, part) for row, mined in enumerate(batch.mined) for part in self._read_together(mined)]
        found = self._pass(
            [batch.groups[row].query for row, _ in parts],
            [[batch.documents[row][column] for column in part] for row, part in parts],
            device=batch.mask.device,
        )
        scores = torch.zeros(batch.mask.shape, device=found.device)
        for (row, part), values in zip(parts, found, strict=True):
            scores[row, part] = values[: len(part)]
        return scores

    def loss(self, batch: Batch) -> Tensor:
        """Labels over the whole batch, or each group, and the teacher over each group."""
        if not self._settings.in_batch:
            return self._objective.loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)
        every = [text for row in batch.documents for text in row]
        queries = [group.query for group in batch.groups]
        matrix = self._pass(queries, [every] * len(queries), device=batch.mask.device)
        return self._objective.loss(
            batch.own(matrix), batch.labels, batch.teacher, batch.mask, across=batch.across(matrix)
        )

    def save(self, folder: Path) -> None:
        """A folder of a Uni-Encoder (see `tiercel.models.uni_checkpoint`)."""
        save_uni_encoder(self._checkpoint, folder)

    def _read_together(self, mined: Sequence[MinedDocument]) -> list[list[int]]:
        """Columns of a group's documents, by the passes that they are read in."""
        size = self._settings.group_size or len(mined)
        order = sorted(range(len(mined)), key=lambda column: mined[column].rank or math.inf)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _pass(self, queries: Sequence[Query], candidates: Sequence[Sequence[str]], *, device: Any) -> Tensor:
        """Shape (queries, most candidates), float32; what stands where a query has no candidate means nothing."""
        width = max(map(len, candidates))
        contexts = [self._context(query) for query in queries]
        rows: list[_Ids] = []
        for texts in candidates:
            rows += [*self._tokenizer.candidates(texts).ids, *([_NOTHING] * (width - len(texts)))]
        context_ids, context_mask = _padded(contexts)
        ids, mask = _padded(rows)
        shape = (len(queries), width, ids.shape[1])
        tensors = (context_ids, ids.reshape(shape), context_mask, mask.reshape(shape))
        return self.module(*(tensor.to(device) for tensor in tensors)).float()

    def _context(self, query: Query) -> _Ids:
        return self._tokenizer.context((*query.history, query.text)).ids


def _padded(rows: Sequence[_Ids]) -> tuple[Tensor, Tensor]:
    """Token ids, padded behind with 0, and their mask: int64 of shape (rows, longest)."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
