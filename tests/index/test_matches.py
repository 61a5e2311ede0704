from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercel.index.analysis import analyzer
from tiercel.index.lexical import analyze_queries
from tiercel.index.matches import matched_spans


@pytest.mark.parametrize(
    ("name", "query", "text", "matched"),
    [
        ("english", "hunting falcons", "The falcon hunts; a Falcon's house.", ["falcon", "hunts", "Falcon"]),
        ("english", "the", "the falcon", []),
        ("none", "the", "The falcon", ["The"]),
        ("cjk", "東京都", "在東京都内", ["東京都"]),
        ("cjk", "京都", "東京都", ["京都"]),
        ("cjk", "𠮷野", "𠮷野家", ["𠮷野"]),
        ("english", "", "the falcon", []),
        ("english", "falcon", "", []),
    ],
)
def test_by_hand(name: str, query: str, text: str, matched: list[str]) -> None:
    assert [text[start:end] for start, end in matched_spans(analyzer(name), query, text)] == matched


@given(st.text("aAb ß東京𠮷-.̈", max_size=20), st.sampled_from(["english", "none", "cjk"]))
def test_a_text_matches_itself_where_the_index_finds_terms(text: str, name: str) -> None:
    spans = matched_spans(analyzer(name), text, text)
    terms = analyze_queries(analyzer(name), [text]).terms
    assert bool(spans) == bool(terms)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
