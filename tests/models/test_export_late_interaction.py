from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.tiny import (
    load_multi_vector,
    load_torch,
    make_cross_encoder,
    make_multi_vector,
    make_stanford,
    quiet,
)
from tiercel.errors import ModelError
from tiercel.models import zoo
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.export_encoder import export as export_encoder
from tiercel.models.export_late_interaction import LateInteractionExport, export
from tiercel.models.forms import Wanted
from tiercel.models.runtime import Session
from tiercel.models.token_encoder import OnnxTokenEncoder
from tiercel.rerankers.maxsim import maxsim

QUERIES = ["who hunts?", "the cold river, and the deep house. " * 3, "", "falcon"]
DOCUMENTS = [
    "The falcon hunts by the river.",
    "bread, bread: is sold?",
    ".,?:",
    "",
    "in winter the river is cold. " * 5,
]
PUNCTUATION = [".", ",", "?", ":"]
CHECKPOINTS = Path(__file__).parent / "checkpoints"

Matrices = Sequence[NDArray[np.float32]]


def _export(folder: Path, target: Path, **options: Any) -> ExportReport:
    return export(zoo.find_source(str(folder), offline=True), target, **{"precision": "fp32"} | options)


def _torch(folder: Path) -> tuple[Matrices, Matrices]:
    """What sentence-transformers gives for the queries and documents."""
    model = load_multi_vector(folder)
    with quiet():
        queries = model.encode_query(QUERIES, convert_to_numpy=True, normalize_embeddings=True)
        return queries, model.encode_document(DOCUMENTS, convert_to_numpy=True, normalize_embeddings=True)


def _scores(queries: Matrices, documents: Matrices) -> NDArray[np.float32]:
    offsets = np.cumsum([0, *map(len, documents)])
    return np.stack([maxsim(query, np.concatenate(documents), offsets) for query in queries])


