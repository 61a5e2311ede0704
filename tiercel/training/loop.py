"""One loop for all families: AdamW, warm-up, clipping, checkpoints, a dev measure, and the same end after a stop.

Why not the trainers of sentence-transformers: docs/adr/0013-a-training-loop-of-our-own.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from tiercel.errors import ModelError, UsageError
from tiercel.training.batches import Batch, TrainingGroup, make_batch, plan
from tiercel.training.checkpoints import (
    Checkpoints,
    State,
    gathered,
    load_weights,
    restore,
)
from tiercel.training.precision import autocast
from tiercel.training.settings import TrainSettings, as_record

Tensor: TypeAlias = Any

_SAY_SECONDS = 10.0


class Student(Protocol):
    """A model that is trained."""

    @property
    def module(self) -> Any:
        """All weights that are trained or saved, as one torch module."""

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """How long each group's texts are, in tokens: groups of like length go into one batch."""

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""

    def scores(self, batch: Batch) -> Tensor:
        """One score for each document, of the mask's shape: what ranks them."""

    def save(self, folder: Path) -> None:
        """Write the model as `tiercel export` takes it."""


@runtime_checkable
class Paced(Protocol):
    """A Student some of whose weights learn faster than others."""

    def pace(self, name: str) -> float:
        """What the learning rate is multiplied with for a weight, by its name in `module`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands: what the dev measure was best at, and when."""

    step: int = 0
    best: float | None = None
    best_step: int = 0


Dev: TypeAlias = Callable[[Student], float]
"""A measure of a ranking by the student; larger is better."""


