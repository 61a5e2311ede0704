"""Several pipelines on several sets from the shell, and the page that shows them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, write_lines
from tests.html.browser import opened
from tiercel.evaluation.observing import QUERIES_PER_BATCH
from tiercel.retrieve.cascade import Cascade
from tiercel.retrieve.trace import Trace
from tiercel.types import Query

Refused = Callable[..., str]

TEXTS = {"a": "the falcon hunts in winter", "b": "bread by the river", "c": "the falcon and the cold river"}
COMMON = ("--queries", "q.tsv", "--qrels", "qrels.txt")


@pytest.fixture
def index(place: Path, run: Run) -> str:
    write_lines(place / "c.jsonl", *({"id": key, "text": text} for key, text in TEXTS.items()))
    (place / "q.tsv").write_text("q1\tfalcon river\nq2\twinter\n")
    (place / "qrels.txt").write_text("q1 0 c 1\nq2 0 a 1\n")
    (place / "2019qrels-pass.txt").write_text("q1 0 c 1\nq1 0 a 2\nq2 0 a 3\n")
    assert run("index", "idx", "c.jsonl", "--encoder", "none").code == 0
    return "idx"


def test_one_set_is_an_object_of_its_pipelines_with_their_costs(index: str, run: Run) -> None:
    found = run("eval", index, *COMMON, "-m", "RR@10", "--json").json
    assert list(found) == ["name", "notes", "pipelines", "index"]
    assert (found["name"], found["notes"], found["index"]["documents"]) == ("qrels.txt", [], 3)
    assert found["index"]["bytes"] == run("info", index, "--json").json["bytes"]
    (stage,) = found["pipelines"]["bm25"]["stages"]
    assert (stage["measures"], stage["ceiling"], stage["latency"]["count"]) == ({"RR@10": 1.0}, 1.0, 2)


def test_several_sets_are_measured_each_in_its_own_way(index: str, run: Run) -> None:
    outcome = run("eval", index, *COMMON, "--queries", "q.tsv", "--qrels", "2019qrels-pass.txt", "--json")
    plain, deep = outcome.json["sets"]
    assert (plain["name"], deep["name"]) == ("qrels.txt", "2019qrels-pass.txt")
    of_plain, of_deep = (one["pipelines"]["bm25"]["stages"][0]["measures"] for one in (plain, deep))
    assert list(of_plain) == ["nDCG@10", "RR@10", "R@100"]
    assert list(of_deep) == ["nDCG@10", "RR(rel=2)", "AP(rel=2)", "R(rel=2)@1000"]
    assert of_plain["RR@10"] == 1.0
    # Of q1 only a, which comes second or third behind c, is relevant from grade 2 on.
    assert of_deep["RR(rel=2)"] < 1.0
    assert deep["notes"] == ["measured as TREC DL 2019: grade 2 and up is relevant to measures that name no grade"]


def test_what_was_taken_for_granted_is_said(index: str, run: Run, place: Path) -> None:
    outcome = run("eval", index, "--queries", "q.tsv", "--qrels", "2019qrels-pass.txt", "-m", "RR@10")
    assert outcome.rows[1][1] == "RR(rel=2)@10"
    assert "2019qrels-pass.txt: measured as TREC DL 2019" in outcome.err
    (place / "graded.txt").write_text((place / "2019qrels-pass.txt").read_text())
    outcome = run("eval", index, "--queries", "q.tsv", "--qrels", "graded.txt", "-m", "RR@10")
    assert "the judgments are graded; RR@10 take grade 1 and up as relevant" in outcome.err
    run("search", index, "--queries", "q.tsv", "--run", "out.trec")
    outcome = run("eval", "--run", "out.trec", "--qrels", "2019qrels-pass.txt", "-m", "RR@10")
    assert outcome.rows[0] == ["run", "RR(rel=2)@10"]


def test_the_split_dev_of_beirs_msmarco_is_told_by_its_folder(index: str, run: Run, place: Path) -> None:
    (place / "msmarco" / "qrels").mkdir(parents=True)
    (place / "msmarco" / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tc\t1\n")
    for split in ((), ("--split", "dev")):  # it is the only one
        found = run("eval", index, "--queries", "q.tsv", "--qrels", "msmarco", *split, "--json").json
        assert found["notes"] == ["measured as MS MARCO dev small; 1 queries are judged, where the whole set has 6,980"]


def test_a_page_of_pipelines_with_plots(index: str, run: Run, place: Path) -> None:
    pipelines = ("-p", "bm25", "-p", "bm25@2", "-p", "bm25@1")
    outcome = run("eval", index, *COMMON, *pipelines, "--html", "page.html")
    assert outcome.code == 0, outcome
    document = opened(place / "page.html")
    # One of quality against latency, one of recall for each pipeline, one of differences for each but the first.
    assert document.count("<svg") == 1 + 3 + 2
    for label in (
        "Quality against latency",
        "Recall of what survives each stage",
        "bm25@1 against bm25",
        "idx: 3 documents",
    ):
        assert label in document
    assert "0 queries better, 2 the same, 0 worse." in document
    assert "<script" not in document


def test_a_page_of_runs(index: str, run: Run, place: Path) -> None:
    for k in ("1", "3"):
        run("search", index, "--queries", "q.tsv", "-k", k, "--run", f"<b>{k}.trec")
    outcome = run("eval", "--run", "<b>3.trec", "--run", "<b>1.trec", "--qrels", "qrels.txt", "--html", "page.html")
    assert outcome.code == 0, outcome
    document = opened(place / "page.html")
    assert document.count("<svg") == 1
    assert "&lt;b&gt;1.trec against &lt;b&gt;3.trec" in document


def test_a_page_on_stdout_is_all_there_is(index: str, run: Run) -> None:
    outcome = run("eval", index, *COMMON, "--html", "-")
    assert outcome.out.startswith("<!doctype html>")
    assert outcome.out.endswith("</html>\n")


TIMES = ("seconds", "queries_per_second", "latency")
MANY = ("--queries", "many.tsv", "--qrels", "many.txt", "--json")


def without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return value


@pytest.fixture
def many(index: str, place: Path) -> str:
    """Queries of three batches."""
    words = ("falcon", "river", "winter", "bread")
    queries = [(number, f"{words[number % 4]} {words[number % 3]}") for number in range(2 * QUERIES_PER_BATCH + 2)]
    (place / "many.txt").write_text("".join(f"{number} 0 {'abc'[number % 3]} 1\n" for number, _ in queries))
    (place / "many.tsv").write_text("".join(f"{number}\t{text}\n" for number, text in queries))
    return index


def stop_at(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the user stop the command in this batch of many queries, counted from 0."""
    trace, left = Cascade.trace, [batch]

    def stopping(self: Cascade, queries: Sequence[Query], *, keep: int) -> list[Trace]:
        if len(queries) > 1:
            left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return trace(self, queries, keep=keep)

    monkeypatch.setattr(Cascade, "trace", stopping)


