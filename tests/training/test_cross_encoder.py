from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.tiny import load_cross
from tests.training.made import made_group, ready, texts_by_id
from tiercel.errors import InputError, ModelError
from tiercel.models.description import ModelSource
from tiercel.models.export_cross_encoder import export
from tiercel.models.zoo import find_source
from tiercel.training.batches import batch_of
from tiercel.training.cross_encoder import CrossStudent
from tiercel.training.groups import MinedGroup
from tiercel.training.settings import CrossSettings

GROUPS = [
    made_group(0, "who hunts", ["falcon hunts"], ["cold bread", "the river is deep in winter"]),
    made_group(1, "cold", ["winter is cold"], ["falcon"]),
]


def scored(group: MinedGroup, *scores: dict[str, float]) -> MinedGroup:
    found = [replace(d, scores=given) for d, given in zip(group.documents, scores, strict=True)]
    return replace(group, positives=found[:1], negatives=found[1:], floors={"bm25": 1.0, "dense": 0.1})


SCORED = [
    scored(GROUPS[0], {"bm25": 9.0, "dense": 0.5}, {"bm25": 4.0}, {"dense": 0.4}),
    scored(GROUPS[1], {"bm25": 2.0, "dense": 0.3}, {"bm25": 3.0}),
]


def test_scores_are_those_of_sentence_transformers_before_and_after_saving(cross_folder: Path, tmp_path: Path) -> None:
    student = CrossStudent(cross_folder, CrossSettings(), ready(GROUPS, CrossSettings()))
    student.module.eval()
    scores = student.scores(batch_of(GROUPS, texts_by_id(GROUPS)))
    student.save(tmp_path / "saved")
    pairs = [(group.query.text, document.id) for group in GROUPS for document in group.documents]
    for folder in (cross_folder, tmp_path / "saved"):
        theirs = load_cross(folder).predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        assert scores.flatten()[:5].tolist() == pytest.approx(theirs.tolist(), abs=1e-4)
    assert scores[1, 2].item() == 0.0


def test_a_saved_model_is_exported(cross_folder: Path, tmp_path: Path) -> None:
    settings = CrossSettings(layers=1, max_tokens=20)
    student = CrossStudent(cross_folder, settings, ready(GROUPS, settings))
    student.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["num_hidden_layers"] == 1
    source: ModelSource = find_source(str(tmp_path / "saved"), offline=True, family="cross-encoder")
    export(source, tmp_path / "onnx", precision="fp32")
    assert (tmp_path / "onnx" / "model.onnx").is_file()


def test_an_encoder_is_given_a_head_by_the_seed(encoder_folder: Path) -> None:
    heads = [
        CrossStudent(encoder_folder, settings, ready(GROUPS, settings)).module["network"].classifier.weight
        for settings in (CrossSettings(seed=1), CrossSettings(seed=1), CrossSettings(seed=2))
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_too_many_layers_are_refused(cross_folder: Path) -> None:
    settings = CrossSettings(layers=3)
    with pytest.raises(ModelError, match="it has 2 layers; expected at least 3"):
        CrossStudent(cross_folder, settings, ready(GROUPS, settings))


def test_a_residual_model_starts_with_the_ranking_of_the_stage_before(cross_folder: Path) -> None:
    settings = CrossSettings(residual="bm25")
    student = CrossStudent(cross_folder, settings, ready(SCORED, settings))
    student.module.eval()
    scores = student.scores(batch_of(SCORED, texts_by_id(SCORED)))
    assert scores[0].argsort(descending=True).tolist() == [0, 1, 2]
    assert scores[1, 1].item() > scores[1, 0].item()  # as BM25 had it, though the label says otherwise
    weight, bias = (float(value) for value in (student.module["before"].weight, student.module["before"].bias))
    # Document 3 of the first group was not found by BM25: its floor, 1, stands for it.
    assert scores[0].tolist() == pytest.approx([bias + weight * score for score in (9.0, 4.0, 1.0)], abs=1e-5)
    assert weight > 0


def test_a_saved_residual_model_is_added_to_the_scores_of_the_stage_before(cross_folder: Path, tmp_path: Path) -> None:
    settings = CrossSettings(residual="bm25")
    student = CrossStudent(cross_folder, settings, ready(SCORED, settings))
    student.module["before"].weight.fill_(0.25)
    student.module["before"].bias.fill_(3.0)
    torch.nn.init.normal_(student.module["network"].classifier.weight, generator=torch.Generator().manual_seed(0))
    student.module.eval()
    scores = student.scores(batch_of(SCORED, texts_by_id(SCORED)))[0].tolist()
    student.save(tmp_path)
    pairs = [(SCORED[0].query.text, document.id) for document in SCORED[0].documents]
    corrections = load_cross(tmp_path).predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    added = [before + correction for before, correction in zip((9.0, 4.0, 1.0), corrections.tolist(), strict=True)]
    assert [0.25 * score + 3.0 for score in added] == pytest.approx(scores, abs=1e-4)


def test_the_weight_of_a_stage_that_is_right_is_larger(cross_folder: Path) -> None:
    def weight(groups: list[MinedGroup]) -> float:
        settings = CrossSettings(residual="bm25")
        return float(CrossStudent(cross_folder, settings, ready(groups, settings)).module["before"].weight)

    assert weight([SCORED[0]] * 3 + [SCORED[1]]) > weight([SCORED[0]] + [SCORED[1]] * 3) > 0


def test_the_first_step_moves_the_head_and_later_steps_the_network(cross_folder: Path) -> None:
    settings = CrossSettings(residual="bm25")
    student = CrossStudent(cross_folder, settings, ready(SCORED, settings))
    batch = batch_of(SCORED, texts_by_id(SCORED))
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    student.loss(replace(batch, labels=labels)).backward()
    assert float(student.module["network"].classifier.weight.grad.norm()) > 0
    assert not list(student.module["before"].parameters())


def test_a_stage_that_no_group_knows_is_refused(cross_folder: Path) -> None:
    settings = CrossSettings(residual="late")
    with pytest.raises(InputError, match="no group has a score of 'late'; expected one of bm25, dense"):
        CrossStudent(cross_folder, settings, ready(SCORED, settings))
    bare = replace(GROUPS[1], where="g:2")
    with pytest.raises(InputError, match=r"g:2: no score of 'bm25'"):
        CrossStudent(
            cross_folder, CrossSettings(residual="bm25"), ready([SCORED[0], bare], CrossSettings(residual="bm25"))
        )
