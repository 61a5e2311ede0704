"""Several runs made one in the shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.fixture
def runs(place: Path) -> Path:
    (place / "one.trec").write_text("q1 Q0 c 1 3 t\nq1 Q0 b 2 2 t\nq1 Q0 a 3 1 t\n")
    (place / "two.trec").write_text("q1 Q0 b 1 9 t\nq1 Q0 d 2 8 t\nq2 Q0 x 1 1 t\n")
    return place


@pytest.mark.parametrize(
    ("more", "order"),
    [
        ([], "bcda"),  # b 1/62 + 1/61, c 1/61, d 1/62, a 1/63
        (["--k", "0", "--weights", "4,1"], "cbad"),  # c 4, b 4/2 + 1, a 4/3, d 1/2
        (["--method", "minmax"], "bcad"),  # b 1/2 + 1, c 1, a 0, d 0
        (["--method", "wsum", "--weights", "10,1"], "cbad"),  # c 30, b 29, a 10, d 8
        (["--method", "interleave"], "cbda"),
        (["--method", "interleave", "--keep", "2"], "cb"),
    ],
)
def test_every_method_to_stdout(more: list[str], order: str, runs: Path, run: Run) -> None:
    outcome = run("fuse", "one.trec", "two.trec", "--out", "-", *more)
    assert outcome.code == 0, outcome
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [line[2] for line in lines if line[0] == "q1"] == list(order)
    assert [line[2] for line in lines if line[0] == "q2"] == ["x"]


def test_a_file_keeps_the_scores_in_its_own_form(runs: Path, run: Run) -> None:
    assert run("fuse", "one.trec", "two.trec", "--method", "wsum", "--out", "fused.jsonl").code == 0
    assert '"doc_id":"b","rank":1,"score":11.0' in (runs / "fused.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["one.trec"], "one run; expected at least two"),
        (["one.trec", "two.trec", "--method", "wsum", "--k", "3"], "--k with wsum"),
        (["one.trec", "two.trec", "--weights", "1"], "the weights '1'; expected 2 numbers"),
        (["one.trec", "two.trec", "--weights", "1,x"], "the weights '1,x'"),
        (["one.trec", "two.trec", "--weights", "1,nan"], "the weights '1,nan'"),
        (["one.trec", "two.trec", "--method", "interleave", "--weights", "1,2"], "--weights with interleave"),
    ],
)
def test_what_cannot_be_fused(arguments: list[str], part: str, runs: Path, refused: Callable[..., str]) -> None:
    assert part in refused(2, "fuse", *arguments, "--out", "-")
