from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.models.tiny import make_encoder, quiet
from tiercel.errors import ModelError
from tiercel.training.sources import head_of, keep_layers, load_classifier, load_encoder


@pytest.mark.parametrize(("count", "kept"), [(6, [0, 1, 2, 3, 4, 5]), (3, [0, 2, 5]), (2, [0, 5]), (1, [0])])
def test_layers_are_kept_spread_evenly(count: int, kept: list[int]) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=6, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    network = BertForSequenceClassification(config)
    before = [layer.output.dense.weight for layer in network.bert.encoder.layer]
    keep_layers(network, count, where=Path("x"))
    after = [layer.output.dense.weight for layer in network.bert.encoder.layer]
    assert [next(i for i, old in enumerate(before) if old is new) for new in after] == kept
    assert network.config.num_hidden_layers == count
    assert head_of(network) is network.classifier


def test_the_network_of_an_encoder_keeps_its_weights(encoder_folder: Path) -> None:
    network, _ = load_classifier(encoder_folder)
    theirs = load_encoder(encoder_folder)[0].model.encoder.layer[0].output.dense.weight
    assert torch.equal(network.bert.encoder.layer[0].output.dense.weight, theirs)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "encoder")
    with quiet():
        config = BertConfig.from_pretrained(folder)
        config.num_hidden_layers = 3
        config.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"its weights lack bert.encoder.layer.2"):
        load_classifier(folder)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for load in (load_encoder, load_classifier):
        with pytest.raises(ModelError, match=str(tmp_path)):
            load(tmp_path)
