from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.index.made import FALCONS, add_documents, indexed
from tests.index.test_tokens import cut
from tiercel.errors import IndexStoreError
from tiercel.index.analysis import analyzer
from tiercel.index.explained import frequencies, rows_of, term_marks
from tiercel.index.lexical import analyze_queries
from tiercel.index.store import Index
from tiercel.types import DocId, Document

TEXTS = st.text(st.sampled_from("aB9 é-ΐ東京の한\u0301\U00020000\U0001f600\n'"), max_size=30)


@pytest.mark.parametrize(
    ("name", "text", "weights", "found"),
    [
        (
            "english",
            "The Falcons hunt; a FALCON hunts!",
            {"falcon": 2.0, "hunt": 1.0},
            ["Falcons", "hunt", "FALCON", "hunts"],
        ),
        ("english", "the of", {"the": 1.0}, []),
        ("english", "東京都へ", {"東京": 1.0, "都へ": 1.0}, ["東京", "都へ"]),
        ("cjk", "東 a東京", {"東": 1.0, "a": 1.0}, ["東", "a"]),
        ("none", "falcon, falconer", {"falcon": 1.0}, ["falcon"]),
        ("none", "", {"falcon": 1.0}, []),
    ],
)
def test_where_terms_are(name: str, text: str, weights: dict[str, float], found: list[str]) -> None:
    assert [text[start:end] for start, end, _ in term_marks(analyzer(name), text, weights)] == found


@given(text=TEXTS, name=st.sampled_from(["none", "cjk", "english"]))
def test_every_occurrence_of_every_term_is_marked_and_nothing_else(text: str, name: str) -> None:
    chosen = analyzer(name)
    analyzed = analyze_queries(chosen, [text])
    names = [term.decode() for term in analyzed.terms]
    weights = {names[number]: float(number + 1) for number in analyzed.numbers.tolist()}
    marks = term_marks(chosen, text, weights)
    counted = dict(zip(analyzed.numbers.tolist(), analyzed.counts.tolist(), strict=True))
    assert {n: sum(mark.weight == n + 1 for mark in marks) for n in counted} == counted
    assert len(marks) == sum(counted.values())
    tokens = cut(text, cjk_bigrams=chosen.cjk_bigrams)[0]
    assert len(marks) <= len(tokens)


def test_frequencies_are_those_of_the_rows(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    view, rows = rows_of(index.views, DocId("d5"))
    assert frequencies(view.segment.postings, [b"falcon", b"the", b"zeppelin"], rows).tolist() == [[3, 0, 0]]
    assert frequencies(view.segment.postings, [], rows).shape == (1, 0)


def test_the_newest_of_an_id_counts_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS)
    add_documents(tmp_path / "x", [Document(DocId("d5"), "an owl")])
    index = Index(tmp_path / "x")
    view, rows = rows_of(index.views, DocId("d5"))
    assert frequencies(view.segment.postings, [b"owl", b"falcon"], rows).tolist() == [[1, 0]]
    with pytest.raises(IndexStoreError, match="no document has the id 'd9'"):
        rows_of(index.views, DocId("d9"))
