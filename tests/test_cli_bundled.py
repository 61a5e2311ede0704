"""The model that comes along, from the shell: indexed, searched and reranked with, and nothing stands in for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines

CHECKPOINTS = Path(__file__).parent / "models" / "checkpoints"
TEXTS = {
    "osprey": "Ospreys dive into lakes for fish.",
    "bread": "Bread is baked early in the morning.",
    "ice": "The river freezes in January.",
}
ASKED = {"query": "which bird catches fish", "documents": list(TEXTS.values())}


def test_an_index_with_token_vectors_is_asked_through_every_stage_unless_told(place: Path, run: Run) -> None:
    write_lines(place / "c.jsonl", *({"id": key, "text": text} for key, text in TEXTS.items()))
    assert run("index", "x", "c.jsonl", "--tokens", "4bit").code == 0
    found = run("search", "x", "which bird catches fish", "--json").json
    assert (found["stage"], found["hits"][0]["doc_id"]) == ("minmax:late", "osprey")
    alone = run("search", "x", "which bird catches fish", "-p", "bm25+dense,late", "--json").json
    made_as_asked = run("search", "x", "which bird catches fish", "-p", "bm25+dense,late:tiercel-minilm", "--json").json
    for stored, exact in zip(alone["hits"], made_as_asked["hits"], strict=True):
        assert stored["doc_id"] == exact["doc_id"]
        assert stored["score"] == pytest.approx(exact["score"], abs=0.2)  # what 4 bits lose over ten tokens


@pytest.mark.parametrize("model", ["tiercel-minilm", str(CHECKPOINTS / "stanford_0_2")])
def test_a_late_interaction_model_is_recognised_where_candidates_are_reranked(
    model: str, place: Path, run: Run
) -> None:
    write_lines(place / "in.jsonl", ASKED)
    arguments = ["rerank", "in.jsonl", "--model", model]
    outcome = run(*arguments, *([] if model == "tiercel-minilm" else ["--precision", "fp32"]))
    assert outcome.code == 0, outcome
    hits = json.loads(outcome.out)["hits"]
    assert len(hits) == 3
    if model == "tiercel-minilm":  # the other one has random weights
        assert hits[0]["text"] == TEXTS["osprey"]
