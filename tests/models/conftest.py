from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import make_encoder, make_joint_encoder, make_multi_vector
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import export as export_encoder
from tiercel.models.export_late_interaction import export as export_late
from tiercel.models.zoo import find_source


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def distilbert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("models") / "tiny-distilbert", architecture="distilbert")


@pytest.fixture(scope="session")
def prompted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("models") / "tiny-prompted", prompts=True)


@pytest.fixture(scope="session")
def exported_fp32(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "fp32"
    return export_encoder(find_source(str(bert_folder), offline=True), target, precision="fp32")


@pytest.fixture(scope="session")
def exported_int8(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "int8"
    return export_encoder(find_source(str(bert_folder), offline=True), target, precision="int8")


@pytest.fixture(scope="session")
def late_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries of exactly 12 tokens, the last of them masks that nobody attends to; punctuation is skipped."""
    folder = tmp_path_factory.mktemp("models") / "tiny-late"
    return make_multi_vector(folder, expansion={"strategy": "fixed", "length": 12}, skipped=[".", ",", "?", ":"])


@pytest.fixture(scope="session")
def late_fp32(late_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "late-fp32"
    return export_late(find_source(str(late_folder), offline=True), target, precision="fp32")


@pytest.fixture(scope="session")
def late_int8(late_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "late-int8"
    return export_late(find_source(str(late_folder), offline=True), target, precision="int8")


@pytest.fixture(scope="session")
def joint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_joint_encoder(tmp_path_factory.mktemp("models") / "tiny-joint")


@pytest.fixture(scope="session")
def joint_late(joint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The joint encoder, exported as a late-interaction model."""
    target = tmp_path_factory.mktemp("exported") / "joint-late"
    return export_late(find_source(str(joint_folder), offline=True), target, precision="fp32")