def _check_equal(report: ExportReport, expected: tuple[Matrices, Matrices]) -> None:
    """The exported model gives these matrices, alone as padded, and the same MaxSim."""
    for batch_tokens in (None, 64):
        encoder = OnnxTokenEncoder(report.folder, batch_tokens=batch_tokens)
        given = encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)
        for got, matrices in zip(given, expected, strict=True):
            for one, other in zip(got, matrices, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
        np.testing.assert_allclose(_scores(*given), _scores(*expected), rtol=0, atol=1e-4)
    assert report.graph_parity.worst < 1e-5


SOURCES: dict[str, Callable[[Path], Path]] = {
    "stanford, attended": lambda folder: make_stanford(folder, attend_to_mask_tokens=True, mask_punctuation=False),
    "filled": lambda folder: make_multi_vector(
        folder, expansion={"strategy": "fixed", "length": 12}, skipped=PUNCTUATION
    ),
    "filled, attended": lambda folder: make_multi_vector(
        folder, expansion={"strategy": "fixed", "length": 12, "attend": True, "token": "[UNK]"}
    ),
    "filled at least, without token types": lambda folder: make_multi_vector(
        folder, architecture="distilbert", expansion={"strategy": "min", "length": 6}, query_length=16
    ),
    "prompts": lambda folder: make_multi_vector(
        folder, query_length=16, skipped=PUNCTUATION, prompts={"query": "query: ", "document": "passage: "}
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_fp32_gives_the_vectors_of_sentence_transformers(source: str, tmp_path: Path) -> None:
    folder = SOURCES[source](tmp_path / "source")
    report = _export(folder, tmp_path / "model")
    _check_equal(report, _torch(folder))
    assert (report.description.family, report.description.dimension) == ("late-interaction", 8)
    assert report.description.max_tokens == 20


def test_what_a_stanford_checkpoint_declares_is_kept(tmp_path: Path) -> None:
    folder = make_stanford(tmp_path / "source")
    report = _export(folder, tmp_path / "model")
    _check_equal(report, _torch(folder))
    encoder = OnnxTokenEncoder(report.folder)
    assert (encoder.description.prompts.query, encoder.description.prompts.document) == ("[unused0] ", "[unused1] ")
    # [CLS], the marker, two words, [SEP]; the full stop is skipped.
    assert [len(matrix) for matrix in encoder.encode_documents(["the falcon."])] == [5]
    assert [len(matrix) for matrix in encoder.encode_queries(["the falcon."])] == [12]
    assert encoder.truncated == 0


@pytest.mark.parametrize("folder", ["pylate_1_2", "pylate_1_6", "stanford_0_2"])
def test_fp32_gives_the_vectors_of_the_library_that_made_it(folder: str, tmp_path: Path) -> None:
    texts = json.loads((CHECKPOINTS / folder / "texts.json").read_text(encoding="utf-8"))
    with np.load(CHECKPOINTS / folder / "vectors.npz") as vectors:
        queries = [vectors[f"query{i}"] for i in range(len(texts["queries"]))]
        documents = [vectors[f"document{i}"] for i in range(len(texts["documents"]))]
    encoder = OnnxTokenEncoder(_export(CHECKPOINTS / folder, tmp_path / "model").folder)
    given = encoder.encode_queries(texts["queries"]), encoder.encode_documents(texts["documents"])
    for one, other in zip([*given[0], *given[1]], [*queries, *documents], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    np.testing.assert_allclose(_scores(*given), _scores(queries, documents), rtol=0, atol=1e-4)


def test_int8_has_a_mask_only_where_it_is_needed(late_int8: ExportReport, bert_folder: Path) -> None:
    assert Session(late_int8.folder / "model.onnx").inputs == ("input_ids", "attention_mask")
    assert late_int8.graph_parity.worst < 1e-5
    assert 1e-6 < late_int8.description.parity["max_score_difference"] < 0.2
    plain = LateInteractionExport(bert_folder)
    plain.check_source()
    assert list(plain.graph(plain.load(), masked=False).inputs) == ["input_ids"]


def test_the_graph_gives_unit_vectors(late_fp32: ExportReport, joint_late: ExportReport) -> None:
    ids = np.ones((2, 5), dtype=np.int64)
    for report, outputs in (
        (late_fp32, ["token_embeddings"]),
        (joint_late, ["sentence_embedding", "token_embeddings"]),
    ):
        session = Session(report.folder / "model.onnx")
        assert session.outputs == tuple(outputs)
        for array in session.run({"input_ids": ids, "attention_mask": ids}, outputs):
            np.testing.assert_allclose(np.linalg.norm(array, axis=-1), 1, atol=1e-5)


def test_a_bi_encoder_gives_its_hidden_states_and_its_own_vectors(bert_folder: Path, tmp_path: Path) -> None:
    report = _export(bert_folder, tmp_path / "model")
    encoder, plain = OnnxEncoder(report.folder), load_torch(bert_folder)
    with quiet():
        vectors = plain.encode(DOCUMENTS, normalize_embeddings=True)
        states = plain.encode(DOCUMENTS, output_value="token_embeddings", convert_to_numpy=False)
    given, tokens = encoder.encode_documents_jointly(DOCUMENTS)
    np.testing.assert_allclose(given, vectors, atol=1e-5)
    for matrix, state in zip(tokens, states, strict=True):
        wide = state.numpy()
        np.testing.assert_allclose(matrix, wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=1e-5)
    assert (encoder.dimension, encoder.tokens.dimension, report.description.extra["sentence_dimension"]) == (16, 32, 16)


@pytest.mark.parametrize("as_late", [True, False])
def test_a_trained_projection_gives_both(joint_folder: Path, tmp_path: Path, as_late: bool) -> None:
    """One folder is a SentenceTransformer, a MultiVectorEncoder and, exported as either, a joint encoder."""
    write = export if as_late else export_encoder
    report = write(zoo.find_source(str(joint_folder), offline=True), tmp_path / "model", precision="fp32")
    encoder = OnnxEncoder(report.folder)
    assert (encoder.dimension, encoder.tokens.dimension) == (32, 8)
    queries, documents = _torch(joint_folder)
    for matrix, other in zip(encoder.tokens.encode_queries(QUERIES), queries, strict=True):
        np.testing.assert_allclose(matrix, other, atol=1e-4)
    vectors, tokens = encoder.encode_documents_jointly(DOCUMENTS)
    for matrix, other in zip(tokens, documents, strict=True):
        np.testing.assert_allclose(matrix, other, atol=1e-4)
    with quiet():
        model = load_torch(joint_folder)
        np.testing.assert_allclose(vectors, model.encode_document(DOCUMENTS, normalize_embeddings=True), atol=1e-5)
        expected = model.encode_query(QUERIES, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_queries(QUERIES), expected, atol=1e-5)


def test_documents_can_be_cut_shorter(late_folder: Path, late_fp32: ExportReport, tmp_path: Path) -> None:
    report = _export(late_folder, tmp_path / "model", max_tokens=7)
    encoder = OnnxTokenEncoder(report.folder)
    assert [len(matrix) for matrix in encoder.encode_documents(["river " * 30])] == [7]
    assert [len(matrix) for matrix in encoder.encode_queries(["river " * 30])] == [12]
    assert encoder.fingerprint != late_fp32.description.fingerprint
    with pytest.raises(ModelError, match="max_tokens is 999; expected at most 20, the model's own limit"):
        _export(late_folder, tmp_path / "longer", max_tokens=999)


def test_the_zoo_exports_it_once_and_tells_families_apart(bert_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache_dir": tmp_path, "wanted": Wanted("fp32"), "offline": True}
    late = zoo.prepare_model(str(bert_folder), family="late-interaction", **options)
    plain = zoo.prepare_model(str(bert_folder), **options)
    assert late != plain
    # Both serve as either: a bi-encoder has tokens, and this late-interaction model a vector of the whole text.
    assert zoo.prepare_model(str(plain), family="late-interaction", **options) == plain
    assert zoo.prepare_model(str(late), **options) == late
    assert zoo.find_exported(OnnxTokenEncoder(late).fingerprint, cache_dir=tmp_path) == late
    with pytest.raises(ModelError, match="exported as late-interaction; expected cross-encoder"):
        zoo.prepare_model(str(late), family="cross-encoder", **options)


def _refused(folder: Path, tmp_path: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        _export(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture
def copied(late_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(late_folder, tmp_path / "copied")


def test_foreign_code_is_refused(copied: Path, tmp_path: Path) -> None:
    path = copied / "modules.json"
    path.write_text(path.read_text().replace("sentence_transformers.base.modules.dense.Dense", "evil.Dense"))
    _refused(copied, tmp_path, r"needs code of its own \(evil\.Dense\)")


@pytest.mark.parametrize("place", ["", "1_Dense"])
def test_pickled_weights_are_refused(copied: Path, tmp_path: Path, place: str) -> None:
    (copied / place / "model.safetensors").rename(copied / place / "pytorch_model.bin")
    _refused(copied, tmp_path, r"weights are pickled \(\.bin\); expected safetensors")


def test_a_half_downloaded_folder_is_refused(copied: Path, tmp_path: Path) -> None:
    weights = copied / "1_Dense" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    _refused(copied, tmp_path, "damaged or only half there")
    weights.unlink()
    _refused(copied, tmp_path, "sentence-transformers cannot load it")
    (copied / "model.safetensors").unlink()
    _refused(copied, tmp_path, "it holds no weights")


def test_weights_that_lack_some_are_refused(copied: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = copied / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    _refused(copied, tmp_path, r"its weights lack encoder\.layer\.1\.output\.dense\.weight")


def test_a_folder_without_its_vocabulary_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "vocab.txt").unlink(missing_ok=True)
    _refused(copied, tmp_path, "no vocabulary of a tokenizer in it")


def test_a_stanford_folder_without_its_settings_is_refused(tmp_path: Path) -> None:
    folder = make_stanford(tmp_path / "source")
    (folder / "artifact.metadata").unlink()
    _refused(folder, tmp_path, "no artifact.metadata; expected it, which has the markers and lengths")


def test_token_vectors_that_are_not_normalised_are_refused(tmp_path: Path) -> None:
    folder = make_multi_vector(tmp_path / "source", normalized=False)
    _refused(folder, tmp_path, "does not normalise the vectors of its tokens")


def test_modules_that_the_graph_would_leave_out_are_refused(copied: Path, tmp_path: Path) -> None:
    modules = json.loads((copied / "modules.json").read_text())
    kind = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling"
    modules.append({"idx": len(modules), "name": str(len(modules)), "path": "4_Pooling", "type": kind})
    (copied / "modules.json").write_text(json.dumps(modules))
    (copied / "4_Pooling").mkdir()
    (copied / "4_Pooling" / "config.json").write_text('{"pool_factor": 2}')
    _refused(copied, tmp_path, "its module 4 is a HierarchicalTokenPooling; expected Dense or Normalize")


def test_other_kinds_of_models_are_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    _refused(copied, tmp_path, "it was saved as a SparseEncoder; expected a ColBERT, MultiVectorEncoder or Sentence")
    _refused(make_cross_encoder(tmp_path / "cross"), tmp_path, "BertForSequenceClassification, without a projection")
    _refused(tmp_path, tmp_path, r"config\.json cannot be read")
