"""Scores that mean something, in the shell: calibrate, then search with --min-score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines

WORDS = [f"w{n}" for n in range(20)]
# The right document is made of the word, the wrong one holds it once among many.
RIGHT = {f"right{n}": f"{word} {word}" for n, word in enumerate(WORDS)}
WRONG = {f"wrong{n}": " ".join([word, *(f"filler{i}" for i in range(30))]) for n, word in enumerate(WORDS)}
ASKED = ("--queries", "q.jsonl", "--qrels", "qrels.txt")


@pytest.fixture
def built(place: Path, run: Run) -> Path:
    write_lines(place / "c.jsonl", *({"_id": key, "text": text} for key, text in {**RIGHT, **WRONG}.items()))
    write_lines(place / "q.jsonl", *({"_id": f"q{n}", "text": word} for n, word in enumerate(WORDS)))
    (place / "qrels.txt").write_text("".join(f"q{n} 0 right{n} 1\n" for n in range(len(WORDS))))
    assert run("index", "idx", "c.jsonl", "--encoder", "none").code == 0
    return place


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_hits_below_the_chance_are_left_out(built: Path, run: Run, method: str) -> None:
    outcome = run("calibrate", "idx", *ASKED, "--method", method)
    assert outcome.code == 0, outcome
    assert outcome.rows[0][:4] == ["pipeline", "method", "calibration error", "Brier"]
    assert outcome.rows[1][:2] == ["bm25", method]
    assert outcome.rows[1][-2:] == ["0.5000", "20"]
    assert "fitted on 10 queries, measured on 10 others" in outcome.err
    plain = run("search", "idx", "w3").rows
    assert [row[2] for row in plain] == ["right3", "wrong3"]
    assert run("search", "idx", "w3", "--min-score", "0.5").rows == plain[:1]
    assert run("search", "idx", "w3", "--min-score", "0").rows == plain
    assert (
        run("search", "idx", "w3", "-p", "bm25", "--min-score", "0.5", "--json").json["hits"][0]["doc_id"] == "right3"
    )
    none = run("search", "idx", "two filler1", "--min-score", "0.99")
    assert (none.code, none.out) == (0, "")
    assert "no hit has a chance of 0.99 to be relevant" in none.err


def test_json(built: Path, run: Run) -> None:
    found = run("calibrate", "idx", *ASKED, "--json").json
    assert (found["pipeline"], found["calibration"]["method"], found["held_out_hits"]) == ("bm25", "platt", 20)
    assert found["brier"] < found["usual_brier"]
    assert 0 <= found["error"] < 0.2


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, ["--min-score", "1.5"], "--min-score 1.5; expected a chance, from 0 to 1"),
        (2, ["--min-score", "nan"], "--min-score nan"),
        (2, ["--min-score", "0.5", "--k1", "2"], "--min-score with options that change the scores"),
        (4, ["--min-score", "0.5", "-p", "bm25@50"], "the pipeline bm25@50 is not calibrated"),
    ],
)
def test_what_search_refuses(
    built: Path, run: Run, refused: Callable[..., str], code: int, arguments: list[str], part: str
) -> None:
    assert run("calibrate", "idx", *ASKED).code == 0
    assert part in refused(code, "search", "idx", "w3", *arguments)


def test_a_kept_calibration_that_was_changed(built: Path, run: Run, refused: Callable[..., str]) -> None:
    assert run("calibrate", "idx", *ASKED).code == 0
    kept = built / "idx" / "calibrations.json"
    kept.write_text(kept.read_text().replace("platt", "plate"))
    assert "a calibration that cannot be read" in refused(3, "search", "idx", "w3", "--min-score", "0.5")
    kept.write_text(kept.read_text().replace("plate", "platt").replace("null", '"fp32"'))
    assert "--precision not given; expected fp32" in " ".join(
        refused(4, "search", "idx", "w3", "--min-score", "0.5").replace("idx: ", "").split()
    )


@pytest.mark.parametrize(
    ("code", "arguments", "part"),
    [
        (2, ["-p", "bm52"], "there is no recall leg called 'bm52'"),
        (2, ["--precision", "fp32"], "--precision without a stage that heeds it"),
        (3, ["--queries", "few.tsv"], "1 judged queries; expected at least 10"),
        (3, ["--qrels", "other.txt"], "all are relevant"),
    ],
)
def test_what_calibrate_refuses(
    built: Path, refused: Callable[..., str], code: int, arguments: list[str], part: str
) -> None:
    (built / "few.tsv").write_text("q1\tw1\n")
    both = "".join(f"q{n} 0 {side}{n} 1\n" for n in range(len(WORDS)) for side in ("right", "wrong"))
    (built / "other.txt").write_text(both)
    assert part in refused(code, "calibrate", "idx", *ASKED, *arguments)


@pytest.mark.parametrize("arguments", [["--method", "spline"], ["-k", "0"], ["--seed", "-1"]])
def test_values_out_of_range(built: Path, run: Run, arguments: list[str]) -> None:
    assert run("calibrate", "idx", *ASKED, *arguments).code == 2
