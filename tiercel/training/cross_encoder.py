"""Cross-encoders: query and document read together; or a correction of what the stage before has scored.

A residual model's score is `weight * (score of the stage before + correction) + bias`. Weight and bias are fitted to
the groups by the training's own loss before training begins, and the correction starts at zero, so the model starts
with the ranking of the stage before and has to earn every change. What is saved gives the correction in that stage's
own unit: a pipeline adds it, as in `bm25+dense,wsum:cross:MODEL`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.errors import InputError
from tiercel.models.tracing import quiet
from tiercel.training.batches import Batch, TrainingGroup, objective_of
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.losses import Objective
from tiercel.training.settings import CrossSettings
from tiercel.training.sources import head_of, load_classifier

Tensor: TypeAlias = Any

_RIDGE = 1e-3  # keeps the weight finite where the stage before ranks every group right
_FIT_STEPS = 100


class CrossStudent:
    """A cross-encoder in training, from a folder that `tiercel export --cross-encoder` takes, or an encoder's.

    Raises ModelError for a folder that cannot be loaded and InputError for groups without the scores that
    `residual` names.
    """

    def __init__(self, folder: Path, settings: CrossSettings, groups: Sequence[TrainingGroup]) -> None:
        torch.manual_seed(settings.seed)
        network, self._tokenizer = load_classifier(folder, layers=settings.layers)
        limit = getattr(network.config, "max_position_embeddings", None) or settings.max_tokens
        self._window = min(settings.max_tokens, int(limit), int(self._tokenizer.model_max_length))
        self._objective = objective_of(settings)
        self._before = settings.residual
        self.module = torch.nn.ModuleDict({"network": network})
        if self._before:
            head = head_of(network)
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
            self.module["before"] = fit_stage_before(groups, self._before, self._objective)

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest pair of each group."""
        longest = [max((f"{g.mined.query.text} {g.texts[d.id]}" for d in g.mined.documents), key=len) for g in groups]
        return [min(len(ids), self._window) for ids in self._tokenizer(longest, verbose=False)["input_ids"]]

    def scores(self, batch: Batch) -> Tensor:
        """Logits; of a residual model with what the stage before has scored."""
        queries = [query for query, row in zip(batch.queries, batch.documents, strict=True) for _ in row]
        documents = [document for row in batch.documents for document in row]
        features = self._tokenizer(
            queries, documents, truncation=True, max_length=self._window, padding=True, return_tensors="pt"
        ).to(batch.mask.device)
        logits = self.module["network"](**features).logits.float()
        scores = batch.place(logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0])
        if not self._before:
            return scores
        rows = [scores_before(g, row, self._before) for g, row in zip(batch.groups, batch.mined, strict=True)]
        return scores + self.module["before"](_stacked(rows).to(scores.device))

    def loss(self, batch: Batch) -> Tensor:
        """The mixed loss over each group."""
        return self._objective.loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)

    def save(self, folder: Path) -> None:
        """A folder of transformers, whose logit is a residual model's correction in the unit of the stage before."""
        network = self.module["network"]
        if self._before:
            network = copy.deepcopy(network)
            head = head_of(network)
            head.weight.data /= self.module["before"].weight
            head.bias.data /= self.module["before"].weight
        with quiet():
            network.save_pretrained(folder)
            self._tokenizer.model_max_length = self._window
            self._tokenizer.save_pretrained(folder)


class StageBefore(torch.nn.Module):  # type: ignore[misc]
    """`weight * score + bias`, the weight above 0: the stage's order is not turned around."""

    def __init__(self, weight: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, scores: Tensor) -> Tensor:
        """Any shape, which stays."""
        return scores * self.weight + self.bias


def scores_before(group: MinedGroup, documents: Sequence[MinedDocument], stage: str) -> list[float]:
    """What a stage gave each document; its lowest score of the query where it did not find it, 0 for no hits.

    Raises InputError for a group that does not know the stage at all.
    """
    if not group.floors and not any(stage in document.scores for document in group.documents):
        raise InputError(
            f"no score of {stage!r} for the query {group.query.id!r}",
            expected="scores of the stage that `residual` names",
            next_step="Mine with that stage, or leave `residual` out",
            where=group.where,
        )
    return [document.scores.get(stage, group.floors.get(stage, 0.0)) for document in documents]


def fit_stage_before(groups: Sequence[TrainingGroup], stage: str, objective: Objective) -> StageBefore:
    """Weight and bias of a stage's scores with the least loss over all groups, by L-BFGS; the same each time.

    Raises InputError as `scores_before` does, and for a stage that no group has a score of.
    """
    known = {name for group in groups for document in group.mined.documents for name in document.scores}
    if stage not in known:
        raise InputError(f"no group has a score of {stage!r}", expected=f"one of {', '.join(sorted(known)) or 'none'}")
    scores = _stacked([scores_before(group.mined, group.mined.documents, stage) for group in groups])
    rows = [len(group.mined.documents) for group in groups]
    places = torch.arange(scores.shape[1])[None, :]
    mask = places < _column(rows)
    labels = mask & (places < _column([len(group.mined.positives) for group in groups]))
    teacher = _stacked([group.teacher or [0.0] * count for group, count in zip(groups, rows, strict=True)])
    deviation = scores[mask].std().clamp_min(1e-6)
    log, bias = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log, bias], max_iter=_FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        combined = scores / deviation * log.exp() + bias
        loss = objective.loss(combined, labels.float(), teacher, mask) + _RIDGE * log.exp().square()
        loss.backward()
        return loss

    optimizer.step(closure)
    return StageBefore(float(log.detach().exp() / deviation), float(bias.detach()))


def _column(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers)[:, None]


def _stacked(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows as one float32 matrix, short ones filled with zeros."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
