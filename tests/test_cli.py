"""The shell command: the whole road, what every option does, and how each wrong argument is refused."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from filelock import FileLock

from tests.conftest import Outcome, Run, environment, python, spawned, write_lines
from tiercel.cli import app

Refused = Callable[..., str]

DOCUMENTS = [
    {"_id": "d1", "title": "Falcons", "text": "The falcon hunts in winter over the river."},
    {"_id": "d2", "text": "Bread is sold near the bridge."},
    {"_id": "d3", "title": "Cold water", "text": "Nobody swims in the cold river in winter.", "year": 1999},
]
QUERIES = [{"_id": "q1", "text": "winter river"}, {"_id": "q2", "text": "bread"}, {"_id": "q3", "text": "the of"}]
QRELS = "q1 0 d3 1\nq2 0 d2 1\nq3 0 d1 1\n"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.fixture
def files(place: Path) -> Path:
    write_lines(place / "corpus.jsonl", *DOCUMENTS)
    write_lines(place / "queries.jsonl", *QUERIES)
    (place / "qrels.txt").write_text(QRELS)
    return place


@pytest.fixture
def built(files: Path, run: Run) -> Path:
    """The collection, and its BM25 index `idx`."""
    assert run("index", "idx", "corpus.jsonl", "--encoder", "none").code == 0
    return files


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_says_what_it_does(command: str, run: Run) -> None:
    outcome = run(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    silent = [option.name for option in COMMANDS[command].params if not option.help]
    assert silent == []
    assert COMMANDS[command].help
    options = [name for option in COMMANDS[command].params for name in option.opts if name.startswith("--")]
    assert [name for name in options if name not in outcome.out] == []


def test_the_root_help_lists_the_commands(run: Run) -> None:
    outcome = run("-h")
    assert [name for name in COMMANDS if f"  {name} " not in outcome.out] == []


def test_no_arguments_show_the_help_and_fail(run: Run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "Usage: " in outcome.out + outcome.err


def test_a_misspelt_command_is_a_usage_error_with_a_suggestion(run: Run) -> None:
    outcome = run("serch")
    assert (outcome.code, outcome.out) == (2, "")
    assert "'search'" in outcome.err


def test_the_version_is_printed_and_not_read_from_the_environment(
    built: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--version").out.startswith("tiercel 0.")
    monkeypatch.setenv("TIERCEL_VERSION", "0.1.0")
    assert run("info", "idx").code == 0


def test_an_option_may_come_from_the_environment(built: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_SEARCH_K", "1")
    assert len(run("search", "idx", "river").rows) == 1


# The whole road


def test_index_says_what_it_made_on_stderr_only(files: Path, run: Run) -> None:
    outcome = run("index", "idx", "corpus.jsonl", "--encoder", "none")
    assert outcome == Outcome(0, "", "tiercel: idx: 3 documents. Ask with: tiercel search idx 'your question'\n")


def test_the_suggested_command_can_be_pasted_into_a_shell(files: Path, run: Run) -> None:
    outcome = run("index", "my notes/idx", "corpus.jsonl", "--encoder", "none")
    assert outcome.err.endswith("Ask with: tiercel search 'my notes/idx' 'your question'\n")


def test_search_prints_rank_score_id_and_title_by_tabs(built: Path, run: Run) -> None:
    outcome = run("search", "idx", "winter river")
    assert (outcome.code, outcome.err) == (0, "")
    assert [[rank, doc_id, title] for rank, _, doc_id, title in outcome.rows] == [
        ["1", "d1", "Falcons"],
        ["2", "d3", "Cold water"],
    ]
    scores = [float(row[1]) for row in outcome.rows]
    assert scores == sorted(scores, reverse=True)


def test_a_score_is_the_bm25_of_the_formula(place: Path, run: Run) -> None:
    write_lines(place / "c.jsonl", {"id": "a", "text": "falcon"}, {"id": "b", "text": "bread"})
    run("index", "idx", "c.jsonl", "--encoder", "none")
    # Lucene: idf = ln(1 + (N - df + .5) / (df + .5)) with N = 2, df = 1; both texts have the mean length.
    assert run("search", "idx", "falcon").rows[0][1] == f"{math.log(2) / (1 + 0.9):.6f}"
    assert run("search", "idx", "falcon", "--k1", "2").rows[0][1] == f"{math.log(2) / (1 + 2):.6f}"


def test_a_document_without_title_shows_its_text(built: Path, run: Run) -> None:
    assert run("search", "idx", "bread").rows[0][2:] == ["d2", "Bread is sold near the bridge."]


def test_k_limits_the_hits_and_may_exceed_the_collection(built: Path, run: Run) -> None:
    assert len(run("search", "idx", "river", "-k", "1").rows) == 1
    assert len(run("search", "idx", "river", "-k", "1000000").rows) == 2


def test_a_file_of_queries_puts_the_query_id_first(built: Path, run: Run) -> None:
    outcome = run("search", "idx", "--queries", "queries.jsonl")
    assert [(row[0], row[1], row[3]) for row in outcome.rows] == [
        ("q1", "1", "d1"),
        ("q1", "2", "d3"),
        ("q2", "1", "d2"),
    ]
    assert outcome.err.count("\n") == 1
    assert "no result for 'the of'" in outcome.err


@pytest.mark.parametrize(
    ("stdin", "query_id"), [(b"bread\n", "1"), (b"x7\tbread\n", "x7"), (b'{"id": 9, "text": "bread"}\n', "9")]
)
def test_queries_come_from_standard_input_in_any_form(stdin: bytes, query_id: str, built: Path, run: Run) -> None:
    rows = run("search", "idx", "--queries", "-", stdin=stdin).rows
    assert [(row[0], row[3]) for row in rows] == [(query_id, "d2")]


def test_json_is_one_object_a_query_with_texts_and_metadata(built: Path, run: Run) -> None:
    lines = run("search", "idx", "--queries", "queries.jsonl", "--json").out.splitlines()
    first, second, third = map(json.loads, lines)
    assert list(first) == ["query_id", "query", "stage", "hits"]
    assert (first["query_id"], first["query"], first["stage"]) == ("q1", "winter river", "bm25")
    assert [hit["rank"] for hit in first["hits"]] == [1, 2]
    assert first["hits"][1] == {
        "rank": 2,
        "doc_id": "d3",
        "score": first["hits"][1]["score"],
        "title": "Cold water",
        "text": "Nobody swims in the cold river in winter.",
        "metadata": {"year": 1999},
    }
    assert list(second["hits"][0]) == ["rank", "doc_id", "score", "title", "text"]
    assert third["hits"] == []


def test_runs_of_every_form_to_a_file_and_to_stdout_are_the_same(built: Path, run: Run) -> None:
    expected = {
        "trec": "q1 Q0 d1 1 2 mine\nq1 Q0 d3 2 1 mine\nq2 Q0 d2 1 1 mine\n",
        "msmarco": "q1\td1\t1\nq1\td3\t2\nq2\td2\t1\n",
    }
    for form, ending in (("trec", "trec"), ("msmarco", "tsv"), ("jsonl", "jsonl")):
        common = ("search", "idx", "--queries", "queries.jsonl", "--tag", "mine", "--run")
        to_file = run(*common, f"out.{ending}")
        assert (to_file.code, to_file.out) == (0, "")
        written = (built / f"out.{ending}").read_text()
        assert written == run(*common, "-", "--run-format", form).out
        assert written == expected.get(form, written)
    records = [json.loads(line) for line in (built / "out.jsonl").read_text().splitlines()]
    assert [(record["query_id"], len(record["hits"])) for record in records] == [("q1", 2), ("q2", 1), ("q3", 0)]


def test_a_run_says_which_queries_have_no_line_in_it(built: Path, run: Run) -> None:
    outcome = run("search", "idx", "--queries", "queries.jsonl", "--run", "out.trec")
    assert "no result for 'the of': the query holds nothing but stop words" in outcome.err


def test_eval_of_a_pipeline_and_of_its_run_give_the_same_measures(built: Path, run: Run) -> None:
    run("search", "idx", "--queries", "queries.jsonl", "--run", "out.trec")
    measures = ("-m", "nDCG@10", "-m", "RR@10", "-m", "R@100", "-m", "P@1")
    of_pipeline = run("eval", "idx", "--queries", "queries.jsonl", "--qrels", "qrels.txt", "--json", *measures)
    of_run = run("eval", "--run", "out.trec", "--qrels", "qrels.txt", "--json", *measures)
    report = of_pipeline.json["pipelines"]["bm25"]
    result = of_run.json["runs"]["out.trec"]
    assert report["stages"][-1]["measures"] == result["measures"]
    # d3 comes second for q1, d2 first for q2, and q3 finds nothing.
    assert result["measures"] == pytest.approx(
        {"nDCG@10": (1 / math.log2(3) + 1) / 3, "RR@10": 1.5 / 3, "R@100": 2 / 3, "P@1": 1 / 3}
    )
    assert (report["queries"], result["queries"], result["missing_queries"]) == (3, 3, 1)


def test_eval_prints_a_line_for_each_stage_and_run(built: Path, run: Run) -> None:
    run("search", "idx", "--queries", "queries.jsonl", "--run", "out.trec")
    of_pipeline = run("eval", "idx", "--queries", "queries.jsonl", "--qrels", "qrels.txt", "-m", "RR@10")
    # d3 is relevant to q1 and found second, d2 first; what survives holds two of three relevant documents.
    costs = ["queries/s", "p50 ms", "p95 ms", "p99 ms", "tokens", "cut"]
    assert of_pipeline.rows[:2] == [["# bm25"], ["stage", "RR@10", "ceiling", "hits", *costs]]
    assert of_pipeline.rows[2][:4] == ["bm25", "0.5000", "0.6667", "1.0"]
    assert len(of_pipeline.rows) == 3
    assert "latency of one query" in of_pipeline.err
    of_run = run("eval", "--run", "out.trec", "--qrels", "qrels.txt", "-m", "RR@10")
    assert of_run.out == "run\tRR@10\nout.trec\t0.5000\n"
    assert "1 judged queries are not in the run and count 0" in of_run.err


def test_info_and_verify_in_words_and_as_json(built: Path, run: Run) -> None:
    info = run("info", "idx", "--json").json
    assert (info["path"], info["documents"], info["commit"]) == ("idx", 3, 1)
    assert info["settings"]["encoder"] is None
    assert ["documents", "3"] in run("info", "idx").rows
    assert run("verify", "idx").out == (
        f"idx: 3 documents, {info['bytes']} bytes, every file as it was written, the same documents in every leg\n"
    )
    assert run("verify", "idx", "--json").json == {
        "path": "idx",
        "documents": 3,
        "bytes": info["bytes"],
        "intact": True,
    }


def test_replace_builds_anew(built: Path, run: Run) -> None:
    write_lines(built / "other.jsonl", {"id": "new", "text": "river"})
    assert run("index", "idx", "other.jsonl", "--encoder", "none", "--replace").code == 0
    assert [row[2] for row in run("search", "idx", "river").rows] == ["new"]
    assert run("info", "idx", "--json").json["commit"] == 2


def test_several_sources_of_several_forms_make_one_index(built: Path, run: Run) -> None:
    (built / "pages" / "sub").mkdir(parents=True)
    (built / "pages" / "guide.md").write_text("# Guide\n\nHow a heron fishes.\n")
    (built / "pages" / "sub" / "b.html").write_text("<title>Bank</title><p>heron <b>nest</b></p>")
    (built / "more.csv").write_text('id,title,text\nc1,Zug,"Ein heron, gequotet"\n')
    (built / "rows.tsv").write_text("t1\theron once\n")
    outcome = run(
        "index", "all", "pages", "more.csv", "rows.tsv", "-", "--encoder", "none", stdin=b'{"id":5,"text":"heron"}'
    )
    assert outcome.code == 0
    assert {row[2] for row in run("search", "all", "heron").rows} == {"guide.md", "sub/b.html", "c1", "t1", "5"}


def test_chinese_with_its_analyzer_and_german_with_its_own(place: Path, run: Run) -> None:
    (place / "zh.tsv").write_text("1\t東京は日本の首都です\n2\t京都は古い都市\n", encoding="utf-8")
    (place / "de.tsv").write_text("1\tDie Häuser stehen leer\n2\tEin Baum\n", encoding="utf-8")
    run("index", "zh", "zh.tsv", "--encoder", "none", "--analyzer", "cjk")
    run("index", "de", "de.tsv", "--encoder", "none", "--analyzer", "german")
    assert [row[2] for row in run("search", "zh", "首都").rows] == ["1"]
    assert [row[2] for row in run("search", "de", "Haus").rows] == ["1"]


# Queries that find nothing


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "the query is empty"),
        (" \t ", "the query is empty"),
        ("the of and", "nothing but stop words or punctuation (analyzer english)"),
        ("?! ...", "nothing but stop words or punctuation (analyzer english)"),
        ("zeppelin", "no document holds a term of the query"),
    ],
)
def test_a_query_that_finds_nothing_succeeds_and_says_why(query: str, reason: str, built: Path, run: Run) -> None:
    outcome = run("search", "idx", query)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("tiercel: no result for ")
    assert reason in outcome.err
    assert run("search", "idx", query, "--json").json["hits"] == []


# Input that cannot be read: exit code 3, and an older index goes on answering


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["bad.jsonl: no document in it", "at least one"]),
        (b"\n\n", ["bad.jsonl: no document in it"]),
        (b'{"id": "a", "text": "x"}\nnot json\n', ["bad.jsonl:2: this is not JSON", "one JSON object per line"]),
        (b'[\n{"id": "a", "text": "x"}\n]\n', ["bad.jsonl:1: this is not JSON", "jq -c"]),
        (b'{"id": "a", "text": "x"}\n{"id": "b", "text": "\xff"}\n', ["bad.jsonl:2: byte 0xff is not UTF-8", "iconv"]),
        (b'{"id": "a", "words": "x"}\n', ["bad.jsonl:1: no text field", "'words'", "--text-field"]),
        (b'{"text": "x"}\n', ["bad.jsonl:1: no id field", "--id-field"]),
        (b'{"id": "a", "text": null}\n', ["bad.jsonl:1: null as the text in 'text'", "a string"]),
        (b'{"id": "", "text": "x"}\n', ["bad.jsonl:1: the id in 'id' is empty"]),
        (
            b'{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n{"id": "a", "text": "z"}\n',
            ["the id 'a' comes twice: bad.jsonl:1 and bad.jsonl:3", "each document once", "Nothing was indexed"],
        ),
    ],
)
def test_a_corpus_that_cannot_be_read_names_the_line(
    content: bytes, parts: list[str], built: Path, run: Run, refused: Refused
) -> None:
    (built / "bad.jsonl").write_bytes(content)
    message = refused(3, "index", "new", "bad.jsonl", "--encoder", "none")
    assert [part for part in parts if part not in message] == []
    assert not (built / "new" / "manifest.json").exists()
    assert "there is no index here" in (late := run("search", "new", "x")).err or "no such folder" in late.err
    refused(3, "index", "idx", "bad.jsonl", "--encoder", "none", "--replace")
    assert [row[2] for row in run("search", "idx", "river").rows] == ["d1", "d3"]
    assert run("verify", "idx").code == 0


def test_a_failed_build_can_be_followed_by_a_good_one_in_the_same_place(
    built: Path, run: Run, refused: Refused
) -> None:
    (built / "bad.jsonl").write_text('{"id": "a", "text": "x"}\noops\n')
    refused(3, "index", "new", "bad.jsonl", "--encoder", "none")
    assert run("index", "new", "corpus.jsonl", "--encoder", "none").code == 0
    assert run("verify", "new").code == 0


def test_a_first_line_that_cannot_be_read_leaves_no_folder(files: Path, refused: Refused) -> None:
    (files / "bad.jsonl").write_text("oops\n")
    refused(3, "index", "new", "bad.jsonl", "--encoder", "none")
    assert not (files / "new").exists()


def test_an_empty_document_is_indexed_and_never_found_by_its_words(place: Path, run: Run) -> None:
    write_lines(place / "c.jsonl", {"id": "empty", "text": ""}, {"id": "full", "text": "river"})
    run("index", "idx", "c.jsonl", "--encoder", "none")
    assert run("info", "idx", "--json").json["documents"] == 2
    assert [row[2] for row in run("search", "idx", "river", "-k", "10").rows] == ["full"]


def test_a_document_of_five_megabytes_comes_back_whole(place: Path, run: Run) -> None:
    text = "river " * 850_000 + "needle"
    write_lines(place / "c.jsonl", {"id": "long", "text": text}, {"id": "short", "text": "needle"})
    run("index", "idx", "c.jsonl", "--encoder", "none")
    found = run("search", "idx", "needle", "--json").json["hits"]
    assert [hit["doc_id"] for hit in found] == ["short", "long"]
    assert found[1]["text"] == text
    assert max(map(len, run("search", "idx", "needle").out.splitlines())) < 200


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["index", "new", "nowhere.jsonl"], ["nowhere.jsonl: there is no such file or folder"]),
        (["index", "new", "report.pdf"], ["the ending '.pdf' says nothing", "--format"]),
        (["index", "new", "nothing"], ["nothing: no document in it"]),
        (["search", "idx", "--queries", "nowhere.tsv"], ["nowhere.tsv: there is no such file"]),
        (["search", "idx", "--queries", "none.txt"], ["none.txt: there is no query in it; expected at least one"]),
        (["search", "idx", "river", "--run", "no/folder.trec"], ["no/folder.trec: its folder does not exist"]),
        (["eval", "--run", "run.trec", "--qrels", "nowhere"], ["nowhere: there is no such file"]),
        (["eval", "--run", "nowhere.trec", "--qrels", "qrels.txt"], ["nowhere.trec: there is no such file"]),
        (["eval", "--run", "run.trec", "--qrels", "strange.txt"], ["'q1'", "'z1'", "no id is in both"]),
        (["eval", "--run", "run.trec", "--qrels", "none.txt"], ["none.txt: no judgments: the file is empty"]),
        (["eval", "--run", "run.trec", "--qrels", "corpus.jsonl"], ["corpus.jsonl:1: ", "expected 4"]),
    ],
)
def test_input_that_is_not_what_it_should_be(
    arguments: list[str], parts: list[str], built: Path, refused: Refused
) -> None:
    (built / "run.trec").write_text("q1 Q0 d1 1 2 t\n")
    (built / "strange.txt").write_text("z1 0 d1 1\n")
    (built / "none.txt").write_text("")
    (built / "report.pdf").write_bytes(b"%PDF")
    (built / "nothing").mkdir()
    more = ["--encoder", "none"] if arguments[0] == "index" else []
    message = refused(3, *arguments, *more)
    assert [part for part in parts if part not in message] == []


def test_queries_that_nobody_judged_cannot_be_evaluated(built: Path, run: Run) -> None:
    (built / "strange.txt").write_text("z1 0 d1 1\n")
    outcome = run("eval", "idx", "--queries", "queries.jsonl", "--qrels", "strange.txt")
    assert (outcome.code, outcome.out) == (3, "")
    assert "'q1'), judgments have 1 (such as 'z1'), and no id is in both" in outcome.err.splitlines()[-1]


# Arguments that cannot be meant: exit code 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["search", "idx"], ["no query was given", "--queries FILE"]),
        (["search", "idx", "river", "--queries", "queries.jsonl"], ["a query and --queries were given", "one of them"]),
        (["search", "idx", "river", "-p", "bm26"], ["no recall leg called 'bm26'", "bm25, dense", "mean 'bm25'"]),
        (["search", "idx", "river", "-p", "bm25,nearly@3"], ["no rerank stage called 'nearly'"]),
        (["search", "idx", "river", "-p", "bm25,cross@3"], ["the stage cross without a model", "cross:MODEL"]),
        (["search", "idx", "river", "-p", "bm25@5,cross@10"], ["column 8", "at most @5", "cannot widen"]),
        (["search", "idx", "river", "-p", "bm25@"], ["column 6", "the end"]),
        (["search", "idx", "river", "-p", "bm25:mine"], ["the leg bm25:mine; expected bm25, or with its k1 and b"]),
        (["eval", "--run", "-", "--qrels", "-"], ["standard input (-) named twice"]),
        (["search", "idx", "river", "--b", "2"], ["b=2.0", "from 0 to 1"]),
        (["search", "idx", "river", "--k1", "-1"], ["k1=-1.0"]),
        (["search", "idx", "river", "--variant", "bm42"], ["unknown BM25 variant 'bm42'", "lucene, robertson"]),
        (["search", "idx", "river", "--run", "out.xyz"], ["without a format", "trec, msmarco, jsonl", "--run-format"]),
        (["search", "idx", "river", "--run", "-", "--tag", "a b"], ["the tag 'a b'", "one word"]),
        (["search", "idx", "river", "--run", "-", "--json"], ["--json and --run", "one of them"]),
        (["search", "idx", "river", "--run-format", "trec"], ["--run-format without --run"]),
        (["search", "idx", "\udcff"], ["not UTF-8"]),
        (["index", "new", "corpus.jsonl", "corpus.jsonl"], ["the source corpus.jsonl named twice"]),
        (["index", "new", "-", "-"], ["standard input (-) named twice"]),
        (
            ["index", "new", "corpus.jsonl", "--analyzer", "klingon"],
            ["unknown analyzer 'klingon'", "english, none, cjk"],
        ),
        (["index", "new", "corpus.jsonl", "--ann", "flat"], ["--recall or --precision with --encoder none"]),
        (
            ["index", "new", "corpus.jsonl", "--precision", "fp32"],
            ["--recall or --precision with --encoder none"],
        ),
        (["eval", "--qrels", "qrels.txt"], ["neither an index nor a run was given", "--run FILE"]),
        (["eval", "idx", "--run", "run.trec", "--qrels", "qrels.txt"], ["an index and a run were given"]),
        (["eval", "idx", "--qrels", "qrels.txt"], ["no queries were given", "--queries FILE"]),
        (["eval", "--run", "r.trec", "--qrels", "qrels.txt", "-k", "5"], ["-k with --run"]),
        (["eval", "--run", "r.trec", "--qrels", "qrels.txt", "-p", "bm25"], ["--pipeline with --run"]),
        (["eval", "--run", "r.trec", "--qrels", "qrels.txt", "-m", "nDGC@10"], ["not a known measure", "mean nDCG"]),
        (["eval", "idx", "--queries", "-", "--qrels", "-"], ["standard input (-) named twice"]),
        (["eval", "--run", "r.trec", "--qrels", "qrels.txt", "--split", "dev"], ["the split 'dev'", "BEIR folder"]),
    ],
)
def test_arguments_that_cannot_be_meant(arguments: list[str], parts: list[str], built: Path, refused: Refused) -> None:
    more = ["--encoder", "none"] if arguments[0] == "index" else []
    message = refused(2, *arguments, *more)
    assert [part for part in parts if part not in message] == []
    assert not (built / "new").exists()


def test_every_pipeline_is_checked_before_the_first_is_evaluated(built: Path, refused: Refused) -> None:
    arguments = ("eval", "idx", "--queries", "queries.jsonl", "--qrels", "qrels.txt", "-p", "bm25", "-p", "cross")
    assert "no recall leg called 'cross'" in refused(2, *arguments)


@pytest.mark.parametrize("k", ["0", "-3", "many"])
def test_a_number_of_hits_below_one_is_a_usage_error(k: str, built: Path, run: Run) -> None:
    outcome = run("search", "idx", "river", "-k", k)
    assert (outcome.code, outcome.out) == (2, "")
    assert "-k" in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5"])
def test_threads_that_are_no_number(value: str, built: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_THREADS", value)
    message = refused(2, "search", "idx", "river")
    assert message == f"tiercel: TIERCEL_THREADS='{value}'; expected a whole number of at least 1\n"


def test_more_threads_than_processors_search_all_the_same(
    built: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run("search", "idx", "--queries", "queries.jsonl").out
    monkeypatch.setenv("TIERCEL_THREADS", "33")
    assert run("search", "idx", "--queries", "queries.jsonl").out == expected


# Indexes that cannot be used: exit code 4


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["search", "nowhere", "river"], ["nowhere: no such folder", "tiercel index nowhere SOURCE"]),
        (["info", "."], ["there is no index here", "tiercel index . SOURCE"]),
        (["verify", "corpus.jsonl"], ["corpus.jsonl: this is a file", "the folder of an index"]),
        (["index", "corpus.jsonl", "idx"], ["corpus.jsonl: this is a file", "a new path, or an index"]),
        (["index", "sub/file/new", "corpus.jsonl"], ["sub/file/new"]),
        (["search", "idx", "river", "-p", "bm25+dense"], ["the index has no vectors", "--pipeline bm25"]),
        (["search", "idx", "river", "-p", "dense"], ["the index has no vectors", "without --encoder none"]),
    ],
)
def test_an_index_that_is_not_there_or_in_the_way(
    arguments: list[str], parts: list[str], built: Path, refused: Refused
) -> None:
    (built / "sub").mkdir()
    (built / "sub" / "file").write_text("in the way")
    more = ["--encoder", "none"] if arguments[0] == "index" else []
    message = refused(4, *arguments, *more)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("theirs", ["notes.txt", "segments/mine.txt", "segments/00000001.bak/x"])
@pytest.mark.parametrize("more", [[], ["--replace"]])
def test_a_folder_of_something_else_is_left_alone(theirs: str, more: list[str], files: Path, refused: Refused) -> None:
    kept = files / "project" / theirs
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    message = refused(4, "index", "project", "corpus.jsonl", "--encoder", "none", *more)
    assert "project: the folder holds something else" in message
    assert kept.read_text() == "precious"


def test_an_index_that_another_process_writes_is_left_to_it(built: Path, run: Run, refused: Refused) -> None:
    with FileLock(built / "idx" / "write.lock"):
        message = refused(4, "index", "idx", "corpus.jsonl", "--encoder", "none", "--replace")
        assert "idx: another process is writing this index. Wait for it" in message
        assert run("search", "idx", "bread").rows[0][2] == "d2"


def test_an_empty_folder_becomes_an_index(files: Path, run: Run) -> None:
    (files / "idx").mkdir()
    (files / "idx" / ".DS_Store").write_bytes(b"")
    assert run("index", "idx", "corpus.jsonl", "--encoder", "none").code == 0


def test_an_index_of_a_newer_format_is_named_as_such(built: Path, refused: Refused) -> None:
    path = built / "idx" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    for arguments in (["search", "idx", "river"], ["info", "idx"], ["verify", "idx"]):
        message = refused(4, *arguments)
        assert "the index has format 99; expected format 2 or older" in message
        assert "upgrade" in message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"format": 1}'])
def test_a_manifest_that_is_none(content: bytes, built: Path, refused: Refused) -> None:
    (built / "idx" / "manifest.json").write_bytes(content)
    message = refused(4, "search", "idx", "river")
    assert "manifest.json: the manifest cannot be read" in message or "not a manifest of Tiercel" in message


def test_a_cut_file_is_seen_when_opened_and_a_changed_byte_by_verify(built: Path, run: Run, refused: Refused) -> None:
    names = [path.relative_to(built / "idx") for path in sorted((built / "idx" / "segments").rglob("*.*"))]
    assert len(names) > 3
    for name in names:
        shutil.copytree(built / "idx", built / "cut")
        content = (built / "cut" / name).read_bytes()
        (built / "cut" / name).write_bytes(content[:-1])
        assert f"{name}: it holds {len(content) - 1} bytes" in refused(4, "search", "cut", "river")
        (built / "cut" / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert str(name) in refused(4, "verify", "cut")
        (built / "cut" / name).unlink()
        assert str(name) in refused(4, "info", "cut")
        shutil.rmtree(built / "cut")


# Models that cannot be had: exit code 5


@pytest.mark.parametrize(
    ("encoder", "parts"),
    [
        ("nonsense", ["no model is called 'nonsense'", "all-MiniLM-L6-v2", "--encoder none"]),
        (
            "tests/no-such-model",
            ["tests/no-such-model is not on this machine", "asking the hub is off", "--encoder none"],
        ),
        ("tests--x/y", ["no model is called 'tests--x/y'", "--encoder none"]),
        ("tests/no..such", ["no model is called 'tests/no..such'"]),
        ("empty", ["modules.json cannot be read", "a sentence-transformers folder"]),
    ],
)
def test_a_model_that_is_not_there(
    encoder: str, parts: list[str], files: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(files / "hub"))
    (files / "empty").mkdir()
    for arguments in (["index", "new", "corpus.jsonl", "--encoder", encoder], ["export", encoder]):
        message = refused(5, *arguments)
        assert [part for part in parts if part not in message] == []
    assert not (files / "new").exists()


# Interrupted and refused by the system


def _many(path: Path, count: int) -> Path:
    return write_lines(path, *({"id": f"n{i}", "text": f"river number {i} flows " * 20} for i in range(count)))


def test_a_full_disk_is_said_and_the_older_index_answers(built: Path, run: Run) -> None:
    _many(built / "many.jsonl", 3000)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from tiercel.cli import main; main(sys.argv[1:])"
    )
    for index, more in (("idx", ["--replace"]), ("new", [])):
        outcome = python("-c", limited, "index", index, "many.jsonl", "--encoder", "none", *more)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (4, "", 1), outcome
        assert "File too large" in outcome.err
        assert "Check the disk's space" in outcome.err
    assert [row[2] for row in run("search", "idx", "river").rows] == ["d1", "d3"]
    assert run("verify", "idx").code == 0
    assert run("info", "new").code == 4
    assert run("index", "new", "corpus.jsonl", "--encoder", "none").code == 0


def test_a_full_disk_leaves_an_older_run_as_it_was(built: Path) -> None:
    (built / "out.trec").write_text("older")
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10));"
        "from tiercel.cli import main; main(sys.argv[1:])"
    )
    outcome = python("-c", limited, "search", "idx", "river", "--run", "out.trec")
    assert (outcome.code, outcome.out) == (3, ""), outcome
    assert outcome.err.startswith("tiercel: out.trec: it cannot be written (File too large)")
    assert (built / "out.trec").read_text() == "older"
    assert list(built.glob(".out*")) == []


def test_an_interrupt_in_the_middle_leaves_the_older_index(built: Path, run: Run) -> None:
    lines = b"".join(b'{"id": "n%d", "text": "river number %d"}\n' % (i, i) for i in range(40_000))
    arguments = [sys.executable, "-m", "tiercel.cli", "index", "idx", "-", "--encoder", "none", "--replace"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, env=environment(), **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(lines)  # far more than a pipe holds: when this returns, thousands are indexed
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"tiercel: interrupted\n")
    assert [row[2] for row in run("search", "idx", "river").rows] == ["d1", "d3"]
    assert run("index", "idx", "corpus.jsonl", "--encoder", "none", "--replace").code == 0


@pytest.mark.parametrize("form", [[], ["--json"], ["--run", "-"]])
def test_a_reader_that_leaves_early_is_no_failure(form: list[str], place: Path, run: Run) -> None:
    _many(place / "many.jsonl", 100)
    (place / "queries.tsv").write_text("".join(f"{i}\triver {i % 100}\n" for i in range(600)))
    run("index", "idx", "many.jsonl", "--encoder", "none")
    arguments = [sys.executable, "-m", "tiercel.cli", "search", "idx", "--queries", "queries.tsv", *form]
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_nobody_listening_on_stderr_does_not_stop_the_work(built: Path) -> None:
    (built / "queries.tsv").write_text("1\tthe\n2\tof\n3\triver\n")
    arguments = [sys.executable, "-m", "tiercel.cli", "search", "idx", "--queries", "queries.tsv", "--run", "out.trec"]
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(timeout=60) == 0
    assert (built / "out.trec").read_text() == "3 Q0 d1 1 2 tiercel\n3 Q0 d3 2 1 tiercel\n"


def test_results_are_utf_8_whatever_the_locale_says(place: Path, run: Run) -> None:
    (place / "zh.tsv").write_text("1\t東京 😀\n", encoding="utf-8")
    run("index", "zh", "zh.tsv", "--encoder", "none", "--analyzer", "cjk")
    for more in ([], ["--json"], ["--run", "-", "--run-format", "jsonl"]):
        outcome = spawned("search", "zh", "東京", *more, env=environment(PYTHONIOENCODING="ascii"))
        assert (outcome.code, outcome.err) == (0, "")
        assert "東京" in outcome.out


def test_the_demo_replaces_no_index_but_its_own(built: Path, run: Run, refused: Refused) -> None:
    message = refused(4, "demo", "--index", "idx")
    assert "idx: there is something already" in message
    assert [row[2] for row in run("search", "idx", "river").rows] == ["d1", "d3"]
