"""The wiring: legs and their weights, the encoder found again by its fingerprint, and the wrong one refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Run, environment, python, write_lines
from tests.models.tiny import make_encoder
from tiercel.app import default_pipeline, make_pipeline, open_index
from tiercel.config import Settings
from tiercel.index.manifest import Manifest
from tiercel.index_settings import IndexOptions
from tiercel.indexing import Indexed, index_documents
from tiercel.retrieve.spec import parse
from tiercel.types import Query, QueryId

Refused = Callable[..., str]

DOCUMENTS = [
    {"_id": "d1", "text": "the falcon hunts in winter"},
    {"_id": "d2", "text": "bread is sold by the bridge"},
    {"_id": "d3", "text": "nobody swims in the deep river"},
    {"_id": "d4", "text": ""},
]


@dataclass(frozen=True)
class Dense:
    """An index with vectors, the cache that holds its encoder, and where the encoder's source was."""

    index: Path
    cache: Path
    source: Path
    corpus: Path
    manifest: Manifest


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Dense:
    """Exported and indexed once; the source folder is gone afterwards."""
    folder = tmp_path_factory.mktemp("dense")
    corpus = write_lines(folder / "corpus.jsonl", *DOCUMENTS)
    source = make_encoder(folder / "tiny")
    settings = Settings(cache_dir=folder / "cache", offline=True, threads=2)
    index_documents(folder / "idx", [corpus], IndexOptions(encoder=str(source)), settings=settings)
    manifest = open_index(folder / "idx").manifest
    shutil.rmtree(source)
    return Dense(folder / "idx", folder / "cache", source, corpus, manifest)


@pytest.fixture
def dense(shared: Dense, place: Path, monkeypatch: pytest.MonkeyPatch) -> Dense:
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(shared.cache))
    return shared


def _fingerprint(dense: Dense) -> str:
    assert dense.manifest.settings.encoder is not None
    return dense.manifest.settings.encoder.fingerprint


def test_the_manifest_records_the_encoder(dense: Dense, run: Run) -> None:
    encoder = run("info", str(dense.index), "--json").json["settings"]["encoder"]
    assert encoder == {
        "name": str(dense.source),
        "precision": "int8",
        "fingerprint": _fingerprint(dense),
        "dimension": 16,
        "max_tokens": 24,
    }


def test_every_leg_of_the_index_is_the_default_pipeline(dense: Dense, run: Run) -> None:
    assert str(default_pipeline(open_index(dense.index))) == "bm25+dense"
    found = run("search", str(dense.index), "falcon", "--json").json
    assert found["stage"] == "bm25+dense"
    assert {hit["doc_id"] for hit in found["hits"]} == {"d1", "d2", "d3", "d4"}


def test_the_encoder_is_found_by_its_fingerprint_without_its_source(dense: Dense, run: Run) -> None:
    assert not dense.source.exists()
    outcome = run("search", str(dense.index), "the falcon hunts in winter", "-p", "dense", "-k", "1")
    assert (outcome.code, [row[2] for row in outcome.rows]) == (0, ["d1"])


def test_a_damaged_model_beside_it_does_not_hide_the_encoder(dense: Dense, run: Run) -> None:
    other = dense.cache / "models" / "a-damaged-one"
    other.mkdir()
    (other / "tiercel.json").write_text("{")
    try:
        assert run("search", str(dense.index), "falcon", "-p", "dense").code == 0
    finally:
        shutil.rmtree(other)


def test_a_fused_score_is_the_sum_of_reciprocal_ranks_by_weight(dense: Dense, run: Run) -> None:
    query = "the falcon hunts in winter"
    ranks = {}
    for leg in ("bm25", "dense"):
        hits = run("search", str(dense.index), query, "-p", leg, "--json").json["hits"]
        ranks[leg] = {hit["doc_id"]: hit["rank"] for hit in hits}
    for pipeline, lexical, semantic in (("rrf:bm25+dense", 1.0, 1.0), ("rrf:2bm25+0.5dense", 2.0, 0.5)):
        hits = run("search", str(dense.index), query, "-p", pipeline, "--json").json["hits"]
        for hit in hits:
            expected = semantic / (60 + ranks["dense"][hit["doc_id"]])
            if hit["doc_id"] in ranks["bm25"]:
                expected += lexical / (60 + ranks["bm25"][hit["doc_id"]])
            assert hit["score"] == pytest.approx(expected)


