"""Late interaction from the shell: indexing token vectors, searching, evaluating and reranking with them.

The networks are stand-ins: each word is a fixed direction. Everything else is what a user runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.index.made import HashedTokens, JointWords
from tiercel.models.description import (
    ModelDescription,
    ModelFamily,
    Probe,
    Prompts,
    read_description,
    write_description,
)

Refused = Callable[..., str]

TEXTS = {
    "a": "the falcon hunts in winter",
    "b": "bread is sold by the bridge",
    "c": "nobody swims in the deep river. the owl rests there in summer",
    "d": "the falcon swims",
}


class FakeTokenEncoder(HashedTokens):
    def __init__(self, folder: Path, *, provider: str, threads: int) -> None:
        super().__init__(16)
        self.fingerprint = read_description(folder).fingerprint


class FakeEncoder(JointWords):
    def __init__(self, folder: Path, *, provider: str, threads: int) -> None:
        super().__init__(16)
        self.description = read_description(folder)
        self.fingerprint = self.description.fingerprint
        self.tokens.fingerprint = f"{self.fingerprint}-tokens"


def exported(place: Path, name: str, family: ModelFamily) -> str:
    """A folder that says that it holds a model."""
    (place / name).mkdir()
    about = ModelDescription(
        family, name, "made here", "fp32", 16, 64, Prompts(), f"print-of-{name}", {}, Probe((), ()), "none"
    )  # fmt: skip
    write_description(place / name, about)
    return name


@pytest.fixture
def corpus(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The collection; `late` and `other` are late-interaction models, `joint` an encoder that knows its tokens."""
    monkeypatch.setattr("tiercel.models.token_encoder.OnnxTokenEncoder", FakeTokenEncoder)
    monkeypatch.setattr("tiercel.models.encoder.OnnxEncoder", FakeEncoder)
    exported(place, "late", "late-interaction")
    exported(place, "other", "late-interaction")
    exported(place, "joint", "encoder")
    write_lines(place / "c.jsonl", *({"id": key, "text": text} for key, text in TEXTS.items()))
    return "c.jsonl"


def searched(run: Run, *arguments: str) -> list[str]:
    outcome = run("search", "x", *arguments)
    assert outcome.code == 0, outcome
    return [row[2] for row in outcome.rows]


def index_with(run: Run, corpus: str, *arguments: str) -> None:
    outcome = run("index", "x", corpus, *arguments)
    assert outcome.code == 0, outcome


@pytest.mark.parametrize("codec", ["2bit", "4bit", "int8", "fp16"])
def test_the_encoders_own_tokens(run: Run, corpus: str, codec: str) -> None:
    index_with(run, corpus, "--encoder", "joint", "--tokens", codec)
    assert run("verify", "x").code == 0
    facts = run("info", "x", "--json").json
    assert facts["settings"]["tokens"]["codec"] == codec
    assert facts["settings"]["tokens"]["family"] == "encoder"
    (segment,) = facts["segments"]
    sizes = {"fp16": 32, "int8": 16, "4bit": 10, "2bit": 6}
    assert segment["tokens"] == {"vectors": 17, "truncated": 0, "per_row": 4.25, "bytes_per_token": sizes[codec]}
    assert segment["bytes"]["tokens"] > 17 * sizes[codec]
    assert f"tokens\t{codec} by " in run("info", "x").out
    assert set(searched(run, "falcon swims", "-p", "bm25+dense@4,late@2", "-k", "2")) <= set(TEXTS)
    if codec in ("fp16", "int8"):
        assert searched(run, "falcon swims", "-p", "bm25+dense@4,late@2")[0] == "d"


def test_bm25_and_late_without_an_encoder(run: Run, corpus: str, place: Path) -> None:
    index_with(run, corpus, "--encoder", "none", "--tokens", "fp16", "--token-model", "late")
    found = run("search", "x", "falcon swims", "-p", "bm25@4,late@4", "--json").json["hits"]
    assert found[0]["doc_id"] == "d"
    assert found[0]["score"] == pytest.approx(2, abs=1e-3)
    write_lines(place / "more.jsonl", {"id": "e", "text": "a falcon swims and swims"}, {"id": "b", "text": "falcon"})
    index_with(run, "more.jsonl")
    assert set(searched(run, "falcon swims", "-p", "bm25@9,late@2")) == {"d", "e"}
    assert run("delete", "x", "e").code == 0
    assert run("compact", "x").code == 0
    assert run("verify", "x").code == 0
    assert searched(run, "falcon swims", "-p", "bm25@9,late@1") == ["d"]


def test_passages_are_scored_by_themselves(run: Run, corpus: str) -> None:
    index_with(run, corpus, "--encoder", "none", "--tokens", "fp16", "--token-model", "late", "--chunk", "sentences",
               "--chunk-size", "7")  # fmt: skip
    found = run("search", "x", "owl rests summer", "-p", "bm25@9,late@9", "--passages", "--json").json["hits"]
    assert found[0]["doc_id"] == "c"
    assert found[0]["text"].startswith("the owl rests")
    assert found[0]["score"] == pytest.approx(3, abs=1e-3)


