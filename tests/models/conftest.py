from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.tiny import make_encoder
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import export as export_encoder
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
