from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from tiercel.errors import ModelError
from tiercel.models import runtime
from tiercel.models.export import ExportReport


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(
        ModelError, match=r"model\.onnx: onnxruntime cannot load it.*expected a valid ONNX model\. Export"
    ):
        runtime.Session(path)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx: no such file; expected an ONNX model\. Export the model again"):
        runtime.Session(tmp_path / "model.onnx")


def test_an_unknown_provider_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown provider 'abacus'; expected cpu or cuda or tensorrt"):
        runtime.Session(tmp_path / "model.onnx", provider="abacus")


@pytest.mark.skipif("cuda" in runtime.available_providers(), reason="this installation has the CUDA provider")
def test_a_provider_that_is_not_installed(exported_fp32: ExportReport) -> None:
    with pytest.raises(ModelError, match=r"'cuda' is not in this installation.*tiercel\[gpu\]"):
        runtime.Session(exported_fp32.folder / "model.onnx", provider="cuda")


def test_a_provider_that_does_not_run_is_no_fallback() -> None:
    with pytest.raises(ModelError, match="'cuda' was asked for, but CPUExecutionProvider would run"):
        runtime.require_provider("cuda", ["CPUExecutionProvider"])
    runtime.require_provider("cpu", ["CPUExecutionProvider"])


def test_wrong_feeds_name_the_inputs(exported_fp32: ExportReport) -> None:
    session = runtime.Session(exported_fp32.folder / "model.onnx")
    assert session.inputs == ("input_ids", "attention_mask")
    assert session.outputs == ("sentence_embedding", "token_embeddings")
    with pytest.raises(ModelError, match=r"did not run.*expected inputs input_ids, attention_mask"):
        session.run({"input_ids": np.ones((1, 3), dtype=np.int64)}, ["sentence_embedding"])


def test_token_embeddings_are_there_for_later_stages(exported_fp32: ExportReport) -> None:
    ids = np.ones((2, 5), dtype=np.int64)
    session = runtime.Session(exported_fp32.folder / "model.onnx")
    vectors, tokens = session.run({"input_ids": ids, "attention_mask": ids}, ["sentence_embedding", "token_embeddings"])
    assert vectors.shape == (2, 16)
    assert tokens.shape == (2, 5, 32)


def test_the_processor_is_always_available() -> None:
    assert runtime.available_providers()[0] == "cpu"


def test_two_packages_that_own_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not runtime.has_conflicting_distributions()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    assert runtime.installed_distributions() == {"onnxruntime": "1.0", "onnxruntime-gpu": "1.0"}
    assert runtime.has_conflicting_distributions()
