from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.reranker import RerankerConformance
from tests.models.tiny import VOCABULARY, load_cross, make_cross_encoder, quiet
from tiercel.errors import ModelError, UsageError
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import ExportReport
from tiercel.models.export_cross_encoder import export
from tiercel.models.zoo import find_source, prepare_model
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
from tiercel.rerankers.long_documents import LONG_STRATEGIES, LongDocuments
from tiercel.types import DocId, Document, Query, QueryId

MAX_TOKENS = 64
QUERY = "who hunts by the river?"
TEXTS = [
    "The falcon hunts by the river.",
    "bread is sold",
    "",
    "In winter the river is cold and deep, and nobody swims. " * 12,
    "far north",
    "a small house of the tower " * 2,
]


@pytest.fixture(scope="session")
def cross_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("models") / "tiny-cross")


@pytest.fixture(scope="session")
def cross_fp32(cross_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "cross-fp32"
    return export(find_source(str(cross_folder), offline=True), target, precision="fp32")


@pytest.fixture(scope="session")
def cross_int8(cross_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    target = tmp_path_factory.mktemp("exported") / "cross-int8"
    return export(find_source(str(cross_folder), offline=True), target, precision="int8")


def _group(query: str, texts: Sequence[str], *, name: str = "q") -> CandidateGroup:
    documents = [Document(DocId(f"d{i}"), text) for i, text in enumerate(texts)]
    return CandidateGroup(Query(QueryId(name), query), documents)


def _torch(folder: Path, query: str, texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float32]:
    import torch

    model = load_cross(folder, max_tokens=max_tokens)
    with quiet():
        logits: NDArray[np.float32] = model.predict(
            [(query, text) for text in texts], activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    return logits


class _Conformance(RerankerConformance):
    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return [_group(QUERY, TEXTS), _group("cold bread", TEXTS[:2], name="r"), _group("", TEXTS[3:4], name="s")]


class TestFp32(_Conformance):
    @pytest.fixture
    def reranker(self, cross_fp32: ExportReport) -> OnnxCrossEncoder:
        return OnnxCrossEncoder(cross_fp32.folder, threads=2)


class TestInt8(_Conformance):
    @pytest.fixture
    def reranker(self, cross_int8: ExportReport) -> OnnxCrossEncoder:
        return OnnxCrossEncoder(cross_int8.folder, threads=2)


@pytest.fixture(scope="session")
def cross_openvino(cross_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    pytest.importorskip("openvino", reason="the extra tiercel[openvino] is not installed")
    target = tmp_path_factory.mktemp("exported") / "cross-openvino"
    return export(find_source(str(cross_folder), offline=True), target, precision="int8", backend="openvino")


class TestOpenVino(_Conformance):
    @pytest.fixture
    def reranker(self, cross_openvino: ExportReport) -> OnnxCrossEncoder:
        return OnnxCrossEncoder(cross_openvino.folder, threads=2)


class TestSigmoid(_Conformance):
    @pytest.fixture
    def reranker(self, cross_int8: ExportReport) -> OnnxCrossEncoder:
        return OnnxCrossEncoder(cross_int8.folder, score="sigmoid")


class TestPaddedBatches(_Conformance):
    score_tolerance = 1e-5

    @pytest.fixture
    def reranker(self, cross_fp32: ExportReport) -> OnnxCrossEncoder:
        return OnnxCrossEncoder(cross_fp32.folder, batch_tokens=150)


class TestLong(_Conformance):
    """Over the long document among the texts and the 100,000 characters of the suite, which the model alone cuts."""

    @pytest.fixture(params=LONG_STRATEGIES)
    def reranker(self, request: pytest.FixtureRequest, cross_int8: ExportReport) -> LongDocuments:
        inner = OnnxCrossEncoder(cross_int8.folder, threads=2)
        tokens = inner.tokenizer
        return LongDocuments(inner, request.param, window=tokens.room, overlap=5, pieces=tokens.count)


@pytest.mark.parametrize(
    ("architecture", "labels", "modules"),
    [
        ("bert", 1, False),
        ("bert", 2, True),
        ("roberta", 1, False),
        ("electra", 1, True),
        ("distilbert", 2, False),
        ("modernbert", 1, True),
        ("deberta", 1, False),
    ],
)
def test_fp32_gives_the_logits_of_torch(tmp_path: Path, architecture: str, labels: int, modules: bool) -> None:
    folder = make_cross_encoder(tmp_path / "source", architecture=architecture, labels=labels, modules=modules)
    report = export(find_source(str(folder), offline=True), tmp_path / "model", precision="fp32")
    reranker = OnnxCrossEncoder(report.folder, threads=2)
    expected = _torch(folder, QUERY, TEXTS, max_tokens=reranker.max_tokens)
    if labels == 2:
        expected = expected[:, 1] - expected[:, 0]
    (scores,) = reranker.score([_group(QUERY, TEXTS)])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
    assert np.ptp(scores) > 1e-3
    assert reranker.max_tokens == (MAX_TOKENS - 1 if architecture == "roberta" else MAX_TOKENS)
    assert reranker.truncated == 1
    padded = OnnxCrossEncoder(report.folder, batch_tokens=130).score([_group(QUERY, TEXTS)])[0]
    np.testing.assert_allclose(padded, expected, rtol=0, atol=1e-4)
    assert report.description.extra == {"labels": labels}
    assert report.description.parity["spearman"] > 0.999


def test_the_quality_of_int8_is_measured(cross_int8: ExportReport) -> None:
    parity = cross_int8.description.parity
    assert cross_int8.graph_parity.worst < 1e-4
    assert parity["max_score_difference"] > 0
    assert 0.8 < parity["spearman"] <= 1
    assert 0.5 < parity["top10_agreement"] <= 1
    assert parity["pairs"] == 6 * 31


def test_sigmoid_is_asked_for(cross_fp32: ExportReport) -> None:
    logit, sigmoid = (OnnxCrossEncoder(cross_fp32.folder, score=kind) for kind in ("logit", "sigmoid"))
    (logits,), (scores,) = (reranker.score([_group(QUERY, TEXTS)]) for reranker in (logit, sigmoid))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-6)
    assert scores.dtype == np.float32
    assert logit.fingerprint != sigmoid.fingerprint
    with pytest.raises(UsageError, match="score 'softmax'; expected logit or sigmoid"):
        OnnxCrossEncoder(cross_fp32.folder, score="softmax")  # type: ignore[arg-type]


def test_documents_are_cut_and_queries_only_where_they_fill_the_window(cross_fp32: ExportReport) -> None:
    reranker = OnnxCrossEncoder(cross_fp32.folder)
    assert reranker.max_tokens == MAX_TOKENS
    long, longer = "river " * 70, "river " * 90
    (scores,) = reranker.score([_group("falcon", [long, "river", longer])])
    assert (reranker.truncated, reranker.truncated_queries) == (2, 0)
    assert scores[0] == scores[2]
    (first,), (second,) = (reranker.score([_group(query, ["cold bread"])]) for query in ("river " * 60, longer))
    assert (reranker.truncated, reranker.truncated_queries) == (4, 1)
    assert first == second  # 64 tokens: three special ones, sixty of the query, one of the document


def test_title_and_text_are_scored(cross_fp32: ExportReport) -> None:
    document = Document(DocId("a"), "is cold", title="The river")
    reranker = OnnxCrossEncoder(cross_fp32.folder)
    (titled,) = reranker.score([CandidateGroup(Query(QueryId("q"), QUERY), [document])])
    assert titled == reranker.score([_group(QUERY, ["The river is cold"])])[0]


def test_more_documents_than_are_held_at_once(cross_int8: ExportReport, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiercel.rerankers import cross_encoder

    groups = [_group(QUERY, TEXTS * 40), _group("bread", TEXTS * 3)]
    whole = OnnxCrossEncoder(cross_int8.folder, threads=2).score(groups)
    monkeypatch.setattr(cross_encoder, "_SLAB_PAIRS", 100)
    reranker = OnnxCrossEncoder(cross_int8.folder)
    for first, second in zip(whole, reranker.score(groups), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(whole[0], np.tile(whole[0][: len(TEXTS)], 40))
    assert reranker.truncated == 43


def test_a_score_that_is_no_number_names_the_pair(cross_fp32: ExportReport, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker = OnnxCrossEncoder(cross_fp32.folder)
    broken = np.array([0.5, np.nan], dtype=np.float32)
    monkeypatch.setattr("tiercel.rerankers.cross_encoder.score_pairs", lambda *_, **__: broken)
    with pytest.raises(ModelError, match=r"tiny-cross: .* score nan to the pair of query 'q' and document 'd\d'"):
        reranker.score([_group(QUERY, TEXTS[:2])])


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("batch_tokens", [None, 1000])
def test_any_number_at_a_time_scores_the_same(cross_fp32: ExportReport, size: int, batch_tokens: int | None) -> None:
    texts = [*TEXTS, *(f"{text} far north" for text in TEXTS)]
    reranker = OnnxCrossEncoder(cross_fp32.folder, batch_tokens=batch_tokens)
    (together,) = reranker.score([_group(QUERY, texts)])
    parts = [reranker.score([_group(QUERY, texts[start : start + size])])[0] for start in range(0, len(texts), size)]
    np.testing.assert_allclose(np.concatenate(parts), together, rtol=0, atol=0 if batch_tokens is None else 1e-5)


def test_every_window_of_a_long_document_is_scored_as_a_document_of_its_own(cross_int8: ExportReport) -> None:
    reranker = OnnxCrossEncoder(cross_int8.folder)
    sentences = ["the falcon hunts by the river. " * 5, "bread is sold by the bridge. " * 5, "nobody swims. " * 10]
    windows = [sentence.strip() for sentence in sentences]
    (alone,) = reranker.score([_group(QUERY, windows)])
    long = LongDocuments(reranker, "max", window=45, pieces=reranker.tokenizer.count)
    (scores,) = long.score([_group(QUERY, [" ".join(windows), windows[1]])])
    assert scores.tolist() == [alone.max(), alone[1]]
    assert (long.cost.documents, long.cost.pairs, long.truncated) == (2, 4, 0)


def test_int8_is_not_padded(cross_int8: ExportReport) -> None:
    with pytest.raises(ModelError, match=r"int8 model takes one pair per run.*Export the model with precision fp32"):
        OnnxCrossEncoder(cross_int8.folder, batch_tokens=1000)


def test_another_family_is_refused(cross_fp32: ExportReport, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this model is exported as cross-encoder; expected encoder"):
        OnnxEncoder(cross_fp32.folder)
    with pytest.raises(ModelError, match="this model is exported as cross-encoder; expected encoder"):
        prepare_model(str(cross_fp32.folder), cache_dir=tmp_path, offline=True)


def test_a_model_is_prepared_once(cross_folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    folders = [
        prepare_model(
            str(cross_folder), family="cross-encoder", cache_dir=tmp_path, offline=True, progress=messages.append
        )
        for _ in range(2)
    ]
    assert folders[0] == folders[1]
    assert messages.count("Quantising to int8") == 1
    assert OnnxCrossEncoder(folders[0]).description.family == "cross-encoder"
    with pytest.raises(ModelError, match=r"modules\.json cannot be read"):  # nothing is taken for another family
        prepare_model(str(cross_folder), cache_dir=tmp_path, offline=True)


def test_changed_files_are_noticed(cross_fp32: ExportReport, tmp_path: Path) -> None:
    changed = shutil.copytree(cross_fp32.folder, tmp_path / "changed")
    with (changed / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=r"as exported\. Export the model again"):
        OnnxCrossEncoder(changed)


def test_a_machine_that_computes_other_scores_is_noticed(cross_fp32: ExportReport, tmp_path: Path) -> None:
    path = shutil.copytree(cross_fp32.folder, tmp_path / "elsewhere") / "tiercel.json"
    description = json.loads(path.read_text())
    description["probe"]["values"][1] += 1.0
    path.write_text(json.dumps(description))
    with pytest.raises(ModelError, match=r"other scores than where it was exported \(by 1\)"):
        OnnxCrossEncoder(path.parent)


def _edited(folder: Path, target: Path, **settings: Any) -> Path:
    copy = shutil.copytree(folder, target)
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return copy


def _refusal(folder: Path, target: Path) -> str:
    with pytest.raises(ModelError) as caught:
        export(find_source(str(folder), offline=True), target, precision="fp32")
    assert not target.exists()
    return str(caught.value)


def test_three_labels_are_refused(tmp_path: Path) -> None:
    folder = make_cross_encoder(tmp_path / "three", labels=3)
    assert "it has 3 labels; expected one, or two" in _refusal(folder, tmp_path / "model")


def test_missing_weights_are_refused(cross_folder: Path, tmp_path: Path) -> None:
    folder = _edited(cross_folder, tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    assert "it holds no weights; expected model.safetensors" in _refusal(folder, tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "its weights are pickled (.bin); expected safetensors" in _refusal(folder, tmp_path / "model")


def test_half_a_download_is_refused(cross_folder: Path, tmp_path: Path) -> None:
    folder = _edited(cross_folder, tmp_path / "half")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "the weights are damaged or only half there" in _refusal(folder, tmp_path / "model")


def test_a_missing_shard_is_refused(cross_folder: Path, tmp_path: Path) -> None:
    folder = _edited(cross_folder, tmp_path / "shards")
    names = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    message = "the weights model-00002-of-00002.safetensors are missing; expected the 2 files"
    assert message in _refusal(folder, tmp_path / "model")


def test_weights_without_a_head_are_refused(cross_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = _edited(cross_folder, tmp_path / "headless")
    weights = load_file(folder / "model.safetensors")
    kept = {name: values for name, values in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "its weights lack classifier.bias and 1 more" in _refusal(folder, tmp_path / "model")


def test_a_model_that_scores_nothing_is_refused(cross_folder: Path, tmp_path: Path) -> None:
    folder = _edited(cross_folder, tmp_path / "plain", architectures=["BertModel"])
    assert "its architecture is BertModel, without a head that scores pairs" in _refusal(folder, tmp_path / "model")


def test_a_folder_is_not_taken_for_another_kind(cross_folder: Path, tmp_path: Path) -> None:
    folder = make_cross_encoder(tmp_path / "saved", modules=True)
    with pytest.raises(ModelError, match="it was saved as a CrossEncoder; expected a SentenceTransformer"):
        prepare_model(str(folder), cache_dir=tmp_path, offline=True)
    sparse = shutil.copytree(cross_folder, tmp_path / "sparse")
    (sparse / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    assert "it was saved as a SparseEncoder; expected a CrossEncoder" in _refusal(sparse, tmp_path / "model")


def test_a_prompt_is_refused(tmp_path: Path) -> None:
    folder = make_cross_encoder(tmp_path / "prompted", modules=True)
    path = folder / "config_sentence_transformers.json"
    settings = {"prompts": {"ask": "ask: "}, "default_prompt_name": "ask"}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assert "it puts a prompt before its pairs (ask)" in _refusal(folder, tmp_path / "model")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "config.json cannot be read" in _refusal(tmp_path, tmp_path / "model")


def test_a_tokenizer_of_another_model_is_refused(cross_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(cross_folder, tmp_path / "wide")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["hawk"] = len(VOCABULARY)
    path.write_text(json.dumps(content))
    found = f"gives ids up to {len(VOCABULARY)}, but its embedding has {len(VOCABULARY)} rows"
    assert found in _refusal(folder, tmp_path / "model")
