from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.long_documents import LongDocuments
from tiercel.reranking import RerankOptions, in_batches, rerank, what_was_read
from tiercel.types import DocId, Document, Query, QueryId


class Lengths:
    """Scores a text by its length."""

    truncated = 0

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        return [np.array([len(document.text) for document in group.documents], dtype=np.float32) for group in groups]


def group(name: str, **texts: str) -> CandidateGroup:
    return CandidateGroup(Query(QueryId(name), "q"), [Document(DocId(key), text) for key, text in texts.items()])


def test_one_ranking_for_each_group() -> None:
    groups = [group("1", a="x", b="xxx", c="xx"), group("2"), group("3", d="x")]
    rankings = rerank(Lengths(), groups, keep=2)
    assert [(ranking.query.id, ranking.doc_ids, ranking.stage) for ranking in rankings] == [
        ("1", ["b", "c"], "rerank"),
        ("2", [], "rerank"),
        ("3", ["d"], "rerank"),
    ]
    assert rerank(Lengths(), [], keep=2) == []


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_the_candidates_does_not_matter_and_ties_are_broken_by_id(order: list[str]) -> None:
    texts = {"a": "same", "b": "same", "c": "longer", "d": "same"}
    (ranking,) = rerank(Lengths(), [group("1", **{key: texts[key] for key in order})], keep=3)
    assert ranking.doc_ids == ["c", "a", "b"]


def test_batches_by_hand() -> None:
    sizes = [4000, 96, 1, 9000, 0, 4096, *([0] * 33)]
    batches = list(in_batches(range(len(sizes)), lambda place: sizes[place]))
    assert [len(batch) for batch in batches] == [2, 1, 1, 32, 3]
    assert list(in_batches([], len)) == []


@given(st.lists(st.integers(0, 5000), max_size=80), st.integers(0, 80))
def test_batches_keep_the_order_and_do_not_depend_on_what_follows(sizes: list[int], cut: int) -> None:
    batches = list(in_batches(sizes, lambda size: size))
    assert [size for batch in batches for size in batch] == sizes
    assert all(len(batch) == 1 or (len(batch) <= 32 and sum(batch) <= 4096) for batch in batches)
    first = list(in_batches(sizes[:cut], lambda size: size))
    assert first[:-1] == batches[: max(len(first) - 1, 0)]


def test_what_was_read_is_told_with_its_overlap() -> None:
    assert what_was_read(Lengths()) == ""
    # Sentences of 3 tokens, and a query of 1 in every window: 3 times 4 and 2; 2 times 7 and 2.
    texts = {"a": "one two. three four. five six.", "b": "x"}
    for window, overlap, told in (
        (4, 0, "14 tokens in 4 windows, 2.0 a document"),
        (8, 3, "16 tokens in 3 windows that overlap by up to 3, 1.5 a document"),
    ):
        reranker = LongDocuments(Lengths(), "max", window=window, overlap=overlap)
        reranker.score([group("1", **texts)])
        assert what_was_read(reranker) == told


@pytest.mark.parametrize("long", ["first", "extract"])
def test_what_reads_no_windows_has_no_overlap(long: str) -> None:
    with pytest.raises(UsageError, match=f"--overlap with --long {long}; expected max, sum or top3"):
        RerankOptions(long=long, overlap=1)  # type: ignore[arg-type]
