"""A better pipeline looked for in the shell, and used by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines

WORDS = [f"w{n}" for n in range(12)]
# The right document says the word once in three words, the wrong one three times among many: only a large b sees it.
SHORT = {f"right{n}": f"{word} one two" for n, word in enumerate(WORDS)}
LONG = {f"wrong{n}": " ".join([word] * 3 + [f"filler{i}" for i in range(40)]) for n, word in enumerate(WORDS)}


@pytest.fixture
def built(place: Path, run: Run) -> Path:
    write_lines(place / "c.jsonl", *({"_id": key, "text": text} for key, text in {**SHORT, **LONG}.items()))
    write_lines(place / "q.jsonl", *({"_id": f"q{n}", "text": word} for n, word in enumerate(WORDS)))
    (place / "qrels.txt").write_text("".join(f"q{n} 0 right{n} 1\n" for n in range(len(WORDS))))
    assert run("index", "idx", "c.jsonl", "--encoder", "none").code == 0
    return place


ASKED = ("--queries", "q.jsonl", "--qrels", "qrels.txt")


def test_the_winner_gets_a_name_that_pipeline_takes(built: Path, run: Run) -> None:
    outcome = run("tune", "idx", *ASKED, "-m", "RR@10")
    assert outcome.code == 0, outcome
    assert outcome.rows[0] == ["# held-out half: 6 queries"]
    assert outcome.rows[1] == ["", "pipeline", "RR@10", "p50 ms", "p95 ms"]
    given, winner = outcome.rows[2:4]
    assert given[:3] == ["given", "bm25", "0.5000"]
    assert (winner[0], winner[2]) == ("winner", "1.0000")
    assert f"kept: --pipeline tuned is {winner[1]}" in outcome.err
    measured = run("eval", "idx", *ASKED, "-p", "tuned", "-p", "bm25", "-m", "RR@10", "--json").json["pipelines"]
    figures = {name: report["stages"][-1]["measures"]["RR@10"] for name, report in measured.items()}
    assert figures == {winner[1]: 1.0, "bm25": 0.5}
    assert run("search", "idx", "w3", "-p", "tuned").rows[0][2] == "right3"
    assert run("search", "idx", "w3").rows[0][2] == "wrong3"


def test_json_and_nothing_named(built: Path, run: Run, refused: Callable[..., str]) -> None:
    found = run("tune", "idx", *ASKED, "-m", "RR@10", "--dry-run", "--json").json
    assert (found["training_queries"], found["held_out_queries"], found["kept_as"]) == (6, 6, None)
    assert found["gain"]["difference"] == pytest.approx(0.5)
    assert found["winner"]["measures"] == {"RR@10": 1.0}
    assert found["front"]
    assert "there is no recall leg called 'tuned'" in refused(2, "search", "idx", "w3", "-p", "tuned")


def test_no_gain_no_name(built: Path, run: Run) -> None:
    (built / "qrels.txt").write_text("".join(f"q{n} 0 wrong{n} 1\n" for n in range(len(WORDS))))
    outcome = run("tune", "idx", *ASKED, "-m", "RR@10")
    assert "the pipeline as given is the winner" in outcome.err
    assert not (built / "idx" / "pipelines.json").exists()


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, ["--latency-ms", "0"], "--latency-ms 0"),
        (2, ["--latency-ms", "nan"], "--latency-ms nan"),
        (2, ["--name", "bm25"], "the pipeline name 'bm25'"),
        (2, ["--name", "a b"], "the pipeline name 'a b'"),
        (2, ["-m", "nDGC@10"], "not a known measure"),
        (2, ["-p", "bm25:k9=1"], "the leg bm25:k9=1"),
        (2, ["--precision", "fp32"], "--precision without a stage that heeds it"),
        (3, ["--queries", "few.tsv"], "1 judged queries; expected at least 10"),
        (3, ["--queries", "none.tsv"], "there is no such file"),
    ],
)
def test_what_is_refused(built: Path, refused: Callable[..., str], code: int, arguments: list[str], part: str) -> None:
    (built / "few.tsv").write_text("q1\tw1\n")
    assert part in refused(code, "tune", "idx", *ASKED, *arguments)