class Training:
    """One training of one student.

    Args:
        student: what is trained; its weights change.
        groups: what it is trained on.
        settings: how.
        checkpoints: where it is written down while it lasts.
        dev: a measure on a retrieval task; without one, the last weights are the result.
        say: is told in a line how it goes.
    """

    def __init__(
        self,
        student: Student,
        groups: Sequence[TrainingGroup],
        settings: TrainSettings,
        *,
        checkpoints: Checkpoints,
        dev: Dev | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._student = student
        self._groups = groups
        self._settings = settings
        self._checkpoints = checkpoints
        self._dev = dev
        self._say = say
        _set_dropout(student.module, settings.dropout)
        self._lengths = student.lengths(groups)
        self._per_epoch = len(plan(self._lengths, settings, 0))
        self._total = self._per_epoch * settings.epochs
        student.module.to(settings.device)
        self._optimizer = _optimizer(student, settings)
        self._scaler = torch.amp.GradScaler("cuda", enabled=settings.precision == "fp16")
        self._record = {**as_record(settings), **checkpoints.inputs, "data": _digest(groups)}
        self._progress = Progress()
        self._written: float | None = None

    def run(self, *, resume: bool = False) -> Progress:
        """Train to the end; the student then has the weights that the dev measure was best at.

        After an interruption, `resume` goes on from the last checkpoint, to the same weights, bit for bit on one
        machine.

        Raises UsageError (a training is there, or was begun with other settings) and ModelError (a loss or gradient
        that is not finite: the batch is named, and the last checkpoint stays; a checkpoint that cannot be written or
        read).
        """
        self._begin(resume)
        spoken = begun = time.monotonic()
        pairs, losses = 0, []
        first = self._progress.step
        batches: list[list[int]] = []
        for step in range(first, self._total):
            epoch, position = divmod(step, self._per_epoch)
            if position == 0 or not batches:
                batches = plan(self._lengths, self._settings, epoch)
            chosen = [self._groups[index] for index in batches[position]]
            batch = make_batch(chosen, self._settings, epoch, device=self._settings.device)
            losses.append(self._gradients(step, batch))
            # Here, so that every checkpoint is of weights whose loss is known to be a number.
            self._write_if_due()
            self._update(step)
            pairs += batch.pairs
            self._progress = Progress(step + 1, self._progress.best, self._progress.best_step)
            self._measure(last=step + 1 == self._total)
            now = time.monotonic()
            ends = step + 1 == self._total or self._is_worn_out
            if ends or now - spoken >= _SAY_SECONDS:
                self._say(self._line(losses, pairs, now - begun, step + 1 - first))
                spoken, losses = now, []
            if ends:
                break
        self._end()
        return self._progress

    def _begin(self, resume: bool) -> None:
        if resume:
            state = self._checkpoints.read()
            self._checkpoints.check_unchanged(state, self._record)
            restore(state, self._student.module, self._optimizer)
            self._scaler.load_state_dict(state.record["scaler"])
            self._progress = Progress(*state.record["progress"])
            self._written = time.monotonic()
            self._say(f"going on at step {self._progress.step} of {self._total}")
        elif self._checkpoints.is_begun:
            raise UsageError(
                "an unfinished training is there",
                expected="a folder without one",
                next_step="Go on with --resume, or remove the folder",
                where=str(self._checkpoints.folder),
            )
        else:
            self._measure(last=True)  # what the start is worth: a training that only does harm keeps it

    def _gradients(self, step: int, batch: Batch) -> float:
        """Work out the gradient of a batch and clip it; returns the loss."""
        settings, module = self._settings, self._student.module
        # Dropout of a step follows from its number, so there is no state of a generator to keep.
        torch.manual_seed(settings.seed * 1_000_003 + step)
        module.train()
        with autocast(settings):
            loss = self._student.loss(batch)
        if not torch.isfinite(loss):
            self._stop(step, batch, f"the loss is {float(loss.detach())}")
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
        # The scaler of fp16 skips a step that overflowed and scales less: nothing to stop for.
        if settings.precision != "fp16" and not torch.isfinite(norm):
            self._stop(step, batch, f"the gradient's norm is {float(norm)}")
        return float(loss.detach())

    def _update(self, step: int) -> None:
        warm = max(1, round(self._total * self._settings.warmup))
        share = (step + 1) / warm if step < warm else (self._total - step) / max(1, self._total - warm)
        for group in self._optimizer.param_groups:
            group["lr"] = group["pace"] * self._settings.learning_rate * min(1.0, share)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _stop(self, step: int, batch: Batch, found: str) -> None:
        kept = "The checkpoint before is kept. " if self._checkpoints.is_begun else ""
        named = [f"{group.query.id}{f' ({group.where})' if group.where else ''}" for group in batch.groups]
        raise ModelError(
            f"{found} at step {step + 1} of {self._total}, in the batch of the queries {', '.join(named)}",
            expected="a finite number",
            next_step=f"{kept}Look at these groups, or begin anew with a lower learning_rate",
            where=str(self._checkpoints.folder),
        )

    def _measure(self, *, last: bool) -> None:
        step = self._progress.step
        if self._dev is None or not (last or step % self._dev_steps == 0):
            return
        self._student.module.eval()
        with torch.no_grad():
            value = self._dev(self._student)
        is_better = self._progress.best is None or value > self._progress.best
        self._say(f"step {step}: dev {value:.4f}{', the best so far' if is_better and step else ''}")
        if is_better:
            self._progress = Progress(step, value, step)
            self._checkpoints.write_best(State(gathered(self._student.module), {}))

    @property
    def _dev_steps(self) -> int:
        return self._settings.dev_steps or self._per_epoch

    @property
    def _is_worn_out(self) -> bool:
        """Whether the dev measure has had no new best for as long as the patience lasts."""
        if self._dev is None or not self._settings.patience:
            return False
        return self._progress.step - self._progress.best_step >= self._settings.patience * self._dev_steps

    def _write_if_due(self) -> None:
        """The first at once, so that a full disk shows at the start and not after an hour."""
        now = time.monotonic()
        if self._written is not None and now - self._written < self._settings.checkpoint_minutes * 60:
            return
        progress = self._progress
        record = {
            "settings": self._record,
            "progress": [progress.step, progress.best, progress.best_step],
            "scaler": self._scaler.state_dict(),
        }
        self._checkpoints.write(State(gathered(self._student.module, self._optimizer), record))
        self._written = time.monotonic()

    def _end(self) -> None:
        if self._dev is not None:
            load_weights(self._checkpoints.read_best(), self._student.module)
        self._student.module.eval()

    def _line(self, losses: Sequence[float], pairs: int, seconds: float, steps: int) -> str:
        step = self._progress.step
        left = seconds / steps * (self._total - step)
        loss = sum(losses) / len(losses)
        rate = pairs / max(seconds, 1e-9)
        pace = f"{rate:.1f} pairs/s in {self._settings.precision}"
        return f"step {step} of {self._total}: loss {loss:.4f}, {pace}, {_duration(left)} left"


def _optimizer(student: Student, settings: TrainSettings) -> Any:
    """AdamW; biases and the weights of norms do not decay, and a student may let some weights learn faster."""
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, weight in student.module.named_parameters():
        if weight.requires_grad:
            pace = student.pace(name) if isinstance(student, Paced) else 1.0
            groups.setdefault((pace, weight.dim() > 1), []).append(weight)
    return torch.optim.AdamW(
        [
            {"params": weights, "pace": pace, "weight_decay": settings.weight_decay if decays else 0.0}
            for (pace, decays), weights in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
        ],
        lr=settings.learning_rate,
    )


def _set_dropout(module: Any, share: float) -> None:
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = share


def _digest(groups: Sequence[TrainingGroup]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for group in groups:
        digest.update(repr((group.mined.query, group.mined.documents, list(group.teacher))).encode())
        for document in group.mined.documents:
            digest.update(group.texts[document.id].encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
