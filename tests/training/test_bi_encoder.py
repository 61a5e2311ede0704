from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.models.tiny import load_torch
from tests.training.made import made_group, ready, texts_by_id
from tiercel.training.batches import batch_of, make_batch
from tiercel.training.bi_encoder import BiStudent
from tiercel.training.settings import BiSettings

GROUPS = [made_group(0, "who hunts", ["falcon hunts"], ["cold bread"]), made_group(1, "cold", ["winter"], ["falcon"])]


def test_scores_are_scaled_cosines_with_the_models_own_prompts(encoder_folder: Path, tmp_path: Path) -> None:
    student = BiStudent(encoder_folder, BiSettings(scale=10.0))
    student.module.eval()
    scores = student.scores(batch_of(GROUPS, texts_by_id(GROUPS)))
    student.save(tmp_path / "saved")
    model = load_torch(tmp_path / "saved")
    for group, row in zip(GROUPS, scores, strict=True):
        query = model.encode_query(group.query.text, normalize_embeddings=True)
        documents = model.encode_document([d.id for d in group.documents], normalize_embeddings=True)
        assert row.tolist() == pytest.approx((10 * documents @ query).tolist(), abs=1e-4)


def test_the_window_of_training_is_not_the_models(encoder_folder: Path, tmp_path: Path) -> None:
    student = BiStudent(encoder_folder, BiSettings(max_tokens=8))
    long, short = ("cold river " * count for count in (40, 4))
    assert torch.equal(*(student._vectors.encode([text], query=False, device="cpu") for text in (long, short)))
    student.save(tmp_path / "saved")
    assert load_torch(tmp_path / "saved").max_seq_length == load_torch(encoder_folder).max_seq_length > 8


def test_in_batch_negatives_are_the_documents_of_other_groups(encoder_folder: Path) -> None:
    losses = []
    for in_batch in (True, False):
        settings = BiSettings(in_batch=in_batch, negatives=1)
        student = BiStudent(encoder_folder, settings)
        student.module.eval()
        batch = make_batch(ready(GROUPS, settings), settings, 0)
        losses.append(float(student.loss(batch).detach()))
    matrix = student._matrix(batch).detach()
    logs = torch.log_softmax(matrix, dim=1)
    assert losses[0] == pytest.approx(-float(logs[0, 0] + logs[1, 2]) / 2, abs=1e-4)
    own = [
        float(matrix[0, 0] - torch.logsumexp(matrix[0, :2], 0)),
        float(matrix[1, 2] - torch.logsumexp(matrix[1, 2:], 0)),
    ]
    assert losses[1] == pytest.approx(-sum(own) / 2, abs=1e-4)
    assert not math.isclose(*losses)
