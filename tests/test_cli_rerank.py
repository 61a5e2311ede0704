"""Reranking from the shell: a stage of a pipeline, candidates on stdin, the hits of a run."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import Run, environment, on_terminal, write_lines
from tests.models.tiny import VOCABULARY, load_cross, make_cross_encoder
from tiercel.models.runtime import available_providers
from tiercel.rerankers.long_documents import LONG_STRATEGIES

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
def exported(run: Run, model: str) -> str:
    """The folder of the exported model, so that no command has that to do first and to tell."""
    return run("export", model, "--family", "cross-encoder", "--precision", "fp32").rows[2][1]


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


def test_what_could_be_done_is_written(run: Run, exported: str, corpus: str, place: Path) -> None:
    (place / "r.trec").write_text("q1 Q0 zz 1 3 x\nq1 Q0 b 2 2 x\nq2 Q0 yy 1 1 x\n")
    (place / "q.tsv").write_text("q1\tfalcon\nq2\triver\n")
    outcome = run("rerank", "--run", "r.trec", "--queries", "q.tsv", "--corpus", corpus, "--model", exported, "--out",
                  "o.jsonl")  # fmt: skip
    assert outcome.code == 6
    assert outcome.err.endswith("lacks 2 documents of the run: 'zz', 'yy'. The others were reranked.\n")
    lines = [json.loads(line) for line in (place / "o.jsonl").read_text().splitlines()]
    assert [[hit["doc_id"] for hit in line["hits"]] for line in lines] == [["b"], []]
    assert not list(place.glob("*.partial*"))


def test_a_pipeline_ends_with_a_cross_encoder(run: Run, model: str, made: Path, corpus: str) -> None:
    assert run("export", model, "--family", "cross-encoder", "--precision", "int8").code == 0
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    outcome = run("search", "x", "falcon river", "-p", "bm25@3,cross:tiny@2")
    assert outcome.code == 0, outcome
    assert len(outcome.rows) == 2
    candidates = {row[2] for row in run("search", "x", "falcon river", "-k", "3").rows}
    assert {row[2] for row in outcome.rows} < candidates
    assert run("search", "x", "falcon", "-p", "bm25@3,cross:tiny@2", "--long", "max").code == 0


OF_RUNS = [
    ["--run-format", "trec"], ["--queries", "q.tsv"], ["--query-format", "tsv"], ["--query-id-field", "k"],
    ["--query-text-field", "k"], ["--corpus", "c.jsonl"], ["--format", "tsv"], ["--id-field", "k"],
    ["--text-field", "k"], ["--title-field", "k"], ["--out", "o.trec"], ["--out-format", "trec"], ["--restart"],
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no candidates were given"),
        (["-", "--run", "r.trec"], "candidates and --run were given"),
        (["-"], "no model was named"),
        (["", "--model", "m"], "candidates of no name"),
        (["--run", "r.trec", "--model", "m"], "a run without its texts"),
        *((["-", *option, "--model", "m"], "an option about runs without --run") for option in OF_RUNS),
        (["--run", "-", "--queries", "-", "--corpus", "c", "--model", "m"], "standard input (-) named twice"),
        (["--run", "r", "--queries", "q", "--corpus", "c", "--model", "m", "--out", "o"], "with --out-format, or give"),
        (["-", "--model", "m", "--overlap", "9"], "--overlap with --long match; expected max, sum or top3"),
        (["-", "--model", "m", "--overlap", "9", "--long", "extract"], "--overlap with --long extract"),
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
    for pipeline in ([], ["-p", "bm25,late"]):
        message = refused(2, "search", "x", "falcon", "--long", "max", *pipeline)
        assert "--long without a stage that heeds it; expected cross among the stages of --pipeline" in message


def test_a_folder_without_its_vocabulary_is_refused(run: Run, made: Path, place: Path) -> None:
    shutil.copytree(made, place / "bare")
    for name in ("tokenizer.json", "vocab.txt"):
        (place / "bare" / name).unlink(missing_ok=True)
    outcome = run("export", "bare", "--family", "cross-encoder")
    assert outcome.code == 5
    assert "no vocabulary" in outcome.err


def test_what_a_family_asks_for_is_told(run: Run, refused: Refused, made: Path) -> None:
    outcome = run("export", str(made), "--family", "late-interaction")
    assert outcome.code == 5
    assert "without a projection of tokens" in outcome.err
    assert "--family" in run("export", str(made), "--family", "nonsense").err


def test_a_model_that_is_not_there_is_refused(refused: Refused, run: Run, place: Path) -> None:
    assert "no model is called 'nowhere'" in refused(5, "rerank", "-", "--model", "nowhere")
    assert "no model is called './nowhere'" in refused(5, "rerank", "-", "--model", "./nowhere")
    (place / "empty").mkdir()
    outcome = run("rerank", "-", "--model", "empty")
    assert outcome.code == 5
    assert "config.json cannot be read" in outcome.err


def write_run(place: Path) -> list[str]:
    """Two queries and their hits; the arguments that name them, but for the corpus."""
    (place / "r.trec").write_text("q1 Q0 b 1 3 x\nq1 Q0 a 2 2 x\nq1 Q0 d 3 1 x\nq2 Q0 c 1 1 x\n")
    (place / "q.tsv").write_text("q1\tfalcon\nq2\triver\nq3\tnot in the run\n")
    return ["--run", "r.trec", "--queries", "q.tsv"]


def test_candidates_keep_what_they_came_with(run: Run, model: str) -> None:
    first = {"_id": "x", "title": "T", "text": TEXTS["a"], "score": 12.5, "year": 2021, "metadata": {"lang": "en"}}
    line = {"query_id": "q7", "query": "falcon", "documents": [first, {"text": TEXTS["b"]}, TEXTS["c"]]}
    stdin = json.dumps(line).encode()
    outcome = run("rerank", "-", "--model", model, "--precision", "fp32", stdin=stdin)
    assert (outcome.json["query_id"], outcome.json["query"], outcome.json["stage"]) == ("q7", "falcon", "rerank")
    hits = {hit["doc_id"]: hit for hit in outcome.json["hits"]}
    assert list(hits["x"]) == ["rank", "doc_id", "score", "retrieval_score", "title", "text", "metadata"]
    assert (hits["x"]["retrieval_score"], hits["x"]["title"], hits["x"]["text"]) == (12.5, "T", TEXTS["a"])
    assert hits["x"]["metadata"] == {"year": 2021, "lang": "en"}
    assert list(hits["1"]) == list(hits["2"]) == ["rank", "doc_id", "score", "title", "text"]


def test_what_search_prints_can_be_reranked(run: Run, model: str, corpus: str) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    found = run("search", "x", "falcon river", "-k", "3", "--json")
    outcome = run("rerank", "-", "--model", model, "--precision", "fp32", stdin=found.out.encode())
    assert outcome.code == 0, outcome
    of_search = {hit["doc_id"]: hit["score"] for hit in found.json["hits"]}
    assert {hit["doc_id"]: hit["retrieval_score"] for hit in outcome.json["hits"]} == of_search
    cascade = run("search", "x", "falcon river", "-p", "bm25@3,cross:tiny@3", "--precision", "fp32", "--json").json
    ours = [{key: value for key, value in hit.items() if key != "retrieval_score"} for hit in outcome.json["hits"]]
    assert ours == cascade["hits"]


def test_forms_and_fields_can_be_told(run: Run, model: str, place: Path) -> None:
    (place / "r").write_text("q1\tb\t1\nq1\ta\t2\n")
    write_lines(place / "q", {"key": "q1", "ask": "falcon"})
    write_lines(place / "c", *({"key": key, "body": "", "content": text, "head": "T"} for key, text in TEXTS.items()))
    outcome = run(
        "rerank", "--model", model, "--precision", "fp32", "--run", "r", "--run-format", "msmarco", "--queries", "q",
        "--query-format", "jsonl", "--query-id-field", "key", "--query-text-field", "ask", "--corpus", "c", "--format",
        "jsonl", "--id-field", "key", "--text-field", "content", "--title-field", "head", "--out", "o",
        "--out-format", "jsonl",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    found = json.loads((place / "o").read_text())
    assert (found["query_id"], found["query"], found["stage"]) == ("q1", "falcon", "rerank")
    assert {hit["doc_id"]: hit["retrieval_score"] for hit in found["hits"]} == {"b": 2.0, "a": 1.0}
    titled = {"query": "falcon", "documents": [{"id": key, "title": "T", "text": TEXTS[key]} for key in "ba"]}
    stdin = json.dumps(titled).encode()
    scores = run("rerank", "-", "--model", model, "--precision", "fp32", stdin=stdin).json["hits"]
    assert [(hit["doc_id"], hit["score"]) for hit in found["hits"]] == [(hit["doc_id"], hit["score"]) for hit in scores]


def test_an_index_can_be_the_corpus(run: Run, model: str, corpus: str, place: Path) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    of_run = ["rerank", *write_run(place), "--model", model, "--precision", "fp32"]
    assert run(*of_run, "--corpus", "x", "--out", "a.jsonl").code == 0
    assert run(*of_run, "--corpus", corpus, "--out", "b.jsonl").code == 0
    assert (place / "a.jsonl").read_bytes() == (place / "b.jsonl").read_bytes()


def test_a_killed_command_is_gone_on_with(run: Run, exported: str, corpus: str, place: Path) -> None:
    (place / "q.tsv").write_text("".join(f"q{number}\tfalcon river {number}\n" for number in range(2500)))
    (place / "r.trec").write_text(
        "".join(
            f"q{number} Q0 {key} {rank} {-rank} x\n" for number in range(2500) for rank, key in enumerate("abcd", 1)
        )
    )
    of_run = ["rerank", "--run", "r.trec", "--queries", "q.tsv", "--corpus", corpus, "--model", exported, "--out"]
    assert run(*of_run, "whole.trec").code == 0
    partial = place / "o.trec.partial"
    command = [sys.executable, "-m", "tiercel.cli", *of_run, "o.trec"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 3):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (place / "o.trec").exists()
    other = run(*of_run, "o.trec", "-k", "2")
    assert other.code == 3
    assert other.err.startswith("tiercel: o.trec.partial: it was begun with -k 1000; expected -k 2. Give the command")
    outcome = run(*of_run, "o.trec")
    assert outcome.code == 0, outcome
    assert re.match(r"tiercel: \d+ of 2500 queries were done before; .*o\.trec\.partial has them\n$", outcome.err)
    assert (place / "o.trec").read_bytes() == (place / "whole.trec").read_bytes()
    assert not partial.exists()


def test_progress_is_told_on_a_terminal(run: Run, exported: str, corpus: str, place: Path) -> None:
    of_run = ["rerank", *write_run(place), "--corpus", corpus, "--model", exported, "--out", "o.trec"]
    code, sent = on_terminal(of_run, NO_COLOR="1")
    assert code == 0
    assert re.search(r"reranking .* 2/2 queries .* pairs/s, 0:00:00 left", sent)
    assert run(*of_run).err == ""


def test_an_interrupt_says_how_to_go_on(exported: str, corpus: str, place: Path) -> None:
    (place / "q.tsv").write_text("".join(f"q{number}\tfalcon river {number}\n" for number in range(2500)))
    (place / "r.trec").write_text("".join(f"q{n} Q0 {key} 1 1 x\n" for n in range(2500) for key in "abcd"))
    command = [
        sys.executable, "-m", "tiercel.cli", "rerank", "--run", "r.trec", "--queries", "q.tsv", "--corpus", corpus,
        "--model", exported, "--out", "o.trec",
    ]  # fmt: skip
    partial = place / "o.trec.partial"
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 2):  # one counts
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode().splitlines()
    assert process.returncode == 130
    assert said[-1] == "tiercel: interrupted"
    assert said[-2].endswith("o.trec.partial; the same command goes on from there")


@pytest.mark.parametrize("documents", [[], [""], [TEXTS["a"]], [{"id": "x", "text": "falcon river " * 8000}]])
def test_candidates_of_every_size(run: Run, model: str, documents: list[object]) -> None:
    stdin = json.dumps({"query": "falcon", "documents": documents}).encode()
    for long in LONG_STRATEGIES:
        outcome = run("rerank", "-", "--model", model, "--precision", "fp32", "--long", long, stdin=stdin)
        assert outcome.code == 0, outcome
        assert len(outcome.json["hits"]) == len(documents)
        assert all(math.isfinite(hit["score"]) for hit in outcome.json["hits"])


@pytest.mark.parametrize(
    ("stdin", "part"),
    [
        (b'{"query": "q", "documents": ["caf\xe9"]}', "<stdin>:1: byte 0xe9 is not UTF-8"),
        (
            b'{"query": "q", "documents": [{"id": "a", "text": ""}, {"id": "a", "text": ""}]}',
            "document 'a' a second time",
        ),
        (b'{"query": "q", "documents": [{"text": "", "score": "x"}]}', "the string 'x' as 'score'"),
        (b'{"query": "q"}', "no 'documents'; expected a list"),
        (b"q\tfalcon", "this is not JSON"),
    ],
)
def test_candidates_that_cannot_be_read(refused: Refused, exported: str, stdin: bytes, part: str) -> None:
    assert part in refused(3, "rerank", "-", "--model", exported, stdin=stdin)


def test_files_that_cannot_be_read_or_written(refused: Refused, exported: str, corpus: str, place: Path) -> None:
    of_run, chosen = write_run(place), ["--model", exported]
    (place / "folder").mkdir()
    (place / "bad.tsv").write_bytes(b"q1\tcaf\xe9\n")
    (place / "few.tsv").write_text("q2\triver\n")
    (place / "empty.trec").write_text("")
    for code, arguments, part in (
        (3, ["folder"], "folder: this is a folder; expected a file"),
        (3, ["nowhere.jsonl"], "nowhere.jsonl: there is no such file"),
        (3, ["--run", "folder", *of_run[2:], "--corpus", corpus], "folder: this is a folder; expected a file"),
        (3, ["--run", "empty.trec", *of_run[2:], "--corpus", corpus], "empty.trec: there is no ranking in it"),
        (3, [*of_run[:2], "--queries", "bad.tsv", "--corpus", corpus], "bad.tsv:1: byte 0xe9 is not UTF-8"),
        (
            3,
            [*of_run[:2], "--queries", "few.tsv", "--corpus", corpus],
            "no text for the query 'q1' of the run; expected",
        ),
        (3, [*of_run, "--corpus", corpus, "--out", "folder", "--out-format", "trec"], "folder: this is a folder"),
        (3, [*of_run, "--corpus", corpus, "--out", "no/o.trec"], "no/o.trec: its folder does not exist"),
    ):
        assert part in refused(code, "rerank", *arguments, *chosen)
    assert not list(place.glob("*.partial*"))


def test_no_hits_are_kept_of_nothing(run: Run, place: Path) -> None:
    outcome = run("rerank", "-", "--model", "m", "-k", "0")
    assert outcome.code == 2
    assert "Invalid value for '-k': Input should be greater than or equal to 1" in outcome.err


def test_checkpoints_that_cannot_be_used(run: Run, made: Path, place: Path) -> None:
    def broken(name: str, change: Callable[[Path], object]) -> str:
        folder = shutil.copytree(made, place / name)
        change(folder)
        stdin = json.dumps({"query": "falcon", "documents": ["river"]}).encode()
        outcome = run("rerank", "-", "--model", name, "--precision", "fp32", stdin=stdin)
        assert (outcome.code, outcome.out) == (5, ""), outcome
        return outcome.err.splitlines()[-1]

    def shard(folder: Path) -> None:
        names = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))

    def half(folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])

    def wide(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["vocab"]["hawk"] = len(VOCABULARY)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    assert "the weights model-00002-of-00002.safetensors are missing" in broken("shards", shard)
    assert "the weights are damaged or only half there" in broken("half", half)
    assert "its embedding has" in broken("wide", wide)
    make_cross_encoder(place / "three-source", labels=3)
    outcome = run("rerank", "-", "--model", "three-source", "--precision", "fp32")
    assert outcome.code == 5
    assert "it has 3 labels; expected one, or two" in outcome.err


def test_an_export_that_was_cut_short(refused: Refused, exported: str, place: Path) -> None:
    folder = shutil.copytree(exported, place / "short")
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    assert "as exported. Export the model again" in refused(5, "rerank", "-", "--model", "short")
    graph.unlink()
    assert "model.onnx: cannot be read (No such file or directory)" in refused(5, "rerank", "-", "--model", "short")


def test_a_graph_that_gives_no_number_names_the_pair(run: Run, model: str, place: Path) -> None:
    """Weights that overflow for one word alone, so that the pair of the probe is none of them."""
    source = shutil.copytree(place / model, place / "overflowing")
    weights = load_file(source / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    changed = {key: value.copy() for key, value in weights.items()}
    changed[name][VOCABULARY.index("tower")] = np.nan
    save_file(changed, source / "model.safetensors", metadata={"format": "pt"})
    line = {
        "query_id": "q1",
        "query": "falcon",
        "documents": [{"id": "a", "text": "river"}, {"id": "b", "text": "a tower"}],
    }
    stdin = json.dumps(line).encode()
    outcome = run("rerank", "-", "--model", "overflowing", "--precision", "fp32", stdin=stdin)
    assert (outcome.code, outcome.out) == (5, ""), outcome
    assert "overflowing: the model gave the score nan to the pair of query 'q1' and document 'b'" in outcome.err


@pytest.mark.skipif("cuda" in available_providers(), reason="there is one here")
def test_a_provider_that_is_not_there(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_PROVIDER", "cuda")
    stdin = json.dumps({"query": "falcon", "documents": ["river"]}).encode()
    outcome = run("rerank", "-", "--model", model, stdin=stdin)
    assert (outcome.code, outcome.out) == (5, "")
    assert "the provider 'cuda' is not in this installation of onnxruntime" in outcome.err
    assert "tiercel[gpu]" in outcome.err


@pytest.mark.parametrize("long", ["max", "sum", "top3", "extract"])
def test_every_strategy_tells_its_cost(run: Run, model: str, long: str) -> None:
    # 81 words and marks of the document; the model reads 64 pieces, 3 of them special and 1 of the query.
    text = "The river is deep. " * 15 + "A falcon hunts far north."
    stdin = json.dumps({"query": "falcon", "documents": [text]}).encode()
    chosen = ["rerank", "-", "--model", model, "--precision", "fp32", "--long", long]
    plain = run(*chosen, stdin=stdin)
    windows = 1 if long == "extract" else 2
    assert re.search(rf"tiercel: \d+ tokens in {windows} windows, {windows}\.0 a document\n$", plain.err), plain.err
    if long != "extract":
        lapped = run(*chosen, "--overlap", "20", stdin=stdin)
        assert re.search(r"tiercel: \d+ tokens in 2 windows that overlap by up to 20, 2\.0 a document\n$", lapped.err)
        assert int(re.findall(r"(\d+) tokens", lapped.err)[0]) == int(re.findall(r"(\d+) tokens", plain.err)[0]) + 20
        much = run(*chosen, "--overlap", "31", stdin=stdin)
        assert (much.code, much.out) == (2, "")
        assert "windows that overlap by 31 tokens; expected 0 to 30, half of the window" in much.err


def test_options_of_rerank_stages(run: Run, refused: Refused, model: str, corpus: str, place: Path) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    pipeline = ["-p", "bm25@3,cross:tiny@2", "--precision", "fp32"]
    logits, shares = (
        run("search", "x", "falcon", *pipeline, "--json", *more).json["hits"] for more in ([], ["--score", "sigmoid"])
    )
    for logit, share in zip(logits, shares, strict=True):
        assert share["score"] == pytest.approx(1 / (1 + math.exp(-logit["score"])), abs=1e-6)
    (place / "q.tsv").write_text("q1\tfalcon\n")
    (place / "qrels.txt").write_text("q1 0 a 1\n")
    told = run("eval", "x", "--queries", "q.tsv", "--qrels", "qrels.txt", *pipeline, "--long", "max", "--overlap", "5")
    assert told.code == 0, told
    assert re.search(r"tiercel: cross:tiny@2: \d+ tokens in \d+ windows that overlap by up to 5, ", told.err)
    for option in (
        ["--long", "max"],
        ["--precision", "fp32"],
        ["--score", "sigmoid"],
        ["--overlap", "3", "--long", "max"],
    ):
        part = f"{option[0]} without a stage that heeds it"
        assert part in refused(2, "search", "x", "falcon", *option)
        assert part in refused(2, "eval", "x", "--queries", "q.tsv", "--qrels", "qrels.txt", *option)


def test_a_budget_is_kept_to_and_what_is_skipped_is_told(
    run: Run, refused: Refused, exported: str, corpus: str, place: Path
) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    pipeline = ["-p", f"bm25@3,cross:{exported}@2"]
    plain = run("search", "x", "falcon river", *pipeline, "--json")
    ample = run("search", "x", "falcon river", *pipeline, "--json", "--budget-ms", "60000")
    assert ample.json["hits"] == plain.json["hits"]
    assert (ample.json["budget_ms"], ample.json["skipped"][0]["candidates"]) == (60_000, 0)
    assert not {"budget_ms", "took_ms", "skipped"} & set(plain.json)
    short = run("search", "x", "falcon river", *pipeline, "--json", "--budget-ms", "0.001")
    recalled = run("search", "x", "falcon river", "-p", "bm25@3", "-k", "2", "--json")
    assert [hit["doc_id"] for hit in short.json["hits"]] == [hit["doc_id"] for hit in recalled.json["hits"]]
    assert short.json["skipped"][0]["candidates"] == 3
    assert "budget of 0.001 ms: 1 of 1 queries took longer" in short.err
    assert "0 candidates scored, 3 skipped for want of time" in short.err
    (place / "q.tsv").write_text("q1\tfalcon river\n")
    (place / "qrels.txt").write_text("q1 0 a 1\n")
    asked = ("eval", "x", "--queries", "q.tsv", "--qrels", "qrels.txt")
    measured = run(*asked, *pipeline, "--budget-ms", "0.001", "--json").json["pipelines"][pipeline[1]]["stages"]
    assert [stage.get("skipped_per_query") for stage in measured] == [None, 3]
    assert "skipped" not in run(*asked, *pipeline, "--json").out
    for value in ("0", "-3", "nan", "inf"):
        assert f"--budget-ms {value}" in refused(2, "search", "x", "falcon", *pipeline, "--budget-ms", value)
    assert "with the pipeline bm25@3, which" in refused(2, "search", "x", "falcon", "-p", "bm25@3", "--budget-ms", "5")
    assert "with the pipeline bm25, which" in refused(2, *asked, "--budget-ms", "5")
    assert "--budget-ms with --run" in refused(2, "eval", "--run", "r", "--qrels", "qrels.txt", "--budget-ms", "5")


def test_an_evaluation_with_a_cross_encoder_goes_on_with_the_same_model_only(
    run: Run, refused: Refused, exported: str, corpus: str, place: Path
) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    (place / "q.tsv").write_text("q1\tfalcon river\nq2\triver\n")
    (place / "qrels.txt").write_text("q1 0 a 1\nq2 0 a 1\n")
    name = f"bm25@3,cross:{exported}@2"
    command = ("eval", "x", "--queries", "q.tsv", "--qrels", "qrels.txt", "-p", name, "--json")
    whole = run(*command).json["pipelines"][name]["stages"][1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiercel.screen.print_set_reports", _stopped)
        assert run(*command, "--resume", "kept").code == 130
    assert "kept: it was begun with --score logit, " in refused(3, *command, "--resume", "kept", "--score", "sigmoid")
    outcome = run(*command, "--resume", "kept")
    assert "2 of 2 steps were done before" in outcome.err
    found = outcome.json["pipelines"][name]["stages"][1]
    assert found["tokens"] == whole["tokens"] > 0
    assert (found["measures"], found["truncated"]) == (whole["measures"], whole["truncated"])
    assert not (place / "kept").exists()


def _stopped(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_models_lists_what_is_there(run: Run, model: str, made: Path) -> None:
    folder = run("export", model, "--family", "cross-encoder", "--precision", "int8").rows[2][1]
    listed = run("models", "--json").json["models"]
    (found,) = [entry for entry in listed if entry["folder"] == folder]
    assert (found["name"], found["family"], found["precision"]) == ("tiny", "cross-encoder", "int8")
    assert found["size_bytes"] == sum(path.stat().st_size for path in Path(folder).iterdir())
    rows = run("models").rows
    assert rows[0] == ["model", "family", "backend", "precision", "size", "licence", "digest", "folder"]
    row = next(row for row in rows if row[7] == folder)
    assert row[:4] == ["tiny", "cross-encoder", "onnxruntime", "int8"]
