from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import UniModel
from tiercel.errors import ModelError
from tiercel.models.description import GRAPH_FILE, compute_fingerprint, read_description
from tiercel.models.export_uni_encoder import UniEncoderExport, export
from tiercel.models.forms import has_backend
from tiercel.models.runtime import Session
from tiercel.models.uni_checkpoint import SETTINGS_FILE, load_uni_encoder, read_uni_settings
from tiercel.models.uni_inputs import UniSettings
from tiercel.models.uni_scores import CANDIDATES_INPUT, CANDIDATES_MASK_INPUT, Pass, pass_feeds, plan_passes
from tiercel.models.zoo import find_source

ARROW = UniSettings("arrow", 3)
ONE_WAY = UniSettings()


@pytest.fixture
def one_way(uni_models: dict[str, UniModel]) -> Path:
    return uni_models["one-way"].source


@pytest.fixture(params=["one-way", "arrow"])
def model(request: pytest.FixtureRequest, uni_models: dict[str, UniModel]) -> UniModel:
    return uni_models[request.param]


@pytest.mark.parametrize("count", [1, 3, 17])
def test_the_graph_gives_the_scores_of_torch(model: UniModel, count: int) -> None:
    draw = np.random.default_rng(count)
    context = draw.integers(5, 60, 4 + count)
    feeds = pass_feeds(context, [draw.integers(5, 60, size) for size in draw.integers(2, 20, count)])
    (scores,) = Session(model.exported / GRAPH_FILE).run(feeds, ["score"])
    ids, mask = (torch.from_numpy(feeds[name])[None] for name in (CANDIDATES_INPUT, CANDIDATES_MASK_INPUT))
    with torch.no_grad():
        expected = load_uni_encoder(model.source).network(torch.from_numpy(context)[None], ids, None, mask)[0]
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=2e-5)


def test_an_export_says_how_it_reads(model: UniModel) -> None:
    about = read_description(model.exported)
    assert (about.family, about.max_tokens, about.dimension) == ("uni-encoder", 64, 0)
    assert UniSettings.of(about.extra, where="") == read_uni_settings(model.source)
    assert about.parity["max_score_difference"] < 1e-4
    assert about.parity["spearman"] > 0.999
    assert about.graph == "TorchScript exporter, fused: 2 Gelu, 5 LayerNormalization"
    for changed in ({"mask": "bow"}, {"group_size": 9}, {"context_tokens": 30}, {"candidate_tokens": 30}):
        other = dataclasses.replace(about, extra={**about.extra, **changed})
        assert compute_fingerprint(model.exported, other) != about.fingerprint


def test_int8_says_how_far_it_is(one_way: Path, tmp_path: Path) -> None:
    report = export(find_source(str(one_way), offline=True), tmp_path / "int8", precision="int8")
    assert report.graph_parity.worst < 1e-4 < report.description.parity["max_score_difference"]
    assert report.description.parity["spearman"] > 0.9


@pytest.mark.skipif(not has_backend("openvino"), reason="openvino is not installed")
def test_openvino_runs_the_graph(model: UniModel) -> None:
    from tiercel.models.openvino_runtime import OpenVinoSession

    feeds = pass_feeds(np.arange(5, 25), [np.arange(5, 5 + size) for size in (3, 9, 2)])
    (expected,) = Session(model.exported / GRAPH_FILE).run(feeds, ["score"])
    (scores,) = OpenVinoSession(model.exported / GRAPH_FILE, precision="fp32").run(feeds, ["score"])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_a_network_without_a_trained_head_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"uni_encoder\.json cannot be read .*expected a folder of a Uni-Encoder"):
        export(find_source(str(bert_folder), offline=True), tmp_path / "model", precision="fp32")
    assert not (tmp_path / "model").exists()


def test_fp16_is_refused(one_way: Path) -> None:
    with pytest.raises(ModelError, match="a Uni-Encoder has no fp16 form; expected fp32, or int8 on the CPU"):
        UniEncoderExport(one_way).check_packable()


def test_a_damaged_setting_is_refused(one_way: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(one_way, tmp_path / "damaged")
    settings = json.loads((damaged / SETTINGS_FILE).read_text())
    (damaged / SETTINGS_FILE).write_text(json.dumps(settings | {"candidate_tokens": 60}))
    with pytest.raises(ModelError, match="windows of 40 and 60 tokens; expected at most 64 together"):
        export(find_source(str(damaged), offline=True), tmp_path / "model", precision="fp32")


def test_groups_of_one_size_in_the_order_given() -> None:
    assert plan_passes([9] * 6, ARROW, pass_tokens=1) == [Pass([0, 1, 2]), Pass([3, 4, 5])]
    assert plan_passes([9] * 7, ARROW, pass_tokens=1) == [Pass([0, 1, 2]), Pass([3, 4, 5]), Pass([4, 5, 6], 2)]
    assert plan_passes([9, 2], ARROW, pass_tokens=1) == [Pass([0, 1])]
    assert plan_passes([], ARROW, pass_tokens=1) == []


def test_one_way_reads_those_of_like_length_together() -> None:
    assert plan_passes([3, 9, 4, 8], ONE_WAY, pass_tokens=18) == [Pass([1, 3]), Pass([2, 0])]
    assert plan_passes([30], ONE_WAY, pass_tokens=18) == [Pass([0])]
    assert plan_passes([], ONE_WAY, pass_tokens=18) == []


@pytest.mark.parametrize("count", range(1, 20))
def test_every_candidate_gets_one_score(count: int) -> None:
    for settings in (ARROW, ONE_WAY):
        passes = plan_passes(list(range(1, count + 1)), settings, pass_tokens=20)
        assert sorted(place for one in passes for place in one.read[one.first :]) == list(range(count))
        if settings.mask == "arrow":
            assert {len(one.read) for one in passes} == {min(count, settings.group_size)}
