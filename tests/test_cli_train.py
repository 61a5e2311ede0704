"""`tiercel train`, as a user gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.models.tiny import make_cross_encoder, make_encoder

DOCUMENTS = {"d1": "the falcon hunts", "d2": "cold bread", "d3": "the bridge is far"}
SETTINGS = ["--set", "epochs=2", "--set", "batch_groups=1", "--set", "max_tokens=24"]


def made_groups(path: Path) -> Path:
    def document(name: str, score: float) -> dict[str, object]:
        return {"id": name, "leg": "bm25", "rank": 1, "scores": {"bm25": score}, "teacher": score * 2}

    return write_lines(
        path,
        {"query_id": "q1", "query": "falcon", "positives": [document("d1", 3)], "negatives": [document("d2", 1)]},
        {"query_id": "q2", "query": "far", "positives": [document("d3", 1)], "negatives": [document("d1", 2)]},
    )


@pytest.fixture
def data(place: Path) -> list[str]:
    write_lines(place / "docs.jsonl", *({"_id": name, "text": text} for name, text in DOCUMENTS.items()))
    made_groups(place / "groups.jsonl")
    return ["--groups", "groups.jsonl", "--corpus", "docs.jsonl", *SETTINGS]


def test_every_family_is_trained_with_a_dev_measure(place: Path, run: Run, data: list[str]) -> None:
    make_cross_encoder(place / "cross-source")
    make_encoder(place / "encoder")
    sources = {"cross": "cross-source", "bi": "encoder", "late": "encoder", "distil": "encoder"}
    for family, source in sources.items():
        more = ["--set", "dimension=8"] if family == "late" else []
        outcome = run("train", family, source, family, *data, *more, "--dev", "groups.jsonl")
        assert outcome.code == 0, outcome
        assert f"{family}: 4 steps; dev nDCG@10 " in outcome.err
        assert "pairs/s" in outcome.err
        assert (place / family / "model.safetensors").is_file()
        assert not (place / family / "training").exists()


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["--set", "epoch=1"], "the setting 'epoch' is not known; expected 'epochs'?"),
        (2, ["--corpus", "a", "--corpus", "b"], "3 corpora for 1 files of groups"),
        (3, ["--groups", "unknown.jsonl"], "unknown.jsonl:1: the document id 'd9' of query 'q' is not in the corpus"),
        (3, ["--set", "distil=kl", "--set", "teacher=dense"], "groups.jsonl:1: no score of 'dense'"),
        (5, ["--resume"], "no checkpoint to go on from"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    place: Path, refused: Callable[..., str], data: list[str], code: int, arguments: list[str], message: str
) -> None:
    make_encoder(place / "encoder")
    line = {"query_id": "q", "query": "x", "positives": [{"id": "d1"}], "negatives": [{"id": "d9"}]}
    write_lines(place / "unknown.jsonl", line)
    assert message in refused(code, "train", "bi", "encoder", "out", *data, *arguments)
