from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.encoder import TEXTS
from tests.models.tiny import load_torch, quiet
from tiercel.errors import ModelError
from tiercel.models import export, export_encoder, runtime, zoo
from tiercel.models.description import ModelSource, is_exported
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import export as export_bi
from tiercel.models.forms import FORMS, Wanted
from tiercel.models.parity import VectorParity


def _source(folder: Path) -> ModelSource:
    return zoo.find_source(str(folder), offline=True)


def test_fp32_gives_the_vectors_of_torch(exported_fp32: ExportReport, bert_folder: Path) -> None:
    with quiet():
        expected = load_torch(bert_folder).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(OnnxEncoder(exported_fp32.folder).encode_documents(TEXTS), expected, atol=1e-5)
    assert exported_fp32.graph_parity.worst < 1e-5
    assert exported_fp32.description.parity["top10_agreement"] > 0.99


def test_a_model_without_token_types(distilbert_folder: Path, tmp_path: Path) -> None:
    with quiet():
        expected = load_torch(distilbert_folder).encode(TEXTS, normalize_embeddings=True)
    report = export_bi(_source(distilbert_folder), tmp_path / "model", precision="fp32")
    np.testing.assert_allclose(OnnxEncoder(report.folder).encode_documents(TEXTS), expected, atol=1e-5)


def test_int8_proves_the_graph_and_reports_its_own_parity(exported_int8: ExportReport) -> None:
    assert exported_int8.graph_parity.worst < 1e-5
    parity = exported_int8.description.parity
    assert 1e-6 < parity["max_similarity_difference"] < 0.2
    assert parity["texts"] == len(export.bundled_sample_texts()) + 1


def test_what_the_fuser_made_is_reported(exported_fp32: ExportReport) -> None:
    assert exported_fp32.fused["Gelu"] == 2
    assert exported_fp32.description.graph.startswith("TorchScript exporter, fused: 2 Gelu")


def test_a_graph_that_is_not_fused_is_reported(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "fuse_graph", lambda source, target: {})
    report = export_bi(_source(bert_folder), tmp_path / "model", precision="fp32")
    assert report.fused == {}
    assert report.description.graph == "TorchScript exporter, plain graph: nothing was recognised"
    assert sorted(path.name for path in report.folder.iterdir()) == ["model.onnx", "tiercel.json", "tokenizer.json"]


def test_the_newer_exporter_takes_over_when_the_first_fails(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    real: Callable[..., Any] = torch.onnx.export

    def only_dynamo(*arguments: Any, dynamo: bool, **options: Any) -> Any:
        if not dynamo:
            raise RuntimeError("TorchScript is gone")
        return real(*arguments, dynamo=True, **options)

    monkeypatch.setattr(torch.onnx, "export", only_dynamo)
    report = export_bi(_source(bert_folder), tmp_path / "model", precision="fp32")
    assert report.description.graph.startswith("dynamo exporter")
    assert report.graph_parity.worst < 1e-5


def test_the_fingerprint_tells_precision_and_limit_apart(
    exported_fp32: ExportReport, exported_int8: ExportReport, bert_folder: Path, tmp_path: Path
) -> None:
    again = export_bi(_source(bert_folder), tmp_path / "again", precision="fp32")
    shorter = export_bi(_source(bert_folder), tmp_path / "shorter", precision="fp32", max_tokens=12)
    assert again.description.fingerprint == exported_fp32.description.fingerprint
    prints = {report.description.fingerprint for report in (exported_fp32, exported_int8, shorter)}
    assert len(prints) == 3


def test_an_fp32_graph_that_differs_is_refused(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_encoder, "compare_vectors", lambda *matrices: VectorParity(61, 0.01, 0.02, 0.5, 0.5))
    with pytest.raises(ModelError, match=r"differs from torch by 0\.02; expected at most 0\.001"):
        export_bi(_source(bert_folder), tmp_path / "model", precision="fp32")
    assert list(tmp_path.iterdir()) == []


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer", "path": ""}]')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"weights are pickled \(\.bin\); expected safetensors"):
        export_bi(_source(tmp_path), tmp_path / "target", precision="fp32")


def test_foreign_modules_are_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"type": "evil.Module", "path": ""}]')
    with pytest.raises(ModelError, match=r"needs code of its own \(evil\.Module\)"):
        export_bi(_source(tmp_path), tmp_path / "target", precision="fp32")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json cannot be read.*expected a sentence-transformers folder"):
        export_bi(_source(tmp_path), tmp_path / "target", precision="fp32")


def test_a_taken_target_is_left_alone(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="exists already"):
        export_bi(_source(bert_folder), tmp_path, precision="fp32")


def test_a_limit_beyond_the_model_is_refused(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens is 999; expected at most 24, the model's own limit"):
        export_bi(_source(bert_folder), tmp_path / "model", precision="fp32", max_tokens=999)


def test_a_missing_extra_is_named(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_torch(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(ModelError, match=r"needs the package torch, which is not installed.*tiercel\[torch\]"):
        export_bi(_source(bert_folder), tmp_path / "model", precision="fp32")


_KILLED = """
import os, sys
from pathlib import Path
from tiercel.models import export, zoo
from tiercel.models.forms import Wanted
export.write_description = lambda *arguments: os._exit(9)
zoo.prepare_model(sys.argv[1], cache_dir=Path(sys.argv[2]), wanted=Wanted("fp32"), offline=True)
"""


def test_a_killed_export_leaves_no_usable_model(bert_folder: Path, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(bert_folder), str(tmp_path)], check=False)
    assert killed.returncode == 9
    target = zoo.cache_folder(_source(bert_folder), tmp_path, form=FORMS[1])
    assert not target.exists()
    (leftover,) = export.partial_folders(target)
    assert not is_exported(leftover)

    messages: list[str] = []
    found = zoo.prepare_model(
        str(bert_folder), cache_dir=tmp_path, wanted=Wanted("fp32"), offline=True, progress=messages.append
    )
    assert found == target
    assert OnnxEncoder(found).dimension == 16
    assert export.partial_folders(target) == []
    first = f"exporting tiny-bert to fp32 ONNX for onnxruntime, once; it is kept in {target}"
    assert messages[:2] == [first, "Writing the graph"]


def test_an_interrupted_export_cleans_up(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_description", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_bi(_source(bert_folder), tmp_path / "model", precision="fp32")
    assert list(tmp_path.iterdir()) == []


def test_export_is_quiet(bert_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_bi(_source(bert_folder), tmp_path / "model", precision="int8")
    assert capfd.readouterr() == ("", "")
