"""Groups by hand, planted tasks, and a student that needs no checkpoint."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tiercel.training.batches import Batch, TrainingGroup, training_groups
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.losses import Objective
from tiercel.training.settings import TrainSettings
from tiercel.types import DocId, Query, QueryId


def made_group(number: int, query: str, positives: Sequence[str], negatives: Sequence[str]) -> MinedGroup:
    """A group whose documents are called by their texts."""
    right, wrong = ([MinedDocument(DocId(text)) for text in side] for side in (positives, negatives))
    return MinedGroup(Query(QueryId(f"q{number}"), query), right, wrong, where=f"made:{number}")


def texts_by_id(groups: Sequence[MinedGroup]) -> Mapping[DocId, str]:
    """What `made_group` called them by."""
    return {document.id: document.id for group in groups for document in group.documents}


def ready(groups: Sequence[MinedGroup], settings: TrainSettings) -> list[TrainingGroup]:
    return training_groups(groups, texts_by_id(groups), settings)


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def letters(count: int = 24) -> list[MinedGroup]:
    """A query of one letter is answered by the document that begins with it."""
    found = []
    for number in range(count):
        letter, other = chr(97 + number % 12), chr(97 + (number + 5) % 12)
        found.append(made_group(number, letter, [f"{letter}{number} x"], [f"{other}{number} y", f"z{number} {letter}"]))
    return found


class LetterStudent:
    """Scores a pair by a table of first letters, after dropout; `broken` makes the loss of one query NaN."""

    def __init__(self, *, broken: str = "", interrupt_at: int = -1) -> None:
        torch.manual_seed(3)
        self.module = torch.nn.Sequential(
            torch.nn.Embedding(128 * 128, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1)
        )
        self._broken = broken
        self._left = interrupt_at

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        return [sum(len(group.texts[d.id]) for d in group.mined.documents) for group in groups]

    def scores(self, batch: Batch) -> Any:
        pairs = [
            ord(q[0]) * 128 + ord(d[0]) for q, row in zip(batch.queries, batch.documents, strict=True) for d in row
        ]
        return batch.place(self.module(torch.tensor(pairs))[:, 0])

    def loss(self, batch: Batch) -> Any:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        loss = Objective().loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)
        return loss * float("nan") if self._broken in [group.query.id for group in batch.groups] else loss

    def save(self, folder: Path) -> None:
        raise NotImplementedError