def test_a_model_by_name_takes_stored_vectors_or_encodes_as_it_goes(run: Run, corpus: str) -> None:
    index_with(run, corpus, "--encoder", "none", "--tokens", "fp16", "--token-model", "late")
    stored = run("search", "x", "falcon swims", "-p", "bm25,late:late@3")
    assert (stored.code, stored.err) == (0, "")
    made = run("search", "x", "falcon swims", "-p", "bm25,late:other@3")
    assert [row[2] for row in made.rows] == [row[2] for row in stored.rows]
    assert made.err == (
        "tiercel: late:other: the index has no token vectors of this model, so candidates are encoded as they come\n"
    )
    index_with(run, corpus, "--replace", "--encoder", "joint", "--tokens", "fp16")
    by_name = run("search", "x", "falcon swims", "-p", "bm25,late:joint@3")
    assert (by_name.code, by_name.err) == (0, "")


def test_late_without_tokens_or_a_model_is_refused(run: Run, refused: Refused, corpus: str) -> None:
    index_with(run, corpus, "--encoder", "none")
    message = refused(4, "search", "x", "falcon", "-p", "bm25,late@3")
    assert "the index has no token vectors; expected an index made with --tokens for the stage 'late'" in message
    assert "Name a model, as in late:MODEL, or build the index again with --tokens 2bit." in message
    assert "no model is called 'nowhere'" in refused(5, "search", "x", "falcon", "-p", "bm25,late:nowhere@3")
    assert run("search", "x", "falcon", "-p", "bm25,late:late@3").code == 0


@pytest.mark.parametrize(
    ("arguments", "found", "expected"),
    [
        (["--tokens", "int8"], "--tokens int8", "fp16"),
        (["--token-model", "other"], "token model other of fingerprint print-of-other", "of fingerprint print-of-late"),
    ],
)
def test_another_codec_or_model_is_refused_when_adding(
    run: Run, refused: Refused, corpus: str, arguments: Sequence[str], found: str, expected: str
) -> None:
    index_with(run, corpus, "--encoder", "none", "--tokens", "fp16", "--token-model", "late")
    index_with(run, corpus, "--tokens", "fp16", "--token-model", "late")
    message = refused(4, "index", "x", corpus, *arguments)
    assert found in message
    assert f"{expected}, with which the index was made" in message


def test_what_an_index_without_tokens_is_asked_for_is_refused(run: Run, refused: Refused, corpus: str) -> None:
    index_with(run, corpus, "--encoder", "none")
    assert "--tokens 2bit; expected none, with which" in refused(4, "index", "x", corpus, "--tokens", "2bit")
    assert "--token-model late; expected no tokens" in refused(4, "index", "x", corpus, "--token-model", "late")
    assert "no --token-model" in refused(2, "index", "y", corpus, "--encoder", "none", "--tokens", "2bit")
    assert "--token-model without --tokens" in refused(2, "index", "y", corpus, "--token-model", "late")


def test_an_encoder_will_do_as_the_token_model(run: Run, corpus: str) -> None:
    index_with(run, corpus, "--encoder", "none", "--tokens", "fp16", "--token-model", "joint")
    assert run("search", "x", "falcon swims", "-p", "bm25@4,late@4", "--json").json["hits"][0]["doc_id"] == "d"


def test_a_model_that_is_another_one_now_is_refused(run: Run, refused: Refused, corpus: str, place: Path) -> None:
    index_with(run, corpus, "--encoder", "none", "--tokens", "fp16", "--token-model", "late")
    path = place / "late" / "tiercel.json"
    path.write_text(path.read_text().replace("print-of-late", "print-of-tomorrow"))
    message = refused(4, "search", "x", "falcon", "-p", "bm25,late@3")
    assert "has the fingerprint print-of-tomorrow for tokens; expected print-of-late" in message
    assert "Vectors of two models cannot be compared" in message


def test_a_pipeline_with_late_is_evaluated(run: Run, corpus: str, place: Path) -> None:
    index_with(run, corpus, "--encoder", "joint", "--tokens", "fp16")
    (place / "q.tsv").write_text("q1\tfalcon swims\nq2\tnothing known\n")
    (place / "qrels.txt").write_text("q1 0 d 1\nq2 0 a 1\n")
    outcome = run("eval", "x", "--queries", "q.tsv", "--qrels", "qrels.txt", "-p", "bm25@4,late@2", "-m", "RR@10")
    assert outcome.code == 0, outcome
    assert [row[:2] for row in outcome.rows[2:]] == [["bm25", "0.5000"], ["late@2", "0.5000"]]


def test_candidates_on_stdin_are_scored_by_their_tokens(run: Run, refused: Refused, corpus: str) -> None:
    line = {"query": "falcon swims", "documents": [{"id": key, "text": text} for key, text in TEXTS.items()]}
    stdin = f"{json.dumps(line)}\n{json.dumps({'query': 'river', 'documents': []})}\n".encode()
    outcome = run("rerank", "-", "--model", "late", stdin=stdin)
    assert outcome.code == 0, outcome
    first, second = (json.loads(line) for line in outcome.out.splitlines())
    assert (first["hits"][0]["rank"], first["hits"][0]["doc_id"]) == (1, "d")
    assert first["hits"][0]["score"] == pytest.approx(2, abs=1e-5)
    assert second["hits"] == []
    assert "--long max with a model of the family late-interaction" in refused(
        2, "rerank", "-", "--model", "late", "--long", "max", stdin=stdin
    )
    assert "--score sigmoid with late interaction" in refused(
        2, "rerank", "-", "--model", "late", "--score", "sigmoid", stdin=stdin
    )
