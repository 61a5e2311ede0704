from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conformance.token_encoder import TokenEncoderConformance
from tests.models.local import save_network
from tests.models.tiny import make_encoder, quiet
from tiercel.errors import ModelError
from tiercel.models import zoo
from tiercel.models.description import read_description
from tiercel.models.export_local_attention import LocalAttentionExport, export
from tiercel.models.local_attention import Geometry, head_of
from tiercel.models.local_checkpoint import load_local
from tiercel.models.token_encoder import OnnxTokenEncoder
from tiercel.protocols import TokenEncoder

LONG = "the falcon hunts by the cold river, and nobody swims in the deep bridge. " * 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("local") / "source")


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    return export(zoo.find_source(str(source), offline=True), source.parent / "fp32", precision="fp32").folder


@pytest.fixture(scope="module", params=["fp32", "int8"])
def cut(request: pytest.FixtureRequest, source: Path) -> OnnxTokenEncoder:
    found = zoo.find_source(str(source), offline=True)
    target = source.parent / f"cut-{request.param}"
    return OnnxTokenEncoder(export(found, target, precision=request.param, max_tokens=300).folder, threads=2)


class TestEncoder(TokenEncoderConformance):
    @pytest.fixture
    def encoder(self, cut: OnnxTokenEncoder) -> TokenEncoder:
        return cut


def test_it_gives_the_networks_vectors_of_every_chunk(source: Path, folder: Path) -> None:
    encoder = OnnxTokenEncoder(folder)
    with quiet(), torch.no_grad():
        model, tokenizer = load_local(source)
        ids = tokenizer(LONG, add_special_tokens=False, verbose=False)["input_ids"]
        expected = {True: model.vectors_of_queries([ids]), False: model.vectors_of_documents([ids])}
    assert len(ids) > 300
    for query, encode in ((True, encoder.encode_queries), (False, encoder.encode_documents)):
        (found,) = encode([LONG])
        assert len(found) == (30 if query else len(ids))
        np.testing.assert_allclose(found, expected[query][0][0].numpy(), atol=1e-5)


def test_there_is_a_piece_for_every_vector(folder: Path) -> None:
    encoder = OnnxTokenEncoder(folder)
    for text in (LONG, "", "falcon [SEP] river"):
        (reading,) = encoder.readings([text], query=False)
        (vectors,) = encoder.encode_documents([text])
        assert len(reading.pieces) == len(vectors)
        assert all(text[piece.start : piece.end] == piece.text for piece in reading.pieces)
        assert reading.end == len(text)


def test_the_description_has_geometry_and_head(source: Path, folder: Path) -> None:
    about = read_description(folder)
    assert (about.family, about.dimension, about.max_tokens) == ("local-attention", 8, 100_000)
    assert about.extra["frame"] == [1, 1]
    assert Geometry(**about.extra["geometry"]) == Geometry()
    with quiet():
        model, _ = load_local(source)
    for name, array in head_of(about.extra["head"]).as_json().items():
        assert array == getattr(model.head, name).tolist()
    assert about.parity["max_cosine_distance"] < 1e-5


def test_the_fingerprint_is_that_of_head_and_geometry_too(source: Path, folder: Path, tmp_path: Path) -> None:
    other = save_network(tmp_path / "source", Geometry(window=20))
    again = export(zoo.find_source(str(other), offline=True), tmp_path / "model", precision="fp32")
    assert again.description.fingerprint != read_description(folder).fingerprint


def test_what_is_no_such_model_is_refused(tmp_path: Path, source: Path) -> None:
    encoder = make_encoder(tmp_path / "encoder")
    with pytest.raises(ModelError, match="it is no local-attention model"):
        export(zoo.find_source(str(encoder), offline=True), tmp_path / "x", precision="fp32")
    with pytest.raises(ModelError, match="local attention in fp16; expected precision fp32 on a GPU"):
        LocalAttentionExport(source).check_packable()


def test_a_damaged_description_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "tiercel.json"
    record = json.loads(path.read_text())
    record["extra"]["geometry"]["stride"] = 4
    path.write_text(json.dumps(record))
    with pytest.raises(ModelError, match="its files have the fingerprint"):
        OnnxTokenEncoder(tmp_path / "copy")
