from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.models.tiny import make_cross_encoder, make_encoder, quiet
from tiercel.errors import ModelError
from tiercel.models.uni_checkpoint import (
    HEAD_FILE,
    SETTINGS_FILE,
    UniCheckpoint,
    is_uni_encoder,
    load_uni_encoder,
    save_uni_encoder,
)
from tiercel.models.uni_inputs import UniSettings

ARROW = UniSettings("arrow", 4, context_tokens=30, candidate_tokens=20)
IDS = torch.arange(5, 11)[None], torch.arange(5, 17).reshape(1, 3, 4)


def _scores(checkpoint: UniCheckpoint) -> list[float]:
    with torch.no_grad():
        return list(checkpoint.network(*IDS)[0].tolist())


@pytest.fixture(scope="module")
def folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved = tmp_path_factory.mktemp("uni") / "arrow"
    save_uni_encoder(load_uni_encoder(bert_folder, ARROW), saved)
    return saved


def test_what_is_saved_is_loaded_bit_for_bit(bert_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    made = load_uni_encoder(bert_folder, ARROW)
    assert not is_uni_encoder(bert_folder)
    save_uni_encoder(made, tmp_path / "saved")
    assert is_uni_encoder(tmp_path / "saved")
    again = load_uni_encoder(tmp_path / "saved")
    assert again.settings == ARROW
    assert again.network.mask == "arrow"
    assert not again.network.training
    assert _scores(again) == _scores(made)
    assert len(set(_scores(made))) == 3
    assert again.tokenizer("the falcon")["input_ids"] == made.tokenizer("the falcon")["input_ids"]


def test_a_bi_encoder_is_given_the_head_of_the_seed(bert_folder: Path) -> None:
    heads = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        heads.append(load_uni_encoder(bert_folder, ARROW).network.head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("labels", [1, 2])
def test_a_cross_encoder_keeps_its_head(tmp_path: Path, labels: int) -> None:
    with quiet():
        from transformers import BertForSequenceClassification

        source = make_cross_encoder(tmp_path / "cross", labels=labels)
        classifier = BertForSequenceClassification.from_pretrained(str(source)).classifier
    network = load_uni_encoder(source, ARROW).network
    vector = torch.randn(1, 32)
    logits = classifier(vector)
    expected = logits[:, 1:] - logits[:, :1] if labels == 2 else logits
    torch.testing.assert_close(network.head(vector), expected)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its architecture is DistilBertModel; expected BERT"):
        load_uni_encoder(make_encoder(tmp_path / "distil", architecture="distilbert"), ARROW)
    with pytest.raises(ModelError, match="it has 3 labels; expected one or two"):
        load_uni_encoder(make_cross_encoder(tmp_path / "three", labels=3), ARROW)


def test_windows_wider_than_the_positions_are_refused(bert_folder: Path) -> None:
    with pytest.raises(ModelError, match="windows of 50 and 15 tokens; expected at most 64 together"):
        load_uni_encoder(bert_folder, UniSettings(context_tokens=50, candidate_tokens=15))


def test_a_folder_without_settings_is_refused(bert_folder: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"uni_encoder\.json cannot be read .*expected a folder of a Uni-Encoder"):
        load_uni_encoder(bert_folder)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    for content, message in (
        ([], "holds no object"),
        ({"mask": "arrow"}, "a setting is missing"),
        (json.loads((folder / SETTINGS_FILE).read_text()) | {"mask": "bow"}, "mask 'bow'; expected arrow or one-way"),
    ):
        (damaged / SETTINGS_FILE).write_text(json.dumps(content))
        with pytest.raises(ModelError, match=message):
            load_uni_encoder(damaged)


def test_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    partial = shutil.copytree(folder, tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights lack encoder\.layer\.1\.output\.dense\.bias"):
        load_uni_encoder(partial)
    for name in ("model.safetensors", HEAD_FILE):
        partial = shutil.copytree(folder, tmp_path / f"without-{name}")
        (partial / name).unlink()
        with pytest.raises(ModelError, match=f"cannot load it .*{name}"):
            load_uni_encoder(partial)
