"""Reranking from the shell: a stage of a pipeline, candidates on stdin, the hits of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.models.tiny import load_cross, make_cross_encoder

Refused = Callable[..., str]

TEXTS = {
    "a": "the falcon hunts in winter",
    "b": "bread is sold by the bridge",
    "c": "nobody swims in the deep river",
    "d": "the falcon swims",
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder's source folder; where it is exported to is kept beside it."""
    return make_cross_encoder(tmp_path_factory.mktemp("cross") / "tiny")


@pytest.fixture
def model(made: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(made.parent / "cache"))
    (place / "tiny").symlink_to(made)
    return "tiny"


@pytest.fixture
def corpus(place: Path) -> str:
    write_lines(place / "c.jsonl", *({"id": key, "text": text} for key, text in TEXTS.items()))
    return "c.jsonl"


def expected(made: Path, query: str, ids: str) -> list[str]:
    """The ids as sentence-transformers' CrossEncoder ranks them."""
    scores = load_cross(made).predict([(query, TEXTS[key]) for key in ids], show_progress_bar=False)
    return [key for _, key in sorted(zip((-float(score) for score in scores), ids, strict=True))]


def test_candidates_on_stdin_are_scored(run: Run, model: str, made: Path) -> None:
    line = {"query": "falcon", "documents": [{"id": key, "text": text} for key, text in TEXTS.items()]}
    stdin = f"{json.dumps(line)}\n{json.dumps({'query': 'river', 'documents': []})}\n".encode()
    outcome = run("rerank", "-", "--model", model, "--precision", "fp32", stdin=stdin)
    assert outcome.code == 0, outcome
    first, second = (json.loads(line) for line in outcome.out.splitlines())
    assert [hit["doc_id"] for hit in first["hits"]] == expected(made, "falcon", "abcd")
    assert [hit["rank"] for hit in first["hits"]] == [1, 2, 3, 4]
    assert (second["query"], second["hits"]) == ("river", [])


def test_scores_are_brought_between_0_and_1_if_asked(run: Run, model: str) -> None:
    stdin = json.dumps({"query": "falcon", "documents": list(TEXTS.values())}).encode()
    outcome = run("rerank", "-", "--model", model, "--precision", "fp32", "--score", "sigmoid", "-k", "2", stdin=stdin)
    scores = [hit["score"] for hit in outcome.json["hits"]]
    assert len(scores) == 2
    assert all(0 < score < 1 for score in scores)


def test_the_hits_of_a_run_are_reranked(run: Run, model: str, made: Path, corpus: str, place: Path) -> None:
    (place / "r.trec").write_text("q1 Q0 b 1 3 x\nq1 Q0 a 2 2 x\nq1 Q0 d 3 1 x\nq2 Q0 c 1 1 x\n")
    (place / "q.tsv").write_text("q1\tfalcon\nq2\triver\n")
    source = ["--run", "r.trec", "--queries", "q.tsv", "--corpus", corpus]
    outcome = run("rerank", *source, "--model", model, "--precision", "fp32", "--out", "new.trec")
    assert outcome.code == 0, outcome
    lines = [line.split() for line in (place / "new.trec").read_text().splitlines()]
    assert [line[2] for line in lines if line[0] == "q1"] == expected(made, "falcon", "bad")
    assert [line[2] for line in lines if line[0] == "q2"] == ["c"]


def test_documents_that_the_corpus_lacks_are_named(run: Run, model: str, corpus: str, place: Path) -> None:
    (place / "r.trec").write_text("q1 Q0 b 1 3 x\nq1 Q0 zz 2 2 x\n")
    (place / "q.tsv").write_text("q1\tfalcon\n")
    outcome = run("rerank", "--run", "r.trec", "--queries", "q.tsv", "--corpus", corpus, "--model", model,
                  "--precision", "fp32")  # fmt: skip
    assert outcome.code == 6
    assert [row.split()[2] for row in outcome.out.splitlines()] == ["b"]
    assert outcome.err.endswith("r.trec: the corpus lacks 1 documents of the run: 'zz'. The others were reranked.\n")


def test_a_pipeline_ends_with_a_cross_encoder(run: Run, model: str, made: Path, corpus: str) -> None:
    assert run("export", model, "--cross-encoder", "--precision", "int8").code == 0
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    outcome = run("search", "x", "falcon river", "-p", "bm25@3,cross:tiny@2")
    assert outcome.code == 0, outcome
    assert len(outcome.rows) == 2
    candidates = {row[2] for row in run("search", "x", "falcon river", "-k", "3").rows}
    assert {row[2] for row in outcome.rows} < candidates
    assert run("search", "x", "falcon", "-p", "bm25@3,cross:tiny@2", "--long", "max").code == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no candidates were given"),
        (["-", "--run", "r.trec"], "candidates and --run were given"),
        (["-"], "no model was named"),
        (["", "--model", "m"], "candidates of no name"),
        (["--run", "r.trec", "--model", "m"], "a run without its texts"),
        (["-", "--corpus", "c.jsonl", "--model", "m"], "--queries, --corpus, --run-format or --out without --run"),
        (["-", "--model", "m", "--long", "sum", "--score", "sigmoid"], "--long sum with --score sigmoid"),
    ],
)
def test_arguments_that_cannot_be_meant(refused: Refused, arguments: list[str], part: str) -> None:
    assert part in refused(2, "rerank", *arguments)


def test_what_was_read_and_cut_is_told(run: Run, model: str, place: Path) -> None:
    long = {"query": "falcon", "documents": [{"id": "x", "text": "the river is deep. " * 60 + "a falcon."}]}
    stdin = json.dumps(long).encode()
    cut = run("rerank", "-", "--model", model, "--precision", "fp32", stdin=stdin)
    assert cut.err.endswith("1 documents were cut to what the model reads\n")
    read = run("rerank", "-", "--model", model, "--precision", "fp32", "--long", "max", stdin=stdin)
    assert "windows a document" not in read.err
    assert " a document" in read.err
    assert "were cut" not in read.err  # windows are sized by the model's own tokens


def test_long_without_a_reranker_is_refused(refused: Refused) -> None:
    assert "--long without a stage that reranks" in refused(2, "search", "x", "falcon", "--long", "max")


def test_a_folder_without_its_vocabulary_is_refused(run: Run, made: Path, place: Path) -> None:
    shutil.copytree(made, place / "bare")
    for name in ("tokenizer.json", "vocab.txt"):
        (place / "bare" / name).unlink(missing_ok=True)
    outcome = run("export", "bare", "--cross-encoder")
    assert outcome.code == 5
    assert "no vocabulary" in outcome.err


def test_a_model_that_is_not_there_is_refused(refused: Refused, place: Path) -> None:
    assert "no model is called 'nowhere'" in refused(5, "rerank", "-", "--model", "nowhere")


def test_models_lists_what_is_there(run: Run, model: str, made: Path) -> None:
    folder = run("export", model, "--cross-encoder", "--precision", "int8").rows[2][1]
    listed = run("models", "--json").json["models"]
    (found,) = [entry for entry in listed if entry["folder"] == folder]
    assert (found["name"], found["family"], found["precision"]) == ("tiny", "cross-encoder", "int8")
    assert found["size_bytes"] == sum(path.stat().st_size for path in Path(folder).iterdir())
    rows = run("models").rows
    assert rows[0] == ["model", "family", "backend", "precision", "size", "licence", "digest", "folder"]
    row = next(row for row in rows if row[7] == folder)
    assert row[:4] == ["tiny", "cross-encoder", "onnxruntime", "int8"]
