"""Indexes of every format that was ever written are opened, searched, verified, changed and compacted.

`tests/data/index_v1` was made by `make_index_v1` below, `index_v2` by `make_index_v2`. They are never made again: when
a format changes, a function for the new one is added, and these indexes must still open.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

from tests.index.made import (
    JointWords,
    add_documents,
    asked,
    build_index,
    compact_index,
    delete_documents,
    settings_of,
)
from tiercel.data.chunking import Chunking
from tiercel.index.dense import DenseRetriever
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.manifest import FORMAT, TokensRecord
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.protocols import CandidateGroup, Retriever
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.types import DocId, Document

INDEX_V1 = Path(__file__).parents[1] / "data" / "index_v1"
INDEX_V2 = Path(__file__).parents[1] / "data" / "index_v2"
ENCODER = JointWords(8)


def document(doc_id: str, title: str, text: str, **metadata: object) -> Document:
    return Document(DocId(doc_id), text, title, metadata)


FIRST = [
    document("a", "Falcons", "the falcon hunts pigeons at dawn", year=2020, tags=["bird", "prey"], open=True),
    document("b", "Tiercels", "a tiercel is a male falcon", year=2021, day=date(2021, 5, 17).isoformat()),
    document("c", "", "鷹は鳩を狩る", year=2022),
]
SECOND = [
    document("b", "Tiercels", "a tiercel is a third smaller than the female", year=2023, lang="en"),
    document("d", "Doves", "pigeons live in the city", lang="en"),
]


def make_index_v1(path: Path) -> None:
    """One segment with a deleted document, one without; passages, columns of every type, vectors."""
    made = settings_of("english", encoder=ENCODER, chunking=Chunking("tokens", 4, 1))
    build_index(path, FIRST, made, encoder=ENCODER)
    add_documents(path, SECOND, encoder=ENCODER)


def make_index_v2(path: Path) -> None:
    """The same with token vectors of the encoder, in 2 bits."""
    made = settings_of("english", encoder=ENCODER, tokens="2bit", chunking=Chunking("tokens", 4, 1))
    build_index(path, FIRST, made, encoder=ENCODER)
    add_documents(path, SECOND, encoder=ENCODER)


def found(index: Index, query: str, where: str = "") -> list[list[tuple[str, tuple[int, int] | None]]]:
    """Hits of both legs with their spans."""
    views = index.filtered(where)
    legs: list[Retriever] = [LexicalRetriever(views, index.analyzer), DenseRetriever(views, ENCODER)]
    rankings = [leg.retrieve(asked(query), keep=2)[0] for leg in legs]
    return [[(hit.doc_id, hit.span) for hit in ranking.hits] for ranking in rankings]


def check(index: Index) -> None:
    assert index.get([DocId(doc_id) for doc_id in "abcd"]) == [FIRST[0], SECOND[0], FIRST[2], SECOND[1]]
    # falcon pigeon dawn and dove pigeon live: of one length, so the ids decide
    assert found(index, "pigeons")[0] == [("a", (17, 32)), ("d", (0, 19))]
    assert found(index, "鳩を狩")[0] == [("c", (3, 6))]
    assert found(index, "male")[0] == []  # what was replaced
    assert found(index, "the falcon hunts")[1][0] == ("a", (0, 24))
    assert found(index, "pigeons", "lang = 'en' and year is null")[0] == [("d", (0, 19))]
    assert found(index, "pigeons", "tags contains 'prey' and open and year between 2019 and 2020")[0] == [
        ("a", (17, 32))
    ]
    index.verify()


def late(index: Index, query: str, doc_id: str) -> float:
    """The score of a document by its stored token vectors."""
    reranker = LateInteraction(ENCODER.tokens, stored=StoredTokens(index.views))
    (scores,) = reranker.score([CandidateGroup(asked(query)[0], [Document(DocId(doc_id), "")])])
    return float(scores[0])


def test_an_index_of_format_1_is_opened(tmp_path: Path) -> None:
    index = Index(INDEX_V1)
    assert dict(index.manifest.columns) == {
        "day": "date", "lang": "string", "open": "boolean", "tags": "list", "year": "number",
    }  # fmt: skip
    assert [(record.documents, record.live_documents) for record in index.manifest.segments] == [(3, 2), (2, 2)]
    check(index)


def test_an_index_of_format_1_is_changed(tmp_path: Path) -> None:
    shutil.copytree(INDEX_V1, tmp_path / "x")
    add_documents(tmp_path / "x", [document("e", "", "a hare", day="2026-11-21")], encoder=ENCODER)
    assert found(Index(tmp_path / "x"), "hare", "day > '2022-01-01'")[0] == [("e", (0, 6))]
    delete_documents(tmp_path / "x", "e")
    compact_index(tmp_path / "x")
    index = Index(tmp_path / "x")
    assert len(index.views) == 1
    check(index)


def test_what_is_written_today_is_the_same(tmp_path: Path) -> None:
    make_index_v1(tmp_path / "x")
    made, kept = Index(tmp_path / "x"), Index(INDEX_V1)
    assert made.manifest == kept.manifest


def test_what_is_changed_is_of_the_format_of_today(tmp_path: Path) -> None:
    assert json.loads((INDEX_V1 / "manifest.json").read_text())["format"] == 1
    shutil.copytree(INDEX_V1, tmp_path / "x")
    delete_documents(tmp_path / "x", "a")
    assert json.loads((tmp_path / "x" / "manifest.json").read_text())["format"] == FORMAT == 2
    Index(tmp_path / "x").verify()


def test_an_index_of_format_2_is_opened() -> None:
    index = Index(INDEX_V2)
    kept = index.manifest.settings.tokens
    assert kept == TokensRecord("hashed words", "encoder", "fp32", "hashed-tokens-8-1000000", 8, 512, "2bit")
    check(index)
    # Three tokens of the query of which "falcon hunts" is one passage's; 2 bits of 8 dimensions are coarse.
    assert late(index, "falcon hunts pigeons", "a") > 2
    assert late(index, "falcon hunts pigeons", "a") > late(index, "falcon hunts pigeons", "c")


def test_an_index_of_format_2_is_changed(tmp_path: Path) -> None:
    shutil.copytree(INDEX_V2, tmp_path / "x")
    add_documents(tmp_path / "x", [document("e", "", "a hare", day="2026-11-21")], encoder=ENCODER)
    assert late(Index(tmp_path / "x"), "hare", "e") > late(Index(tmp_path / "x"), "hare", "c")
    delete_documents(tmp_path / "x", "e")
    compact_index(tmp_path / "x")
    index = Index(tmp_path / "x")
    assert len(index.views) == 1
    check(index)


def test_what_is_written_of_format_2_is_of_the_same_shape(tmp_path: Path) -> None:
    """Of the same sizes: where training ends may differ between processors in the last digits."""
    make_index_v2(tmp_path / "x")
    made, kept = Index(tmp_path / "x").manifest, Index(INDEX_V2).manifest
    assert (made.settings, made.columns) == (kept.settings, kept.columns)
    for new, old in zip(made.segments, kept.segments, strict=True):
        assert replace(new, files={}, deletes=None) == replace(old, files={}, deletes=None)
        assert {name: file.size_bytes for name, file in new.files.items()} == {
            name: file.size_bytes for name, file in old.files.items()
        }
