"""Cross-encoders: query and document read together; or a correction of what the stages before have scored.

A residual model's score is `bias + sum over legs of weight * leg's score` plus the network's logit. The combination
is fitted to the groups by the training's own loss before training begins, and the logit starts at zero, so the model
starts with the ranking of the stages before and has to earn every change. An export carries the network alone; no stage
reads the combination yet.
"""

from __future__ import annotations

import json
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

RESIDUAL_FILE = "residual.json"
"""Beside the weights of a residual model: {"bias": b, "weights": {leg: w}}."""

_RIDGE = 1e-3  # keeps the weights finite where the stages before rank every group right
_FIT_STEPS = 100


class CrossStudent:
    """A cross-encoder in training, from a folder that `tiercel export --cross-encoder` takes, or an encoder's.

    Raises ModelError for a folder that cannot be loaded and InputError for groups without the scores of a leg that
    `residual` names.
    """

    def __init__(self, folder: Path, settings: CrossSettings, groups: Sequence[TrainingGroup]) -> None:
        torch.manual_seed(settings.seed)
        network, self._tokenizer = load_classifier(folder, layers=settings.layers)
        limit = getattr(network.config, "max_position_embeddings", None) or settings.max_tokens
        self._window = min(settings.max_tokens, int(limit), int(self._tokenizer.model_max_length))
        self._objective = objective_of(settings)
        self._legs = [leg.strip() for leg in settings.residual.split(",") if leg.strip()]
        self.module = torch.nn.ModuleDict({"network": network})
        if self._legs:
            head = head_of(network)
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
            self.module["first"] = fit_first_stages(groups, self._legs, self._objective)

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest pair of each group."""
        longest = [max((f"{g.mined.query.text} {g.texts[d.id]}" for d in g.mined.documents), key=len) for g in groups]
        return [min(len(ids), self._window) for ids in self._tokenizer(longest, verbose=False)["input_ids"]]

    def scores(self, batch: Batch) -> Tensor:
        """Logits, with the combination of the stages before in a residual model."""
        queries = [query for query, row in zip(batch.queries, batch.documents, strict=True) for _ in row]
        documents = [document for row in batch.documents for document in row]
        features = self._tokenizer(
            queries, documents, truncation=True, max_length=self._window, padding=True, return_tensors="pt"
        ).to(batch.mask.device)
        logits = self.module["network"](**features).logits.float()
        scores = batch.place(logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0])
        if not self._legs:
            return scores
        rows = [first_scores(g, row, self._legs) for g, row in zip(batch.groups, batch.mined, strict=True)]
        return scores + self.module["first"](_stacked(rows).to(scores.device))

    def loss(self, batch: Batch) -> Tensor:
        """The mixed loss over each group."""
        return self._objective.loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)

    def save(self, folder: Path) -> None:
        """A folder of transformers; a residual model's combination goes beside it, as `RESIDUAL_FILE`."""
        with quiet():
            self.module["network"].save_pretrained(folder)
            self._tokenizer.model_max_length = self._window
            self._tokenizer.save_pretrained(folder)
        if self._legs:
            weights = self.module["first"].weight[0].tolist()
            record = {
                "bias": float(self.module["first"].bias[0]),
                "weights": dict(zip(self._legs, weights, strict=True)),
            }
            (folder / RESIDUAL_FILE).write_text(f"{json.dumps(record, indent=1)}\n", encoding="utf-8")


class FirstStages(torch.nn.Module):  # type: ignore[misc]
    """`bias + scores @ weight` over the last axis, one weight above 0 for each leg: no leg's order is turned around."""

    def __init__(self, legs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(1, legs))
        self.register_buffer("bias", torch.zeros(1))

    def forward(self, scores: Tensor) -> Tensor:
        """Shape (..., legs) to shape (...)."""
        return scores @ self.weight[0] + self.bias


def first_scores(group: MinedGroup, documents: Sequence[MinedDocument], legs: Sequence[str]) -> list[list[float]]:
    """What the legs gave each document; the leg's lowest score of the query where it did not find it, 0 for no hits.

    Raises InputError for a leg that the group does not know at all.
    """
    for leg in legs:
        if leg not in group.floors and not any(leg in document.scores for document in group.documents):
            if group.floors:
                continue  # the leg found nothing for this query
            raise InputError(
                f"no score of the leg {leg!r} for the query {group.query.id!r}",
                expected="scores of every leg that `residual` names",
                next_step="Mine with that leg, or leave it out of `residual`",
                where=group.where,
            )
    return [[d.scores.get(leg, group.floors.get(leg, 0.0)) for leg in legs] for d in documents]


def fit_first_stages(groups: Sequence[TrainingGroup], legs: Sequence[str], objective: Objective) -> FirstStages:
    """The combination of the legs' scores with the least loss over all groups, by L-BFGS; the same each time.

    Raises InputError as `first_scores` does, and for a leg that no group has a score of.
    """
    known = {leg for group in groups for document in group.mined.documents for leg in document.scores}
    if unknown := [leg for leg in legs if leg not in known]:
        raise InputError(
            f"no group has a score of the leg {unknown[0]!r}", expected=f"one of {', '.join(sorted(known)) or 'none'}"
        )
    scores = _stacked([first_scores(group.mined, group.mined.documents, legs) for group in groups])
    rows = [len(group.mined.documents) for group in groups]
    mask = torch.arange(scores.shape[1])[None, :] < torch.tensor(rows)[:, None]
    labels = mask & (torch.arange(scores.shape[1])[None, :] < _column([len(g.mined.positives) for g in groups]))
    teacher = _stacked([[[value] for value in g.teacher or [0.0] * n] for g, n in zip(groups, rows, strict=True)])
    deviations = scores[mask].std(dim=0).clamp_min(1e-6)
    logs, bias = torch.zeros(len(legs), requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs, bias], max_iter=_FIT_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        combined = (scores / deviations) @ logs.exp() + bias
        loss = objective.loss(combined, labels.float(), teacher[:, :, 0], mask) + _RIDGE * logs.exp().square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = FirstStages(len(legs))
    fitted.weight.copy_((logs.detach().exp() / deviations)[None, :])
    fitted.bias.copy_(bias.detach())
    return fitted


def _column(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers)[:, None]


def _stacked(rows: Sequence[Sequence[Sequence[float]]]) -> Tensor:
    """Rows of vectors as one float32 tensor, short rows filled with zeros."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