def test_every_row_of_an_evaluation_is_a_stage_of_the_pipeline(dense: Dense, run: Run) -> None:
    Path("q.tsv").write_text("q1\tthe falcon hunts in winter\n")
    Path("qrels.txt").write_text("q1 0 d1 1\n")
    arguments = ("--queries", "q.tsv", "--qrels", "qrels.txt", "-p", "bm25+dense@2", "-p", "dense", "-m", "RR@10")
    outcome = run("eval", str(dense.index), *arguments)
    assert outcome.code == 0, outcome
    assert [row[0] for row in outcome.rows] == [
        "# bm25+dense@2", "stage", "bm25", "dense", "bm25+dense@2", "# dense", "stage", "dense",
    ]  # fmt: skip


def test_a_search_needs_neither_torch_nor_the_extra(dense: Dense, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'sentence_transformers', 'transformers', 'onnx', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "from tiercel.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    env = environment(TIERCEL_CACHE_DIR=str(dense.cache))
    outcome = python("-c", script, "search", str(dense.index), "the falcon hunts in winter", "-p", "dense", env=env)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.rows[0][2] == "d1"


def test_an_unknown_ann_is_refused_before_anything_is_made(dense: Dense, refused: Refused) -> None:
    exported = next(path for path in (dense.cache / "models").iterdir() if path.is_dir())
    message = refused(2, "index", "new", str(dense.corpus), "--encoder", str(exported), "--ann", "hsnw")
    assert "--ann 'hsnw'" in message
    assert "auto, flat, hnsw, ivf or a factory string" in message
    assert not Path("new").exists()


def test_an_exported_folder_is_an_encoder_too_and_keeps_its_precision(dense: Dense, run: Run, refused: Refused) -> None:
    exported = next(path for path in (dense.cache / "models").iterdir() if path.is_dir())
    common = (str(dense.corpus), "--encoder", str(exported))
    message = refused(5, "index", "new", *common, "--precision", "fp32")
    assert "this model is exported as int8; expected fp32" in message
    assert run("index", "new", *common).code == 0
    assert run("info", "new", "--json").json["settings"]["encoder"]["fingerprint"] == _fingerprint(dense)


def test_an_encoder_that_has_gone_is_refused_and_bm25_still_works(
    dense: Dense, run: Run, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(tmp_path / "elsewhere"))
    message = refused(5, "search", str(dense.index), "falcon")
    assert f"no model is called '{dense.source}'" in message
    assert run("search", str(dense.index), "falcon", "-p", "bm25").rows[0][2] == "d1"


def test_a_changed_encoder_is_refused_and_both_fingerprints_named(
    dense: Dense, run: Run, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(tmp_path / "fresh"))
    other = make_encoder(tmp_path / "other", architecture="distilbert")
    exported = run("export", str(other))
    assert exported.code == 0
    fingerprint = dict(exported.rows)["fingerprint"]
    assert fingerprint != _fingerprint(dense)
    pipeline = f"bm25+dense:{other}"
    message = refused(4, "search", str(dense.index), "falcon", "-p", pipeline)
    assert f"has the fingerprint {fingerprint}; expected {_fingerprint(dense)}" in message
    assert "build the index again" in message


def test_each_text_is_answered_alike_alone_and_among_others(dense: Dense) -> None:
    settings = Settings(cache_dir=dense.cache, offline=True, threads=2)
    pipeline = make_pipeline(open_index(dense.index), parse("bm25+dense"), settings=settings)
    queries = [Query(QueryId(str(i)), text) for i, text in enumerate(["falcon", "", "the", "deep river bread"])]
    together = pipeline.retrieve(queries, keep=4)
    assert [pipeline.retrieve([query], keep=4)[0] for query in queries] == together


def test_progress_is_told_and_the_count_is_right(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", *({"id": str(i), "text": f"word {i}"} for i in range(2500)))
    told: list[int] = []
    options = IndexOptions(encoder="none")
    settings = Settings(cache_dir=tmp_path / "cache", offline=True, threads=1)
    done = index_documents(tmp_path / "idx", [corpus], options, settings=settings, progress=told.append)
    assert (told[-1], done) == (2500, Indexed(added=2500, replaced=0, documents=2500))
    assert told == sorted(told)
