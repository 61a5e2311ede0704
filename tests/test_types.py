from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.types import DocId, Document, Hit, Passage, Query, QueryId, Ranking

Q = Query(QueryId("q1"), "what is a tiercel")


def hit(name: str, score: float) -> Hit:
    return Hit(DocId(name), score)


def test_full_text_has_the_title_where_there_is_one() -> None:
    assert Document(DocId("d"), "body").full_text == "body"
    assert Document(DocId("d"), "body", "Title").full_text == "Title body"


def test_a_document_without_metadata_has_none_and_cannot_get_any() -> None:
    document = Document(DocId("d"), "body")
    assert dict(document.metadata) == {}
    with pytest.raises(TypeError):
        document.metadata["key"] = 1  # type: ignore[index]


@pytest.mark.parametrize("value", [Document(DocId("d"), "x"), Q, Passage(DocId("d"), "x", 0, 1), Ranking(Q, (), "s")])
def test_values_are_frozen(value: object) -> None:
    assert dataclasses.is_dataclass(value)
    first = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, "other")
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(value, "unknown", 1)


def test_a_ranking_in_order_is_accepted() -> None:
    ranking = Ranking(Q, (hit("b", 2.0), hit("a", 1.0), hit("c", 1.0)), "stage")
    assert ranking.doc_ids == ["b", "a", "c"]


def test_an_empty_ranking_is_a_ranking() -> None:
    assert Ranking(Q, (), "stage").doc_ids == []


@pytest.mark.parametrize(
    ("hits", "says"),
    [
        ((hit("a", math.nan),), "stage 's' gave document 'a' the score nan"),
        ((hit("a", 1.0), hit("b", -math.inf)), "stage 's' gave document 'b' the score -inf"),
        ((hit("a", 1.0), hit("b", 2.0)), "stage 's' put 'a' before 'b' out of order"),
        ((hit("b", 1.0), hit("a", 1.0)), "stage 's' put 'b' before 'a' out of order"),
        ((hit("a", 1.0), hit("a", 1.0)), "stage 's' ranked a document twice for query 'q1'"),
        ((hit("a", 2.0), hit("b", 1.5), hit("a", 1.0)), "stage 's' ranked a document twice for query 'q1'"),
    ],
)
def test_a_broken_ranking_cannot_be_made(hits: tuple[Hit, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Ranking(Q, hits, "s")


def test_from_scores_sorts_breaks_ties_by_id_and_cuts() -> None:
    ids = [DocId(name) for name in ("c", "b", "a", "d")]
    ranking = Ranking.from_scores(Q, ids, [1.0, 2.0, 1.0, 0.5], stage="s", keep=3)
    assert ranking.hits == (hit("b", 2.0), hit("a", 1.0), hit("c", 1.0))


def test_a_tie_at_the_cut_is_broken_the_same_way() -> None:
    ids = [DocId(name) for name in ("c", "b", "a")]
    assert Ranking.from_scores(Q, ids, [1.0, 1.0, 1.0], stage="s", keep=2).doc_ids == ["a", "b"]


def test_ids_are_compared_as_text() -> None:
    ids = [DocId(name) for name in ("10", "9", "010")]
    assert Ranking.from_scores(Q, ids, [0.0, 0.0, 0.0], stage="s", keep=3).doc_ids == ["010", "10", "9"]


def test_from_scores_of_nothing_is_empty() -> None:
    assert Ranking.from_scores(Q, [], [], stage="s", keep=5) == Ranking(Q, (), "s")


def test_from_scores_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        Ranking.from_scores(Q, [DocId("a"), DocId("b")], [1.0], stage="s", keep=5)


def test_from_scores_refuses_a_score_that_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="the score nan"):
        Ranking.from_scores(Q, [DocId("a")], [math.nan], stage="s", keep=5)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), max_size=12),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_from_scores_does_not_depend_on_the_order_given(
    scores: dict[str, float], keep: int, dice: random.Random
) -> None:
    pairs = [(DocId(name), score) for name, score in scores.items()]
    straight = Ranking.from_scores(Q, [d for d, _ in pairs], [s for _, s in pairs], stage="s", keep=keep)
    dice.shuffle(pairs)
    shuffled = Ranking.from_scores(Q, [d for d, _ in pairs], [s for _, s in pairs], stage="s", keep=keep)
    assert straight == shuffled
    assert len(straight.hits) == min(keep, len(scores))
    assert {h.doc_id: h.score for h in straight.hits}.items() <= dict(pairs).items()
    # Nothing that was cut is better than what stayed.
    cut = [score for name, score in pairs if name not in straight.doc_ids]
    assert not cut or max(cut) <= straight.hits[-1].score
