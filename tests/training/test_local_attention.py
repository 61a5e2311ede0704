from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import quiet
from tests.training.made import made_group, ready, texts_by_id
from tiercel.errors import ModelError, UsageError
from tiercel.models.local_checkpoint import load_local
from tiercel.training import local_attention
from tiercel.training.batches import Batch, batch_of, make_batch
from tiercel.training.checkpoints import Checkpoints
from tiercel.training.local_attention import LocalStudent
from tiercel.training.loop import Training
from tiercel.training.settings import LocalSettings

LONG = "the river is deep in winter and the bridge is far " * 12
GROUPS = [
    made_group(0, "who hunts", ["falcon hunts"], ["cold bread", LONG]),
    made_group(1, "cold", [f"{LONG} winter is cold"], ["falcon"]),
]


def chosen(**settings: Any) -> LocalSettings:
    return LocalSettings(**{"dimension": 16, "precision": "fp32", "batch_groups": 2, **settings})


def made(folder: Path, **settings: Any) -> LocalStudent:
    return LocalStudent(folder, chosen(**settings), ready(GROUPS, chosen(**settings)))


def batch() -> Batch:
    return batch_of(GROUPS, texts_by_id(GROUPS))


def trained(folder: Path, state: Path, **settings: Any) -> tuple[LocalStudent, Training]:
    student = made(folder, **settings)
    training = Training(
        student, ready(GROUPS, chosen(**settings)), chosen(**settings), checkpoints=Checkpoints(state, {})
    )
    training.run()
    return student, training


def test_held_vectors_score_as_those_that_are_read_anew(encoder_folder: Path) -> None:
    frozen, moving = (made(encoder_folder, frozen=frozen) for frozen in (True, False))
    with torch.no_grad():
        held, anew = (student.scores(batch()) for student in (frozen, moving))
    assert torch.allclose(held, anew, atol=0.5)  # held in float16, and logarithms of small sums are large
    assert torch.allclose(held, anew, rtol=0.01)


def test_slabs_of_documents_do_not_change_a_score(encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = made(encoder_folder)
    with torch.no_grad():
        whole = student.scores(batch())
        monkeypatch.setattr(local_attention, "_SLAB_TOKENS", 10)
        assert torch.allclose(student.scores(batch()), whole, rtol=1e-5)
    assert whole.shape == (2, 3)


def test_only_projection_and_head_learn_with_a_frozen_encoder(encoder_folder: Path, tmp_path: Path) -> None:
    before = made(encoder_folder)
    student, _ = trained(encoder_folder, tmp_path / "state", epochs=2)
    names = [name for name, _ in student.module.named_parameters()]
    assert names == ["projection.weight", "head.term", "head.saturation", "head.kernels", "head.regions"]
    for name, weight in student.module.named_parameters():
        assert not torch.equal(weight, before.module.get_parameter(name)), name
    mixer = student._model.encoder.mixer
    assert torch.equal(mixer, before._model.encoder.mixer)


def test_the_heads_numbers_learn_faster(encoder_folder: Path, tmp_path: Path) -> None:
    _, training = trained(encoder_folder, tmp_path / "state", frozen=False)
    rates = {group["lr"] for group in training._optimizer.param_groups}
    assert len(rates) == 2
    assert max(rates) == pytest.approx(10 * min(rates))


def test_it_learns_to_tell_its_groups_apart(encoder_folder: Path, tmp_path: Path) -> None:
    student, _ = trained(encoder_folder, tmp_path / "state", epochs=30, learning_rate=3e-3)
    with torch.no_grad():
        scores = student.scores(batch())
    assert scores.argmax(dim=1).tolist()[0] == 0
    assert float(scores[1, 0]) > float(scores[1, 1])


def test_a_saved_model_is_trained_on_and_scores_as_before(encoder_folder: Path, tmp_path: Path) -> None:
    student, _ = trained(encoder_folder, tmp_path / "state")
    student.save(tmp_path / "saved")
    again = made(tmp_path / "saved")
    with torch.no_grad():
        assert torch.allclose(again.scores(batch()), student.scores(batch()), rtol=1e-4)
    with quiet():
        model, _ = load_local(tmp_path / "saved")
    assert model.encoder.network.config.num_hidden_layers == 2
    with pytest.raises(UsageError, match="dimension = 8; expected 16, as it has"):
        made(tmp_path / "saved", dimension=8)


def test_documents_are_cut_to_max_tokens_and_queries_to_theirs(encoder_folder: Path) -> None:
    student = made(encoder_folder, max_tokens=50)
    assert student.lengths(ready(GROUPS, chosen())) == [50, 50]
    assert [len(ids) for ids in student._ids([LONG], query=True)] == [30]


def test_drawn_layers_keep_the_word_embeddings(encoder_folder: Path) -> None:
    kept, drawn = (made(encoder_folder, frozen=False, layers=1, fresh=fresh)._model for fresh in (False, True))
    words = [model.encoder.network.get_input_embeddings().weight for model in (kept, drawn)]
    assert torch.equal(*words)
    layers = [model.encoder.network.encoder.layer for model in (kept, drawn)]
    assert [len(stack) for stack in layers] == [1, 1]
    queries = [stack[0].attention.self.query.weight for stack in layers]
    assert not torch.equal(*queries)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fresh": True}, "fresh with frozen; expected frozen = false"),
        ({"mixer": 1.5}, r"mixer = 1.5; expected a number from 0 to 1"),
        ({"dimension": 33}, "dimension = 33; expected at most 32, the encoder's hidden size"),
        ({"dimension": 0}, "dimension = 0; expected a number above 0"),
        ({"seed": 1, "temperature": 0.0}, "temperature = 0.0; expected a number above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(encoder_folder: Path, settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(encoder_folder, **settings)


def test_more_layers_than_there_are_are_refused(encoder_folder: Path) -> None:
    with pytest.raises(ModelError, match="it has 2 layers; expected at least 3"):
        made(encoder_folder, layers=3)


def test_a_step_draws_the_same_batch_and_gives_a_gradient(encoder_folder: Path) -> None:
    student = made(encoder_folder, frozen=False)
    student.loss(make_batch(ready(GROUPS, chosen()), chosen(), 0)).backward()
    without = [name for name, weight in student.module.named_parameters() if weight.grad is None]
    assert without == []
