from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.made import LetterStudent, letters, limited_files, ready
from tiercel.errors import ModelError, UsageError
from tiercel.training.batches import batch_of, make_batch
from tiercel.training.checkpoints import Checkpoints, load_weights
from tiercel.training.loop import Student, Training
from tiercel.training.settings import TrainSettings

SETTINGS = TrainSettings(
    seed=5, epochs=3, batch_groups=4, learning_rate=0.05, precision="fp32", checkpoint_minutes=0.0, negatives=1
)


def training(student: LetterStudent, folder: Path, settings: TrainSettings = SETTINGS, **more: Any) -> Training:
    return Training(student, ready(letters(), settings), settings, checkpoints=Checkpoints(folder), **more)


def weights(student: LetterStudent) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in student.module.state_dict().items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def accuracy(student: Student) -> float:
    groups = letters()
    scores = student.scores(batch_of(groups, {d.id: d.id for g in groups for d in g.documents}))
    return float((scores.argmax(dim=1) == 0).float().mean())


def test_the_same_seed_gives_the_same_weights_and_another_others(tmp_path: Path) -> None:
    students = [LetterStudent() for _ in range(3)]
    for number, (student, seed) in enumerate(zip(students, (5, 5, 6), strict=True)):
        settings = TrainSettings(seed=seed, epochs=1, learning_rate=0.05, precision="fp32")
        training(student, tmp_path / str(number), settings).run()
    first, again, other = map(weights, students)
    assert same(first, again)
    assert not same(first, other)


def test_dropout_is_what_the_settings_say_and_not_what_the_model_came_with(tmp_path: Path) -> None:
    student = LetterStudent()
    training(student, tmp_path, replace(SETTINGS, dropout=0.0)).run()
    assert student.module[1].p == 0.0


@pytest.mark.parametrize("stop", [1, 6, 7, 13])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, stop: int) -> None:
    whole, parts = LetterStudent(), LetterStudent(interrupt_at=stop)
    expected = training(whole, tmp_path / "whole", dev=accuracy).run()
    with pytest.raises(KeyboardInterrupt):
        training(parts, tmp_path / "parts", dev=accuracy).run()
    fresh = LetterStudent()
    torch.nn.init.zeros_(fresh.module[2].weight)  # whatever the weights are, the checkpoint's count
    assert training(fresh, tmp_path / "parts", dev=accuracy).run(resume=True) == expected
    assert same(weights(fresh), weights(whole))


def test_what_is_learnt_and_told(tmp_path: Path) -> None:
    student, lines = LetterStudent(), list[str]()
    before = accuracy(student)
    progress = training(student, tmp_path, dev=accuracy, say=lines.append).run()
    assert accuracy(student) == progress.best
    assert progress.best is not None
    assert progress.best > before
    assert lines[0].startswith("step 0: dev ")
    assert any("pairs/s" in line and "left" in line and "loss" in line for line in lines)


def test_the_best_weights_are_kept_also_where_those_are_the_first(tmp_path: Path) -> None:
    student = LetterStudent()
    before = weights(student)
    values = iter([0.9, 0.5, 0.6, 0.9])
    progress = training(student, tmp_path, dev=lambda student: next(values)).run()
    assert (progress.best, progress.best_step) == (0.9, 0)
    assert same(before, weights(student))


def test_patience_ends_with_the_best_weights(tmp_path: Path) -> None:
    values = iter([0.1, 0.5, 0.4, 0.4, 0.9])
    settings = replace(SETTINGS, patience=2, dev_steps=3)
    progress = training(LetterStudent(), tmp_path, settings, dev=lambda student: next(values)).run()
    assert (progress.step, progress.best, progress.best_step) == (9, 0.5, 3)


def test_changed_settings_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(LetterStudent(interrupt_at=3), tmp_path).run()
    changed = TrainSettings(seed=5, epochs=3, batch_groups=4, learning_rate=0.01, precision="fp32", negatives=2)
    with pytest.raises(UsageError) as caught:
        training(LetterStudent(), tmp_path, changed).run(resume=True)
    assert "negatives = 2 (was 1); learning_rate = 0.01 (was 0.05)" in str(caught.value)
    assert "checkpoint_minutes" not in str(caught.value)
    with pytest.raises(UsageError, match="data = "):
        Training(LetterStudent(), ready(letters(8), SETTINGS), SETTINGS, checkpoints=Checkpoints(tmp_path)).run(
            resume=True
        )
    with pytest.raises(UsageError, match=r"model = 'b' \(was None\)"):
        Training(
            LetterStudent(), ready(letters(), SETTINGS), SETTINGS, checkpoints=Checkpoints(tmp_path, {"model": "b"})
        ).run(resume=True)


def test_an_unfinished_training_is_not_overwritten_and_a_missing_one_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no checkpoint to go on from"):
        training(LetterStudent(), tmp_path / "none").run(resume=True)
    training(LetterStudent(), tmp_path).run()
    with pytest.raises(UsageError, match="an unfinished training is there"):
        training(LetterStudent(), tmp_path).run()


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=1, batch_groups=2)
    with pytest.raises(ModelError, match=r"the loss is nan at step \d+ of 12, in the batch .*q7 \(made:7\)") as caught:
        training(LetterStudent(broken="q7"), tmp_path, settings).run()
    kept = Checkpoints(tmp_path).read()
    assert all(torch.isfinite(tensor).all() for tensor in kept.tensors.values())
    step = kept.record["progress"][0]
    assert f"at step {step + 2} of" in str(caught.value)  # counted from 1; the batch before it was the last good one
    mended, whole = LetterStudent(), LetterStudent()
    training(mended, tmp_path, settings).run(resume=True)
    training(whole, tmp_path / "whole", settings).run()
    assert same(weights(mended), weights(whole))


def test_steps_that_burst_the_weights_leave_a_checkpoint_whose_loss_is_a_number(tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=1e30, warmup=0.0)
    with pytest.raises(ModelError, match=r"at step \d+ of 18"):
        training(LetterStudent(), tmp_path, settings).run()
    back = LetterStudent()
    load_weights(Checkpoints(tmp_path).read(), back.module)
    assert torch.isfinite(back.loss(make_batch(ready(letters(), settings), settings, 0)))


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(LetterStudent(interrupt_at=2), tmp_path).run()
    before = (tmp_path / "state.safetensors").read_bytes()
    with limited_files(10_000), pytest.raises(ModelError, match=r"the checkpoint cannot be written \(.*--resume"):
        training(LetterStudent(), tmp_path).run(resume=True)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    training(LetterStudent(), tmp_path).run(resume=True)
