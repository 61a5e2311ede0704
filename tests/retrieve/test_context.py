"""Packing: what stands where, what is left out, and that the budget holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercel.data.chunking import count_tokens
from tiercel.errors import UsageError
from tiercel.retrieve.context import Citation, Context, ContextOrder, context
from tiercel.types import DocId, Document, FoundDocument, Span


def hit(name: str, text: str, *, title: str = "", span: Span | None = None, score: float = 1.0) -> FoundDocument:
    return FoundDocument(Document(DocId(name), text, title), score, {}, span)


FIVE = [hit(name, f"{name}{name} text") for name in "abcde"]


def test_passages_with_their_numbers_titles_and_spans() -> None:
    hits = [
        hit("d1", "Falcons hunt.", title="Falcons", score=2.5),
        hit("d2", "It was cold. Bread is sold.", span=(13, 27)),
    ]
    packed = context(hits, max_tokens=50)
    assert packed == Context(
        "[1] Falcons\nFalcons hunt.\n\n[2] Bread is sold.",
        (Citation(1, DocId("d1"), "Falcons", 2.5, None), Citation(2, DocId("d2"), "", 1.0, (13, 27))),
        tokens=14,  # [ 1 ] Falcons Falcons hunt . | [ 2 ] Bread is sold .
    )


@pytest.mark.parametrize(("order", "places"), [("best-first", "abcde"), ("best-last", "edcba"), ("edges", "acedb")])
def test_where_the_best_stand(order: ContextOrder, places: str) -> None:
    packed = context(FIVE, max_tokens=100, order=order)
    assert "".join(citation.doc_id for citation in packed.citations) == places
    assert [citation.number for citation in packed.citations] == [1, 2, 3, 4, 5]


def test_what_does_not_fit_is_left_out_and_the_next_is_tried() -> None:
    hits = [hit("a", "one two three"), hit("b", "four " * 50), hit("c", "five six")]
    packed = context(hits, max_tokens=11)  # 3 + 3 and 3 + 2
    assert [citation.doc_id for citation in packed.citations] == ["a", "c"]
    assert (packed.tokens, packed.left_out, packed.cut) == (11, 1, False)


def test_where_none_fits_the_best_is_cut_at_a_word() -> None:
    packed = context([hit("a", "one two three four", title="T"), hit("b", "five six seven eight")], max_tokens=6)
    assert (packed.text, packed.tokens, packed.cut, packed.left_out) == ("[1] T\none two", 6, True, 1)
    assert packed.citations[0].span == (0, 7)
    assert context([hit("a", "one two")], max_tokens=3) == Context("", (), 0, left_out=1)


def test_a_cut_within_a_span_is_counted_in_the_document() -> None:
    packed = context([hit("a", "zero one two three", span=(5, 18))], max_tokens=5)
    assert (packed.text, packed.citations[0].span) == ("[1] one two", (5, 12))


def test_what_has_been_said_is_left_out() -> None:
    said = "the falcon hunts in winter by the river"
    hits = [hit("a", said), hit("b", said.upper()), hit("c", f"{said} and sleeps"), hit("d", "bread is sold here")]
    packed = context(hits, max_tokens=100, dedupe=1.0)
    assert [citation.doc_id for citation in packed.citations] == ["a", "c", "d"]
    packed = context(hits, max_tokens=100, dedupe=0.7)  # 5 of the 7 runs of four words of c stand in a
    assert ([citation.doc_id for citation in packed.citations], packed.repeated) == (["a", "d"], 2)
    assert len(context(hits, max_tokens=100, dedupe=None).citations) == 4


def test_nothing_gives_nothing() -> None:
    assert context([], max_tokens=10) == Context("", (), 0)


def test_another_count_of_tokens_decides() -> None:
    assert context(FIVE, max_tokens=24, count=len).text == "[1] aa text\n\n[2] bb text"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0; expected 1 or more"),
        ({"max_tokens": 1, "order": "worst"}, "order 'worst'; expected one of best-first, best-last, edges"),
        ({"max_tokens": 1, "dedupe": 0.0}, "dedupe=0; expected a share above 0"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        context(FIVE, **arguments)  # type: ignore[arg-type]


@given(
    st.lists(st.text("ab .日", max_size=40), max_size=8),
    st.integers(1, 60),
    st.sampled_from(["best-first", "best-last", "edges"]),
    st.sampled_from([None, 0.5, 1.0]),
)
def test_the_budget_holds_and_every_hit_is_accounted_for(
    texts: list[str], budget: int, order: ContextOrder, dedupe: float | None
) -> None:
    hits = [hit(str(number), text) for number, text in enumerate(texts)]
    packed = context(hits, max_tokens=budget, order=order, dedupe=dedupe)
    assert packed.tokens == count_tokens(packed.text) <= budget
    assert len(packed.citations) + packed.repeated + packed.left_out == len(hits)
    ids = [citation.doc_id for citation in packed.citations]
    assert len(set(ids)) == len(ids)
