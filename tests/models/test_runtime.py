from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models import runtime
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.sessions import resolved_provider


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


def test_the_processor_runs_the_smallest_graph() -> None:
    assert runtime.why_not("cpu") == ""


@pytest.mark.skipif("cuda" in runtime.available_providers(), reason="this installation has the CUDA provider")
def test_auto_says_what_it_passed_over(exported_fp32: ExportReport) -> None:
    assert runtime.best_provider() == ("cpu", "cuda: not in this installation of onnxruntime")
    told: list[str] = []
    assert resolved_provider("auto", told.append) == "cpu"
    assert told == ["provider auto: cpu (cuda: not in this installation of onnxruntime)"]
    assert resolved_provider("tensorrt", told.append) == "tensorrt"
    assert len(told) == 1
    texts = ["the falcon hunts"]
    found, expected = (
        OnnxEncoder(exported_fp32.folder, provider=provider).encode_queries(texts) for provider in ("auto", "cpu")
    )
    np.testing.assert_array_equal(found, expected)


def test_a_provider_that_starts_and_computes_wrongly_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def disable_fallback(self) -> None:
            """Nothing to do."""

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

        def run(self, names: object, feeds: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            return [feeds["x"] * 3]

    monkeypatch.setattr(runtime, "_load", lambda *arguments, **options: Wrong())
    assert runtime.why_not.__wrapped__("cpu") == "it gives 1 + 1 = 3.0"


def test_arrays_bound_to_the_device_give_the_same(exported_fp32: ExportReport) -> None:
    session = runtime.Session(exported_fp32.folder / "model.onnx")
    ids = np.arange(12, dtype=np.int64).reshape(2, 6)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    names = ["token_embeddings", "sentence_embedding"]
    for bound, plain in zip(session.run_bound(feeds, names), session.run(feeds, names), strict=True):
        np.testing.assert_array_equal(bound, plain)
