from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import VOCABULARY, load_torch
from tests.training.made import made_group, texts_by_id
from tiercel.models.description import HEAD_FILE
from tiercel.models.pair_head import read_head
from tiercel.training.batches import batch_of, training_groups
from tiercel.training.checkpoints import Checkpoints
from tiercel.training.distil import DseStudent
from tiercel.training.groups import MinedGroup
from tiercel.training.loop import Training
from tiercel.training.settings import DistilSettings

GROUPS = [made_group(0, "who hunts", ["falcon hunts"], ["cold bread"]), made_group(1, "cold", ["winter"], ["falcon"])]


def test_stored_vectors_and_the_saved_head_give_the_scores_of_the_whole(encoder_folder: Path, tmp_path: Path) -> None:
    student = DseStudent(encoder_folder, DistilSettings(head="concat", width=8))
    student.module.eval()
    scores = student.scores(batch_of(GROUPS, texts_by_id(GROUPS)))
    student.save(tmp_path)
    head, model = read_head(tmp_path), load_torch(tmp_path)
    for group, row in zip(GROUPS, scores, strict=True):
        query = model.encode_query(group.query.text, normalize_embeddings=True)
        documents = model.encode_document([d.id for d in group.documents], normalize_embeddings=True)
        assert head.scores(query, documents).tolist() == pytest.approx(row.tolist(), abs=1e-4)


def test_the_dot_head_is_a_rising_line_over_the_cosine_and_is_not_saved(encoder_folder: Path, tmp_path: Path) -> None:
    student = DseStudent(encoder_folder, DistilSettings(head="dot"))
    u, v = torch.eye(3), torch.tensor([[0.5, 0, 0], [0, -1.0, 0], [0, 0, 1.0]])
    assert student.module["head"](u, v).tolist() == pytest.approx([2.5, -5.0, 5.0])
    student.save(tmp_path)
    assert not (tmp_path / HEAD_FILE).exists()


def taught(group: MinedGroup, *scores: float) -> MinedGroup:
    found = [replace(d, teacher=score) for d, score in zip(group.documents, scores, strict=True)]
    return replace(group, positives=found[:1], negatives=found[1:])


def train(student: DseStudent, groups: Sequence[MinedGroup], settings: DistilSettings, folder: Path) -> None:
    ready = training_groups(groups, texts_by_id(groups), settings)
    Training(student, ready, settings, checkpoints=Checkpoints(folder)).run()


def test_a_teachers_scores_are_learnt(encoder_folder: Path, tmp_path: Path) -> None:
    groups = [taught(GROUPS[0], 3.0, -2.0), taught(GROUPS[1], 1.0, -3.0)]
    settings = DistilSettings(epochs=150, learning_rate=3e-3, precision="fp32")
    student = DseStudent(encoder_folder, settings)
    train(student, groups, settings, tmp_path)
    scores = student.scores(batch_of(groups, texts_by_id(groups)))
    assert scores.flatten().tolist() == pytest.approx([3.0, -2.0, 1.0, -3.0], abs=0.5)


def test_a_random_linear_teacher_is_recovered_on_texts_that_were_not_trained_on(
    encoder_folder: Path, tmp_path: Path
) -> None:
    settings = DistilSettings(
        head="concat", width=64, epochs=20, batch_groups=16, learning_rate=3e-3, precision="fp32", max_tokens=24
    )
    student = DseStudent(encoder_folder, settings)
    torch.manual_seed(5)
    teacher = 2 * torch.randn(64)

    def of_teacher(groups: Sequence[MinedGroup]) -> Any:
        batch = batch_of(groups, texts_by_id(groups))
        with torch.no_grad():
            queries, v = student._vectors.of_batch(batch)
        u = queries[batch.owners]
        return (torch.cat([u, v, u * v, (u - v).abs()], dim=-1) @ teacher).reshape(batch.mask.shape)

    trained_on, others = random_groups(128, seed=1), random_groups(40, seed=2)
    student.module.eval()
    wanted = of_teacher(others)
    rows = of_teacher(trained_on).tolist()
    train(student, [taught(group, *row) for group, row in zip(trained_on, rows, strict=True)], settings, tmp_path)
    with torch.no_grad():
        errors = student.scores(batch_of(others, texts_by_id(others))) - wanted
    assert float(errors.square().mean() / wanted.var()) < 0.25


def random_groups(count: int, *, seed: int) -> list[MinedGroup]:
    chance, words = random.Random(seed), VOCABULARY[8:38]

    def text() -> str:
        return " ".join(chance.choices(words, k=4))

    return [made_group(number, text(), [text()], [text() for _ in range(3)]) for number in range(count)]
