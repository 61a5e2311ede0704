"""Runs set against each other in the shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines

QRELS = "q1 0 a 1\nq1 0 b 1\nq2 0 a 1\nq2 0 b 1\nq3 0 a 1\n"
# RR@2 is 1, 1/2, 0 for one.trec and 1/2, 1, 1 for two.trec.
ONE = "q1 Q0 a 1 2 t\nq1 Q0 x 2 1 t\nq2 Q0 x 1 2 t\nq2 Q0 b 2 1 t\n"
TWO = "q1 Q0 x 1 2 t\nq1 Q0 b 2 1 t\nq2 Q0 a 1 2 t\nq2 Q0 b 2 1 t\nq3 Q0 a 1 1 t\n"


@pytest.fixture
def runs(place: Path) -> Path:
    for name, text in (("qrels.txt", QRELS), ("one.trec", ONE), ("two.trec", TWO)):
        (place / name).write_text(text)
    return place


def test_a_table_for_the_measure_and_the_changed_queries_side_by_side(runs: Path, run: Run) -> None:
    write_lines(runs / "queries.jsonl", {"_id": "q3", "text": "third"})
    write_lines(runs / "corpus.jsonl", {"_id": "a", "text": "alpha"}, {"_id": "y", "text": "unseen"})
    more = ("--queries", "queries.jsonl", "--corpus", "corpus.jsonl", "--complement", "2", "--margin", "0.9")
    outcome = run("compare", "one.trec", "two.trec", "--qrels", "qrels.txt", "-m", "RR@2", "--changed", "2", *more)
    assert outcome.code == 0
    assert outcome.rows[0] == ["# RR@2"]
    assert outcome.rows[2][:2] == ["one.trec", "0.5000"]
    assert outcome.rows[3][:3] == ["two.trec", "0.8333", "+0.3333"]
    assert outcome.rows[3][6:9] == ["2", "0", "1"]
    assert outcome.rows[4:7] == [
        ["# relevant documents at depth 2"],
        ["run", "baseline only", "run only", "both", "neither"],
        ["two.trec", "1", "3", "1", "0"],
    ]
    assert outcome.rows[7:] == [
        ["# q3 third: RR@2 0.0000 -> 1.0000"],
        ["", "one.trec", "two.trec"],
        ["1", "", "* a alpha"],
        ["# q1: RR@2 1.0000 -> 0.5000"],
        ["", "one.trec", "two.trec"],
        ["1", "* a alpha", "x"],
        ["2", "x", "* b"],
    ]
    assert "p corrected by Holm over 1" in outcome.err
    assert "two one-sided tests against 0.9" in outcome.err


def test_the_same_as_json(runs: Path, run: Run) -> None:
    outcome = run("compare", "one.trec", "two.trec", "--qrels", "qrels.txt", "-m", "RR@2", "--json", "--margin", "0.9")
    found = outcome.json
    assert found["baseline"]["run"] == "one.trec"
    assert (found["queries"], found["correction"]) == (3, {"method": "holm", "comparisons": 1})
    (comparison,) = found["comparisons"]
    assert comparison["difference"] == pytest.approx(1 / 3)
    assert comparison["verdict"] in {"equivalent", "no worse", "no better", "not shown"}
    assert found["changed"][0]["query_id"] == "q3"
    assert (found["changed"][0]["baseline_top"], found["changed"][0]["run_top"]) == ([], ["a"])


def test_graded_judgments_and_a_binary_measure_are_told(runs: Path, run: Run) -> None:
    (runs / "graded.txt").write_text(QRELS + "q3 0 z 3\n")
    arguments = ("compare", "one.trec", "two.trec", "--qrels", "graded.txt")
    assert "graded; RR@2 take grade 1" in run(*arguments, "-m", "RR@2", "-m", "nDCG@2").err
    assert "graded;" not in run(*arguments, "-m", "RR(rel=2)@2", "-m", "nDCG@2").err


@pytest.mark.parametrize(
    ("code", "arguments", "parts"),
    [
        (2, ["one.trec"], ["one run", "tiercel compare BASELINE RUN"]),
        (2, ["one.trec", "one.trec"], ["a run named twice"]),
        (2, ["one.trec", "two.trec", "-m", "nDGC@10"], ["'nDGC@10' is not a known measure", "nDCG"]),
        (2, ["one.trec", "two.trec", "--margin", "0"], ["the margin 0"]),
        (3, ["one.trec", "empty.trec"], ["empty.trec: no ranking in it"]),
        (3, ["one.trec", "other.trec"], ["other.trec: ", "no id is in both"]),
        (3, ["one.trec", "late.trec"], ["late.trec: no judged query with hits that one.trec answers"]),
        (3, ["one.trec", "twice.trec"], ["twice.trec:2: document 'a' a second time for query 'q1'"]),
        (3, ["one.trec", "word.trec"], ["word.trec:1: the score 'high'; expected a finite number"]),
    ],
)
def test_what_cannot_be_compared(
    code: int, arguments: list[str], parts: list[str], runs: Path, refused: Callable[..., str]
) -> None:
    (runs / "empty.trec").write_text("")
    (runs / "other.trec").write_text("z1 Q0 a 1 1 t\n")
    (runs / "late.trec").write_text("q3 Q0 a 1 1 t\n")
    (runs / "twice.trec").write_text("q1 Q0 a 1 2 t\nq1 Q0 a 2 1 t\n")
    (runs / "word.trec").write_text("q1 Q0 a 1 high t\n")
    message = refused(code, "compare", *arguments, "--qrels", "qrels.txt")
    assert [part for part in parts if part not in message] == []
