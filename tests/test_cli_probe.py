"""An index tried without judgments, in the shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.index.made import zipf_texts


@pytest.fixture
def built(place: Path, run: Run) -> Path:
    """A BM25 index `idx` of 60 documents, every second with a title."""
    texts = zipf_texts(60, words=2000, seed=4, longest=40)
    records = [{"_id": f"d{n}", "text": text, "title": f"t{n} title" * (n % 2)} for n, text in enumerate(texts)]
    write_lines(place / "corpus.jsonl", *records)
    assert run("index", "idx", "corpus.jsonl", "--encoder", "none").code == 0
    return place


def test_a_table_for_each_pipeline_and_measure(built: Path, run: Run) -> None:
    outcome = run("probe", "idx", "--documents", "20", "-m", "RR@10", "-m", "R@5", "-p", "bm25@50", "-p", "bm25@3")
    assert outcome.code == 0
    titles = [row[0] for row in outcome.rows if row[0].startswith("#")]
    assert titles == ["# bm25@50 RR@10", "# bm25@50 R@5", "# bm25@3 RR@10", "# bm25@3 R@5"]
    assert outcome.rows[1] == ["query", "plain", "typo", "lower", "reordered", "mean", "worst", "items"]
    assert [row[0] for row in outcome.rows[2:6]] == ["keywords", "snippet", "title", "all"]
    assert "20 documents drawn with seed 1" in outcome.err


def test_json_twice_is_the_same(built: Path, run: Run) -> None:
    first, again = (run("probe", "idx", "--documents", "20", "--seed", "7", "--json") for _ in range(2))
    assert first.out == again.out
    found = first.json
    assert (found["seed"], found["documents"], found["providers"]) == (7, 20, {"RR@10": "msmarco"})
    assert found["queries"] == 4 * found["items"]
    rows = found["pipelines"]["bm25"]["RR@10"]
    assert set(rows[0]) == {"kind", "items", "forms", "mean", "worst"}
    assert run("probe", "idx", "--documents", "20", "--seed", "8", "--json").out != first.out


def test_what_is_written_gives_the_same_figure(built: Path, run: Run) -> None:
    found = run("probe", "idx", "--documents", "20", "--out", "made", "--json").json
    measured = run("eval", "idx", "--queries", "made", "--qrels", "made", "-m", "RR@10", "-p", "bm25", "--json").json
    by_probe = found["pipelines"]["bm25"]["RR@10"][-1]["mean"]
    assert measured["pipelines"]["bm25"]["stages"][-1]["measures"]["RR@10"] == pytest.approx(by_probe)


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, ["idx", "--out", "."], "--out ., which is there already; expected a new or an empty folder"),
        (2, ["idx", "-m", "nDGC@10"], "not a known measure"),
        (2, ["idx", "-p", "bm52"], "there is no recall leg called 'bm52'"),
        (2, ["idx", "--precision", "fp32"], "--precision without a stage that heeds it"),
        (4, ["nothing"], "no such folder"),
        (4, ["idx", "-p", "dense"], "the index has no vectors"),
    ],
)
def test_what_is_refused(built: Path, refused: Callable[..., str], code: int, arguments: list[str], part: str) -> None:
    assert part in refused(code, "probe", *arguments)


@pytest.mark.parametrize("arguments", [["--documents", "0"], ["--seed", "-1"], ["--documents", "many"]])
def test_numbers_out_of_range(built: Path, run: Run, arguments: list[str]) -> None:
    assert run("probe", "idx", *arguments).code == 2


def test_bench_a_line_for_each_number_of_callers(built: Path, run: Run) -> None:
    outcome = run("bench", "idx", "-p", "bm25@50", "-p", "bm25@3", "--callers", "3", "--requests", "12")
    assert outcome.code == 0
    assert [row[0] for row in outcome.rows] == [
        "# bm25@50", "callers", "1", "2", "3", "# bm25@3", "callers", "1", "2", "3",
    ]  # fmt: skip
    assert outcome.rows[1] == ["callers", "queries/s", "p50 ms", "p95 ms", "p99 ms"]
    assert all(float(cell) >= 0 for cell in outcome.rows[2][1:])
    assert "12 requests for each line" in outcome.err
    assert "made of the index's documents" in outcome.err


def test_bench_of_ones_own_queries_as_json(built: Path, run: Run) -> None:
    (built / "q.tsv").write_text("q1\tw1 w2\nq2\tw3\n")
    found = run("bench", "idx", "--queries", "q.tsv", "--callers", "2", "--requests", "5", "--json").json
    assert (found["queries"], found["source"]) == (2, "of q.tsv")
    one, two = found["pipelines"]["bm25"]
    assert (one["callers"], two["callers"]) == (1, 2)
    assert one["latency"]["count"] == 5
    assert 0 < one["latency"]["p50_ms"] <= one["latency"]["p95_ms"] <= one["latency"]["p99_ms"]
    assert one["per_second"] > 0


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, ["idx", "--query-format", "tsv"], "the form of queries without --queries"),
        (2, ["idx", "--budget-ms", "5"], "--budget-ms with the pipeline bm25"),
        (2, ["idx", "--precision", "fp32"], "--precision without a stage that heeds it"),
        (2, ["idx", "-p", "bm52"], "there is no recall leg called 'bm52'"),
        (3, ["idx", "--queries", "none.tsv"], "there is no such file"),
        (3, ["idx", "--queries", "empty.tsv"], "there is no query in it"),
        (4, ["nothing"], "no such folder"),
    ],
)
def test_what_bench_refuses(
    built: Path, refused: Callable[..., str], code: int, arguments: list[str], part: str
) -> None:
    (built / "empty.tsv").write_text("")
    assert part in refused(code, "bench", *arguments)


@pytest.mark.parametrize("arguments", [["--callers", "0"], ["--callers", "5000"], ["--requests", "0"], ["-k", "0"]])
def test_bench_numbers_out_of_range(built: Path, run: Run, arguments: list[str]) -> None:
    assert run("bench", "idx", *arguments).code == 2
