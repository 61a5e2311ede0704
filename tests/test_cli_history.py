"""Conversations from the shell: earlier turns of a query, queries that have some, candidates of a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FALCONS, Models, Run, write_lines

Refused = Callable[..., str]


@pytest.fixture
def index(place: Path, run: Run) -> str:
    write_lines(place / "docs.jsonl", *FALCONS)
    assert run("index", "idx", "docs.jsonl", "--encoder", "none").code == 0
    return "idx"


def test_a_history_is_handed_on_and_not_searched_for(run: Run, index: str, place: Path) -> None:
    (place / "turns.jsonl").write_text('"who hunts?"\n{"text": "a falcon"}\n')
    found = run("search", index, "bread", "--history", "turns.jsonl", "--json").json
    assert (found["query"], found["history"]) == ("bread", ["who hunts?", "a falcon"])
    assert [hit["doc_id"] for hit in found["hits"]] == ["d2"]
    assert "history" not in run("search", index, "bread", "--json").json


def test_queries_of_a_file_have_their_own(run: Run, index: str, place: Path) -> None:
    write_lines(place / "q.jsonl", {"id": "q1", "text": "bread", "history": ["a falcon"]})
    assert run("search", index, "--queries", "q.jsonl", "--json").json["history"] == ["a falcon"]
    out = run("search", index, "--queries", "q.jsonl", "--run", "-", "--run-format", "jsonl").json
    assert (out["history"], [hit["doc_id"] for hit in out["hits"]]) == (["a falcon"], ["d2"])


def test_what_cannot_be_a_history(refused: Refused, index: str, place: Path) -> None:
    write_lines(place / "q.jsonl", {"id": "q1", "text": "bread", "history": "a falcon"})
    (place / "turns.jsonl").write_text("who hunts?\n")
    message = refused(2, "search", index, "--queries", "q.jsonl", "--history", "turns.jsonl")
    assert "--history and --queries were given" in message
    assert "each has its own" in message
    message = refused(3, "search", index, "bread", "--history", "turns.jsonl")
    assert "turns.jsonl:1: this is not JSON" in message
    assert 'a turn: a string, or an object with "text"' in message
    assert "there is no such file" in refused(3, "search", index, "bread", "--history", "none.jsonl")
    message = refused(3, "search", index, "--queries", "q.jsonl")
    assert "q.jsonl:1: the string 'a falcon' as 'history'; expected a list of strings, oldest first" in message


def test_candidates_of_a_conversation_are_reranked(run: Run, refused: Refused, models: Models) -> None:
    line = {"id": "talk-1", "context": ["hello", "who hunts?"], "candidates": ["bread", "the falcon"], "label": 1}
    whole = run("rerank", "-", "--model", models.cross, stdin=json.dumps(line).encode()).json
    assert (whole["query_id"], whole["query"], whole["history"]) == ("talk-1", "who hunts?", ["hello"])
    alone = {"query": "who hunts?", "documents": line["candidates"]}
    assert whole["hits"] == run("rerank", "-", "--model", models.cross, stdin=json.dumps(alone).encode()).json["hits"]
    for wrong, found in ((["hello", 1], "the number 1 in 'context'"), ([], "a list of 0 as 'context'")):
        bad = json.dumps(line | {"context": wrong}).encode()
        assert f"<stdin>:1: {found}" in refused(3, "rerank", "-", "--model", models.cross, stdin=bad)
