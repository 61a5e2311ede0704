from __future__ import annotations

import re

from tests.evaluation.made import QRELS, make_ranking
from tiercel.evaluation.latency import Latency
from tiercel.evaluation.measures import EvaluationResult, evaluate, parse_measures
from tiercel.evaluation.report import PipelineReport, SetReport, StageRow
from tiercel.html.report import report_page, runs_page
from tiercel.retrieve.trace import ReadCount

MEASURES = parse_measures(["RR@10", "nDCG@10"])


def result(*first: str) -> EvaluationResult:
    """q1 is answered so, q2 and q3 always alike."""
    return evaluate(
        [make_ranking("q1", *first), make_ranking("q2", "a"), make_ranking("q3", "x", "a")], QRELS, MEASURES
    )


def report(found: EvaluationResult, *, latency: bool = True) -> PipelineReport:
    """A pipeline of one stage."""
    timed = Latency(1.5, 2.0, 3.0, 3) if latency else None
    row = StageRow("<late>@3", found, 2.0, 0.5, 0.75, 3, timed, ReadCount(1234, 5))
    return PipelineReport((row,), timed, keep=100, unjudged_queries=1)


def test_pipelines_and_their_differences() -> None:
    pipelines = {"<one>": report(result("a")), "two": report(result("x", "a")), "three": report(result("a"))}
    html = report_page([SetReport("set & qrels", ("a note",), pipelines)], ["idx: 3 documents"])
    for text in ("set &amp; qrels", "a note", "idx: 3 documents", "&lt;late&gt;@3", "1,234", "two against &lt;one&gt;"):
        assert text in html
    assert html.count("<svg") == 1 + 3 + 2
    assert re.findall(r'<p class="verdict">(.*?)</p>', html) == [
        "0 queries better, 2 the same, 1 worse.", "0 queries better, 3 the same, 0 worse.",
    ]  # fmt: skip
    # Only q1 differs: RR 1 and 1/2.
    rows = re.findall(r'<tr><th scope="row">(q[0-9])</th>(.*?)</tr>', html)
    assert [(query, re.findall(r"<td>(.*?)</td>", cells)) for query, cells in rows] == [
        ("q1", ["1.0000", "0.5000", "-0.5000"])
    ]


def test_without_latency_there_is_no_plot_of_it() -> None:
    html = report_page([SetReport("set", (), {"one": report(result("a"), latency=False)})], [])
    assert "Quality against latency" not in html
    assert html.count("<svg") == 1


def test_several_sets_are_sections() -> None:
    one = {"one": report(result("a"))}
    html = report_page([SetReport("first", (), one), SetReport("second", (), one)], [])
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["first", "second"]


def test_runs() -> None:
    html = runs_page("qrels", {"a.run": result("a"), "b.run": result("x", "a")}, ["a note"])
    assert "b.run against a.run" in html
    assert html.count("<svg") == 1
