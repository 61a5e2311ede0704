"""Which groups does a step see, and which of their documents? A function of the seed and the step alone.

So a training that was interrupted needs no more than the number of the step to go on with the very batch that was next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.losses import Across, Objective
from tiercel.training.settings import TrainSettings
from tiercel.types import DocId

Tensor: TypeAlias = Any

# So many batches are filled from one shuffled stretch of groups that is sorted by length: padding stays small.
_STRETCH = 32


@dataclass(frozen=True, slots=True)
class TrainingGroup:
    """A group with its documents' texts; `teacher` holds their scores, empty where no loss asks for them."""

    mined: MinedGroup
    texts: Mapping[DocId, str]
    teacher: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step reads.

    Attributes:
        groups: where it comes from.
        queries: one text for each group.
        documents: their documents' texts, in the order of the columns below.
        mined: the same documents as they were mined.
        labels, teacher: float32 of shape (groups, most documents); 0 where there is none.
        mask: bool of that shape; where a document is.
    """

    groups: Sequence[MinedGroup]
    queries: list[str]
    documents: list[list[str]]
    mined: list[list[MinedDocument]]
    labels: Tensor
    teacher: Tensor
    mask: Tensor

    @property
    def pairs(self) -> int:
        """How many pairs of query and document it holds."""
        return sum(map(len, self.documents))

    def padded(self, rows: Sequence[Sequence[float]]) -> Tensor:
        """Numbers of the documents as float32 of the mask's shape, 0 where there is none."""
        return _padded(rows).to(self.mask.device)

    @property
    def owners(self) -> Tensor:
        """For each pair, in order, the position of its group: int64 of shape (pairs,)."""
        counts = torch.tensor([len(row) for row in self.documents])
        return torch.repeat_interleave(torch.arange(len(counts)), counts).to(self.mask.device)

    def own(self, scores: Tensor) -> Tensor:
        """Of every query with every document, shape (groups, pairs), each query with its own: the mask's shape."""
        owners = self.owners
        return self.place(scores[owners, torch.arange(len(owners), device=owners.device)])

    def across(self, scores: Tensor) -> Across:
        """Every query with every document of the batch, shape (groups, pairs); other groups' are negatives.

        A document that answers a query has no part in it where it comes with another group.
        """
        owners = self.owners
        own = owners[None, :] == torch.arange(len(self.queries), device=owners.device)[:, None]
        answers = [{document.id for document in group.positives} for group in self.groups]
        pairs = [document.id for row in self.mined for document in row]
        known = torch.tensor([[doc_id in ids for doc_id in pairs] for ids in answers], device=owners.device)
        return Across(scores, (self.labels[self.mask][None, :] * own), own | ~known)

    def place(self, flat: Tensor) -> Tensor:
        """One number a pair, in order, at their places in the mask's shape; 0 elsewhere."""
        return torch.zeros(self.mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(self.mask, flat)


def training_groups(
    groups: Sequence[MinedGroup], texts: Mapping[DocId, str], settings: TrainSettings
) -> list[TrainingGroup]:
    """The groups with all that the losses of `settings` ask for. Raises InputError where one lacks it."""
    found = []
    for group in groups:
        if settings.label != "none":
            group.check_labels()
        scores = group.teacher_scores(settings.teacher) if settings.distil != "none" else []
        found.append(TrainingGroup(group, texts, scores))
    return found


def plan(lengths: Sequence[int], settings: TrainSettings, epoch: int) -> list[list[int]]:
    """Positions of groups, batch by batch, for one epoch: shuffled, groups of like length in one batch."""
    chance = random.Random(f"{settings.seed}:{epoch}")
    order = list(range(len(lengths)))
    chance.shuffle(order)
    size = settings.batch_groups
    batches = []
    for start in range(0, len(order), size * _STRETCH):
        stretch = sorted(order[start : start + size * _STRETCH], key=lambda position: lengths[position])
        batches += [stretch[first : first + size] for first in range(0, len(stretch), size)]
    chance.shuffle(batches)
    return batches


def make_batch(groups: Sequence[TrainingGroup], settings: TrainSettings, epoch: int, *, device: str = "cpu") -> Batch:
    """One positive and at most `negatives` negatives of each group, drawn by seed, epoch and query.

    Without a loss over labels, positives and negatives are drawn alike, `negatives` + 1 of them.
    """
    chosen = [_draw(group, settings, epoch) for group in groups]
    mined = [[group.mined.documents[i] for i in places] for group, places in zip(groups, chosen, strict=True)]
    labels = [[float(i < len(g.mined.positives)) for i in places] for g, places in zip(groups, chosen, strict=True)]
    taught = [[g.teacher[i] for i in places] if g.teacher else [] for g, places in zip(groups, chosen, strict=True)]
    mask = _padded([[1.0] * len(places) for places in chosen]).bool()
    teacher = _padded(taught) if any(taught) else torch.zeros(mask.shape)
    return Batch(
        [group.mined for group in groups],
        [group.mined.query.text for group in groups],
        [[group.texts[d.id] for d in row] for group, row in zip(groups, mined, strict=True)],
        mined,
        _padded(labels).to(device),
        teacher.to(device),
        mask.to(device),
    )


def batch_of(groups: Sequence[MinedGroup], texts: Mapping[DocId, str], *, device: str = "cpu") -> Batch:
    """All documents of the groups, without labels and teacher: what is only to be scored."""
    mask = _padded([[1.0] * len(group.documents) for group in groups]).bool().to(device)
    nothing = torch.zeros(mask.shape, device=device)
    mined = [group.documents for group in groups]
    documents = [[texts[document.id] for document in row] for row in mined]
    return Batch(groups, [group.query.text for group in groups], documents, mined, nothing, nothing, mask)


def objective_of(settings: TrainSettings) -> Objective:
    """The losses that the settings name."""
    return Objective(settings.label, settings.distil, settings.distil_weight, settings.temperature)


def all_texts(groups: Sequence[TrainingGroup]) -> Iterator[str]:
    """Every text of the groups once, queries and documents, in order."""
    seen = dict.fromkeys(
        text for g in groups for text in (g.mined.query.text, *(g.texts[d.id] for d in g.mined.documents))
    )
    yield from seen


def _draw(group: TrainingGroup, settings: TrainSettings, epoch: int) -> list[int]:
    chance = random.Random(f"{settings.seed}:{epoch}:{group.mined.where}:{group.mined.query.id}")
    positives, total = len(group.mined.positives), len(group.mined.documents)
    if settings.label == "none":
        return sorted(chance.sample(range(total), min(total, settings.negatives + 1)))
    negatives = chance.sample(range(positives, total), min(total - positives, settings.negatives))
    return [chance.randrange(positives), *sorted(negatives)]


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *([0.0] * (width - len(row)))] for row in rows], dtype=torch.float32)
