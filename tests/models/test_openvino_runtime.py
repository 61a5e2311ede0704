from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.encoder import TEXTS, EncoderConformance
from tiercel.config import Precision
from tiercel.errors import ModelError
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import export
from tiercel.models.zoo import find_source

pytest.importorskip("openvino", reason="the extra tiercel[openvino] is not installed")

from tiercel.models.openvino_runtime import OpenVinoSession, has_bf16


@pytest.fixture(scope="session")
def openvino_int8(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "openvino-int8"
    return export(find_source(str(bert_folder), offline=True), target, precision="int8", backend="openvino")


class TestInt8(EncoderConformance):
    @pytest.fixture
    def encoder(self, openvino_int8: ExportReport) -> OnnxEncoder:
        return OnnxEncoder(openvino_int8.folder, threads=2)


def test_alone_and_in_a_batch_are_the_same_bits(openvino_int8: ExportReport) -> None:
    alone = np.concatenate([OnnxEncoder(openvino_int8.folder).encode_documents([text]) for text in TEXTS])
    many = OnnxEncoder(openvino_int8.folder, threads=3).encode_documents([*TEXTS, *TEXTS[::-1]] * 10)
    np.testing.assert_array_equal(many, np.tile(np.concatenate([alone, alone[::-1]]), (10, 1)))


def test_the_same_graph_runs_on_both_backends(openvino_int8: ExportReport, exported_int8: ExportReport) -> None:
    graphs = [(report.folder / "model.onnx").read_bytes() for report in (openvino_int8, exported_int8)]
    assert graphs[0] == graphs[1]
    assert openvino_int8.description.backend == "openvino"
    assert openvino_int8.description.fingerprint != exported_int8.description.fingerprint
    first, second = (OnnxEncoder(r.folder).encode_documents(TEXTS) for r in (openvino_int8, exported_int8))
    np.testing.assert_allclose(first, second, atol=0.03)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_fp32_graph_runs_as_it_is(exported_fp32: ExportReport, precision: Precision) -> None:
    if precision == "bf16" and not has_bf16():
        pytest.skip("this processor does not compute in bf16")
    session = OpenVinoSession(exported_fp32.folder / "model.onnx", precision=precision, workers=2)
    assert session.inputs == ("input_ids", "attention_mask")
    assert session.outputs == ("sentence_embedding", "token_embeddings")
    ids = np.ones((2, 5), dtype=np.int64)
    feeds = {"input_ids": ids, "attention_mask": ids}
    vectors, tokens = session.run(feeds, ["sentence_embedding", "token_embeddings"])
    assert (vectors.shape, tokens.shape) == ((2, 16), (2, 5, 32))
    assert vectors.dtype == np.float32
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda _: session.run(feeds, ["sentence_embedding"])[0], range(40))
        assert all(np.array_equal(vectors, found) for found in runs)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-2)


def test_what_is_missing_is_not_taken_from_the_run_before(exported_fp32: ExportReport) -> None:
    session = OpenVinoSession(exported_fp32.folder / "model.onnx", precision="fp32")
    with pytest.raises(ModelError, match=r"it was fed input_ids\); expected inputs input_ids, attention_mask"):
        session.run({"input_ids": np.ones((1, 3), np.int64)}, ["sentence_embedding"])


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match=r"no such file; expected an ONNX model"):
        OpenVinoSession(path, precision="fp32")
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"OpenVINO cannot load it.*expected a valid ONNX model"):
        OpenVinoSession(path, precision="fp32")


_UNPLUGGED = """
import socket, sys
from pathlib import Path
def refuse(*arguments):
    raise AssertionError("a connection was opened")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import numpy
from tiercel.models.openvino_runtime import OpenVinoSession
session = OpenVinoSession(Path(sys.argv[1]), precision="fp32")
ids = numpy.ones((1, 4), numpy.int64)
session.run({"input_ids": ids, "attention_mask": ids}, ["sentence_embedding"])
"""


def test_nothing_is_sent_anywhere(exported_fp32: ExportReport) -> None:
    graph = exported_fp32.folder / "model.onnx"
    done = subprocess.run([sys.executable, "-c", _UNPLUGGED, str(graph)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
