from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.encoder import TEXTS, JointEncoderConformance
from tests.conformance.token_encoder import TokenEncoderConformance
from tests.models.tiny import make_multi_vector
from tiercel.errors import ModelError
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.export_late_interaction import export
from tiercel.models.token_encoder import LoadedTokenEncoder, OnnxTokenEncoder
from tiercel.models.zoo import find_source


class TestFp32(TokenEncoderConformance):
    @pytest.fixture
    def encoder(self, late_fp32: ExportReport) -> OnnxTokenEncoder:
        return OnnxTokenEncoder(late_fp32.folder, threads=2)


class TestInt8(TokenEncoderConformance):
    @pytest.fixture
    def encoder(self, late_int8: ExportReport) -> OnnxTokenEncoder:
        return OnnxTokenEncoder(late_int8.folder, threads=2)


class TestPaddedBatches(TokenEncoderConformance):
    tolerance = 1e-5

    @pytest.fixture
    def encoder(self, late_fp32: ExportReport) -> OnnxTokenEncoder:
        return OnnxTokenEncoder(late_fp32.folder, batch_tokens=64)


class TestTokensOfAnEncoder(TokenEncoderConformance):
    @pytest.fixture
    def encoder(self, exported_int8: ExportReport) -> LoadedTokenEncoder:
        return OnnxEncoder(exported_int8.folder, threads=2).tokens


class TestJointEncoder(JointEncoderConformance):
    @pytest.fixture
    def encoder(self, joint_late: ExportReport) -> OnnxEncoder:
        return OnnxEncoder(joint_late.folder)


class TestTokensOfAJointEncoder(TokenEncoderConformance):
    @pytest.fixture
    def encoder(self, joint_late: ExportReport) -> LoadedTokenEncoder:
        return OnnxEncoder(joint_late.folder).tokens


def test_queries_are_filled_up_and_documents_are_not(late_fp32: ExportReport) -> None:
    encoder = OnnxTokenEncoder(late_fp32.folder)
    assert [len(matrix) for matrix in encoder.encode_queries(["", "the falcon", "river " * 30])] == [12, 12, 12]
    assert [len(matrix) for matrix in encoder.encode_documents(["", "the falcon", "river " * 30])] == [2, 4, 20]


def test_punctuation_is_skipped_in_documents_alone(late_fp32: ExportReport) -> None:
    encoder = OnnxTokenEncoder(late_fp32.folder)
    (plain, dotted), (bare,) = (
        encoder.encode_documents(["the falcon", "the . falcon ?"]),
        encoder.encode_documents([".,"]),
    )
    assert (len(plain), len(dotted), len(bare)) == (4, 4, 2)
    assert np.abs(plain - dotted).max() > 1e-4  # it is read all the same
    assert np.abs(np.subtract(*encoder.encode_queries(["the falcon", "the . falcon ?"]))).max() > 1e-4


def test_a_document_of_nothing_that_counts(tmp_path: Path) -> None:
    folder = make_multi_vector(tmp_path / "source", skipped=[".", ",", "[CLS]", "[SEP]"])
    report = export(find_source(str(folder), offline=True), tmp_path / "model", precision="fp32")
    encoder = OnnxTokenEncoder(report.folder)
    assert [matrix.shape for matrix in encoder.encode_documents(["., .", "", "bread."])] == [(0, 8), (0, 8), (1, 8)]
    assert [matrix.shape for matrix in encoder.encode_queries(["., .", ""])] == [(5, 8), (2, 8)]


def test_more_texts_than_are_held_at_once(late_fp32: ExportReport, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = OnnxTokenEncoder(late_fp32.folder, threads=2)
    expected = encoder.encode_documents(TEXTS)
    monkeypatch.setattr("tiercel.models.texts._SLAB_TEXTS", 2)
    for first, second in zip(encoder.encode_documents(TEXTS), expected, strict=True):
        np.testing.assert_array_equal(first, second)


def test_int8_is_not_padded_though_it_has_a_mask(late_int8: ExportReport) -> None:
    with pytest.raises(ModelError, match="int8 model takes one text per run"):
        OnnxTokenEncoder(late_int8.folder, batch_tokens=1000)


def test_the_tokens_of_a_folder_are_those_of_its_encoder(exported_fp32: ExportReport) -> None:
    apart, joint = OnnxTokenEncoder(exported_fp32.folder), OnnxEncoder(exported_fp32.folder).tokens
    assert (apart.dimension, apart.fingerprint) == (32, joint.fingerprint)
    for first, second in zip(apart.encode_queries(TEXTS), joint.encode_queries(TEXTS), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_model_without_a_vector_of_the_whole_text_is_no_encoder(late_fp32: ExportReport) -> None:
    with pytest.raises(ModelError, match="exported as late-interaction; expected encoder"):
        OnnxEncoder(late_fp32.folder)


def test_a_machine_that_computes_other_vectors_is_noticed(late_fp32: ExportReport, tmp_path: Path) -> None:
    import json
    import shutil

    path = shutil.copytree(late_fp32.folder, tmp_path / "elsewhere") / "tiercel.json"
    description = json.loads(path.read_text())
    description["probe"]["values"] = [-value for value in description["probe"]["values"]]
    path.write_text(json.dumps(description))
    with pytest.raises(ModelError, match=r"another vector than where it was exported \(cosine -1\.000\)"):
        OnnxTokenEncoder(path.parent)