def test_a_stopped_evaluation_goes_on_where_it_stopped(many: str, run: Run, place: Path) -> None:
    command = ("eval", many, *MANY, "-p", "bm25", "-p", "bm25@2")
    whole = run(*command).json
    for batch, said in ((2, "3 of 8 steps are kept in kept.json; the same"), (2, "3 of 8 steps were done before;")):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(batch, patch)
            outcome = run(*command, "--resume", "kept.json")
        assert (outcome.code, outcome.out) == (130, "")
        assert said in outcome.err
    assert "6 of 8 steps are kept" in outcome.err  # 3, then the last of bm25, the times of bm25@2 and a batch of it
    with pytest.MonkeyPatch.context() as patch:
        stop_at(2, patch)
        resumed = run(*command, "--resume", "kept.json")
    assert "6 of 8 steps were done before; kept.json has them" in resumed.err
    assert without_times(resumed.json) == without_times(whole)
    assert list(place.glob("kept*")) == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["-p", "bm25@2"],
            "begun with --pipeline bm25; expected --pipeline bm25@2. Give the command as it was, or rem",
        ),
        (["-p", "bm25", "--k1", "1.2"], "kept.json: it was begun with --k1 0.9; expected --k1 1.2"),
        (["-p", "bm25", "-k", "101"], "it was begun with -k 100; expected -k 101"),
        (["-p", "bm25", "--queries", "q.tsv", "--qrels", "qrels.txt"], "begun with --queries (those that are judged) "),
    ],
)
def test_what_another_evaluation_left_is_refused(
    arguments: list[str], part: str, many: str, run: Run, refused: Refused, place: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(1, patch)
        assert run("eval", many, *MANY, "-p", "bm25", "--resume", "kept.json").code == 130
    kept = (place / "kept.json").read_bytes()
    sets = () if "--queries" in arguments else MANY
    assert part in refused(3, "eval", many, *sets, *arguments, "--resume", "kept.json")
    assert (place / "kept.json").read_bytes() == kept


def test_what_another_commit_left_is_refused_and_other_measures_are_welcome(
    many: str, run: Run, refused: Refused, place: Path
) -> None:
    command = ("eval", many, *MANY, "--resume", "kept.json")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(1, patch)
        assert run(*command).code == 130
    shutil.copytree(many, "before")
    write_lines(place / "more.jsonl", {"id": "d", "text": "a river of bread"})
    assert run("index", many, "more.jsonl").code == 0
    assert "kept.json: it was begun with index " in refused(3, *command)
    # A copy has the same commit.
    outcome = run("eval", "before", *MANY, "--resume", "kept.json", "-m", "AP@5")
    assert "2 of 4 steps were done before" in outcome.err
    assert list(outcome.json["pipelines"]["bm25"]["stages"][0]["measures"]) == ["AP@5"]


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, ["idx", *COMMON, "--qrels", "2019qrels-pass.txt"], "1 files of queries and 2 of judgments"),
        (2, ["idx", *COMMON, "--html", "-", "--json"], "--json and --html -"),
        (3, ["idx", *COMMON, "--html", "nowhere/page.html"], "nowhere"),
        (2, ["--run", "out.trec", "--qrels", "qrels.txt", "--qrels", "2019qrels-pass.txt"], "2 files of judgments"),
        (2, ["idx", *COMMON, "--resume", "-"], "--resume -; expected a file"),
        (2, ["--run", "out.trec", "--qrels", "qrels.txt", "--resume", "kept"], "--resume with --run"),
        (3, ["idx", *COMMON, "--resume", "nowhere/kept"], "nowhere"),
        (3, ["idx", *COMMON, "--resume", "q.tsv"], "q.tsv: this is no partial run"),
        (2, ["idx", "--qrels", "qrels.txt"], "no queries were given"),
        (2, ["idx", "--queries", "-", "--qrels", "-"], "standard input (-) named twice"),
    ],
)
def test_what_cannot_be_evaluated(code: int, arguments: list[str], part: str, index: str, refused: Refused) -> None:
    assert part in refused(code, "eval", *arguments)
