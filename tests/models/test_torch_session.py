from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models.tiny import load_torch, quiet
from tiercel.errors import ModelError
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import EncoderExport
from tiercel.models.texts import SENTENCE_OUTPUT, Side, Sides, TextNetwork
from tiercel.models.torch_session import TorchSession

TEXTS = ["the falcon hunts", "bread", "in winter the river is cold and deep"]


def test_torch_runs_what_would_be_traced(bert_folder: Path, exported_fp32: ExportReport) -> None:
    export = EncoderExport(bert_folder)
    model = export.load()
    session = TorchSession(export.graph(model, masked=True), device="cpu")
    assert session.inputs == ("input_ids", "attention_mask")
    network = TextNetwork(exported_fp32.folder, Sides(Side(24), Side(24)), session, batch_tokens=30)
    with quiet():
        expected = load_torch(bert_folder).encode(TEXTS, normalize_embeddings=True)
    [results] = network.run(TEXTS, [SENTENCE_OUTPUT], query=False)
    found = np.stack([vector for (vector,) in results])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_gpu_that_is_not_there(bert_folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    export = EncoderExport(bert_folder)
    with pytest.raises(ModelError, match=r"torch finds no CUDA device\. Check the driver"):
        TorchSession(export.graph(export.load(), masked=True), device="cuda")
