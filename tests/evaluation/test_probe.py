from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.index.made import add_documents, asked, delete_documents, indexed, named, zipf_texts
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.errors import UsageError
from tiercel.evaluation.known_items import FORMS
from tiercel.evaluation.measures import parse_measures
from tiercel.evaluation.probe import KnownItem, KnownItems, make_known_items, probe, write_known_items
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.store import Index
from tiercel.types import DocId, Document, Query, QueryId, Ranking

RR = parse_measures(["RR@10"])


def item(kind: str, right: set[str], *, of: str) -> KnownItem:
    queries = {form: Query(QueryId(f"{kind}-{form}-{of}"), form) for form in FORMS}
    return KnownItem(DocId(min(right)), kind, queries, frozenset(map(DocId, right)))  # type: ignore[arg-type]


class ByForm:
    """Finds d1 first for a plain query, second for one of lower case or mixed words, and not at all with slips."""

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        found = {"plain": ["d1"], "lower": ["x", "d1"], "reordered": ["x", "d1"], "typo": ["x"]}
        return [
            Ranking.from_scores(
                query,
                list(map(DocId, found[query.text])),
                [-n for n in range(len(found[query.text]))],
                stage="s",
                keep=keep,
            )
            for query in queries
        ]


def test_by_hand() -> None:
    known = KnownItems((item("snippet", {"d1"}, of="d1"), item("title", {"d1", "x"}, of="x")), 2, 0, 1)
    rows = probe(ByForm(), known, measures=RR, keep=10)["RR@10"]
    assert [(row.kind, row.items) for row in rows] == [("snippet", 1), ("title", 1), ("all", 2)]
    assert rows[0].forms == {"plain": 1, "typo": 0, "lower": 0.5, "reordered": 0.5}
    assert (rows[0].mean, rows[0].worst) == (0.5, 0)
    # x is a near-duplicate of what is looked for: found first in every form.
    assert (rows[1].mean, rows[1].worst) == (1, 1)
    assert rows[2].forms == {"plain": 1, "typo": 0.5, "lower": 0.75, "reordered": 0.75}
    assert (rows[2].mean, rows[2].worst) == (0.75, 0.5)


def test_bm25_finds_snippets_again_and_slips_cost(tmp_path: Path) -> None:
    texts = zipf_texts(200, words=3000, seed=5, longest=60)
    index = indexed(tmp_path / "i", named(texts))
    known = make_known_items(index, documents=50, seed=1)
    assert known.documents == 50
    assert {item.kind for item in known.items} == {"keywords", "snippet"}
    rows = {
        row.kind: row
        for row in probe(LexicalRetriever(index.views, index.analyzer), known, measures=RR, keep=10)["RR@10"]
    }
    assert rows["snippet"].forms["plain"] > 0.9
    assert rows["snippet"].forms["lower"] == rows["snippet"].forms["reordered"] == rows["snippet"].forms["plain"]
    assert rows["all"].worst < rows["all"].mean


def test_the_same_queries_however_the_index_is_cut(tmp_path: Path) -> None:
    documents = named(zipf_texts(40, words=300, seed=2, longest=30))
    whole = make_known_items(indexed(tmp_path / "whole", documents), documents=10, seed=3)
    indexed(tmp_path / "parts", [*documents[:15], Document(DocId("gone"), "the one that goes")])
    add_documents(tmp_path / "parts", documents[15:])
    delete_documents(tmp_path / "parts", "gone")
    assert make_known_items(Index(tmp_path / "parts"), documents=10, seed=3) == whole
    assert make_known_items(Index(tmp_path / "parts"), documents=10, seed=4) != whole


def test_a_near_duplicate_is_found_too(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(40)]
    texts = {
        "first": " ".join(words),
        "again": " ".join(["quoted", *words, "end"]),
        "half": " ".join([*words[:20], *[f"v{n}" for n in range(20)]]),
        "other": " ".join(f"u{n}" for n in range(40)),
    }
    index = indexed(tmp_path / "i", [Document(DocId(name), text) for name, text in texts.items()])
    right = {
        item.queries["plain"].id.rpartition("-")[2]: item.right
        for item in make_known_items(index, documents=4, seed=1).items
    }
    # "again" holds all 38 runs of three words of "first", and "first" 38 of its 40.
    assert right == {
        "first": {"first", "again"},
        "again": {"first", "again"},
        "half": {"half"},
        "other": {"other"},
    }


def test_documents_of_one_title_are_one_for_their_title_only(tmp_path: Path) -> None:
    made = [
        Document(DocId("a"), "alpha beta gamma delta", "The Index"),
        Document(DocId("b"), "four quite other words", "the index"),
    ]
    known = make_known_items(indexed(tmp_path / "i", made), documents=2, seed=1)
    assert {(item.kind, item.right) for item in known.items} == {
        ("keywords", frozenset({"a"})), ("snippet", frozenset({"a"})), ("title", frozenset({"a", "b"})),
        ("keywords", frozenset({"b"})), ("snippet", frozenset({"b"})),
    }  # fmt: skip


def test_documents_without_words_are_counted(tmp_path: Path) -> None:
    index = indexed(tmp_path / "i", named(["", "one two", "three words here"]))
    known = make_known_items(index, documents=3, seed=1)
    assert (known.documents, known.passed_over) == (1, 2)
    with pytest.raises(UsageError, match="2 documents were drawn, and none has a title or three words"):
        make_known_items(indexed(tmp_path / "e", named(["", "one two"])), documents=3, seed=1)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    index = indexed(tmp_path / "i", named(zipf_texts(20, words=50, seed=2)))
    known = make_known_items(index, documents=5, seed=1)
    write_known_items(known, tmp_path / "out")
    assert read_queries(tmp_path / "out") == known.queries
    assert read_qrels(tmp_path / "out") == known.qrels


def test_titles_alone_are_enough(tmp_path: Path) -> None:
    index = indexed(tmp_path / "i", [Document(DocId("a"), "", "Falcons"), Document(DocId("b"), "", "Doves")])
    known = make_known_items(index, documents=2, seed=1)
    assert [item.kind for item in known.items] == ["title", "title"]
    leg = LexicalRetriever(index.views, index.analyzer)
    assert leg.retrieve(asked("falcons"), keep=5)[0].doc_ids == ["a"]
