from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conformance.reranker import RerankerConformance
from tiercel.config import LongStrategy
from tiercel.data.chunking import count_tokens
from tiercel.errors import ModelError, UsageError
from tiercel.protocols import CandidateGroup, Reranker
from tiercel.rerankers.long_documents import LONG_STRATEGIES, Cost, LongDocuments
from tiercel.types import DocId, Document, Query, QueryId

QUERY = Query(QueryId("q"), "falcon")


class Counter:
    """Scores a text by how often the query's words are in it, less one: negative where none is. Keeps what it read."""

    def __init__(self) -> None:
        self.calls: list[list[list[str]]] = []

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        self.calls.append([[document.full_text for document in group.documents] for group in groups])
        return [
            np.array([self._score(group.query, document) for document in group.documents], dtype=np.float32)
            for group in groups
        ]

    def _score(self, query: Query, document: Document) -> float:
        words = document.full_text.lower().replace(".", "").split()
        return sum(words.count(word) for word in query.text.lower().split()) - 1.0


class Fixed:
    """Gives the same arrays whatever it is asked."""

    def __init__(self, *arrays: list[float]) -> None:
        self._arrays = arrays

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        return [np.array(array, dtype=np.float32) for array in self._arrays]


def document(text: str, title: str = "", name: str = "d") -> Document:
    return Document(DocId(name), text, title, {"year": 2021})


def group(*texts: str, query: Query = QUERY) -> CandidateGroup:
    return CandidateGroup(query, [document(text, name=str(place)) for place, text in enumerate(texts)])


def read(strategy: LongStrategy, given: Document, *, query: Query = QUERY, window: int, overlap: int = 0) -> list[str]:
    """What the wrapped reranker read of one document."""
    inner = Counter()
    LongDocuments(inner, strategy, window=window, overlap=overlap).score([CandidateGroup(query, [given])])
    ((texts,),) = inner.calls
    return texts


# Four sentences of 3 tokens each; with the query's one, a window of 7 holds two of them.
LONG = "Hawks nest. Falcon falcon. Falcon hunts. It rains."


class TestLongDocuments(RerankerConformance):
    @pytest.fixture(params=LONG_STRATEGIES)
    def reranker(self, request: pytest.FixtureRequest) -> Reranker:
        return LongDocuments(Counter(), request.param, window=7, overlap=3)

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return [
            group(LONG, "Falcon.", "", f"{LONG} {LONG}"),
            group(f"{LONG} Falcon."),
            group("It rains.", LONG, query=Query(QueryId("r"), "rains hawks")),
        ]


@pytest.mark.parametrize("strategy", LONG_STRATEGIES)
def test_what_fits_is_handed_on_as_it_is_and_scored_as_without(strategy: LongStrategy) -> None:
    class Identity(Counter):
        def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
            assert all(document is given for document, given in zip(groups[0].documents, fitting, strict=True))
            return super().score(groups)

    # 1 token of the query, 0 or 1 of the title, and 12 or 11 of the text.
    fitting = [document(LONG), document(LONG[:-1], "title"), document(""), document(" Falcon ")]
    candidates = CandidateGroup(QUERY, fitting)
    (scores,) = LongDocuments(Identity(), strategy, window=13).score([candidates])
    assert scores.tolist() == Counter().score([candidates])[0].tolist() == [2.0, 2.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("first", ["Hawks nest. Falcon falcon."]),
        ("max", ["Hawks nest. Falcon falcon.", "Falcon hunts. It rains."]),
        ("sum", ["Hawks nest. Falcon falcon.", "Falcon hunts. It rains."]),
        ("top3", ["Hawks nest. Falcon falcon.", "Falcon hunts. It rains."]),
        # `falcon` is in two sentences, and both fit.
        ("extract", ["Falcon falcon. Falcon hunts."]),
    ],
)
def test_windows_of_whole_sentences(strategy: LongStrategy, expected: list[str]) -> None:
    assert read(strategy, document(LONG), window=7) == expected


def test_windows_repeat_the_overlap() -> None:
    assert read("max", document(LONG), window=7, overlap=3) == [
        "Hawks nest. Falcon falcon.",
        "Falcon falcon. Falcon hunts.",
        "Falcon hunts. It rains.",
    ]


def test_windows_of_tokens() -> None:
    inner = Counter()
    LongDocuments(inner, "max", window=6, overlap=2, kind="tokens").score([group("a b c d e f g h i")])
    assert inner.calls == [[["a b c d e", "d e f g h", "g h i"]]]


def test_query_and_title_take_room_in_every_window() -> None:
    # 2 of the query and 2 of the title leave 6 of 10; without the title 8, which are still two sentences.
    query = Query(QueryId("q"), "male falcon")
    assert read("max", document(LONG, "On hawks"), query=query, window=10) == [
        "On hawks Hawks nest. Falcon falcon.",
        "On hawks Falcon hunts. It rains.",
    ]
    # 4 leave 3 of 7, one sentence.
    assert len(read("max", document(LONG, "On hawks"), query=query, window=7)) == 4
    # The query alone is longer than the window: a quarter of it, 3, is left to the text all the same.
    assert len(read("max", document(LONG), query=Query(QueryId("q"), "falcon " * 30), window=12)) == 4
    # An overlap of 4 would be more than half of the 3 that are left.
    assert len(read("max", document(LONG, "On hawks"), query=query, window=8, overlap=4)) == 4


def test_all_windows_of_all_groups_go_in_one_call() -> None:
    inner = Counter()
    groups = [group(LONG, "Falcon."), group(), group("It rains.", LONG)]
    scores = LongDocuments(inner, "max", window=7).score(groups)
    first, second = "Hawks nest. Falcon falcon.", "Falcon hunts. It rains."
    assert inner.calls == [[[first, second, "Falcon."], [], ["It rains.", first, second]]]
    assert [array.tolist() for array in scores] == [[1.0, 0.0], [], [-1.0, 1.0]]


def test_windows_keep_the_document_around_them() -> None:
    class Whole(Counter):
        def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
            assert [(d.id, d.title, d.metadata) for d in groups[0].documents] == [("d", "T", {"year": 2021})] * 2
            return super().score(groups)

    LongDocuments(Whole(), "max", window=8).score([CandidateGroup(QUERY, [document(LONG, "T")])])


@pytest.mark.parametrize(
    ("strategy", "scores", "expected"),
    [
        ("max", [-3.0, 1.5, -7.0, 0.0], 1.5),
        ("max", [-3.0, -1.5, -7.0, -2.0], -1.5),
        ("top3", [-3.0, 1.5, -7.0, 0.0], -0.5),
        # Odds of 1, 2, 4 and 1 are 8.
        ("sum", [0.0, math.log(2), math.log(4), 0.0], math.log(8)),
        ("sum", [5.0, 5.0, 5.0, 5.0], 5.0 + math.log(4)),
        # A poor window takes nothing away.
        ("sum", [2.0, -40.0, -40.0, -40.0], 2.0),
        ("sum", [-900.0, -900.0, -1900.0, -1900.0], -900.0 + math.log(2)),
        ("sum", [900.0, 900.0, -900.0, -900.0], 900.0 + math.log(2)),
    ],
)
def test_scores_of_four_windows(strategy: LongStrategy, scores: list[float], expected: float) -> None:
    (joined,) = LongDocuments(Fixed(scores), strategy, window=4).score([group(LONG)])
    assert joined.tolist() == [pytest.approx(expected, rel=1e-6)]


def test_the_mean_of_as_many_as_there_are() -> None:
    (joined,) = LongDocuments(Fixed([1.0, -4.0]), "top3", window=7).score([group(LONG)])
    assert joined.tolist() == [-1.5]


@pytest.mark.parametrize("strategy", LONG_STRATEGIES)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_not_hidden(strategy: LongStrategy, broken: float) -> None:
    count = 1 if strategy in ("first", "extract") else 4
    (joined,) = LongDocuments(Fixed([broken] * count), strategy, window=4).score([group(LONG)])
    assert not np.isfinite(joined).any()
    if count > 1:
        (joined,) = LongDocuments(Fixed([1.0, broken, 2.0, 3.0]), strategy, window=4).score([group(LONG)])
        assert not np.isfinite(joined).any()


@given(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4))
def test_a_sum_is_the_best_window_and_at_most_the_logarithm_of_their_number_more(scores: list[float]) -> None:
    (summed,) = LongDocuments(Fixed(scores), "sum", window=4).score([group(LONG)])
    (mean,) = LongDocuments(Fixed(scores), "top3", window=4).score([group(LONG)])
    assert max(scores) - 1e-5 <= summed[0] <= max(scores) + math.log(4) + 1e-5
    assert mean[0] <= max(scores)


@given(
    st.lists(st.sampled_from(["Falcon hunts.", "It rains.", "Hawks nest and nest."]), min_size=1, max_size=12),
    st.integers(8, 20),
    st.sampled_from(LONG_STRATEGIES),
)
def test_no_window_is_longer_than_the_model_reads(sentences: list[str], window: int, strategy: LongStrategy) -> None:
    given = document(" ".join(sentences), "T")
    texts = read(strategy, given, window=window, overlap=window // 3)
    assert all(1 + count_tokens(text) <= window for text in texts)
    if strategy in ("first", "extract"):
        assert len(texts) == 1
    else:
        assert set(sentences) == {text for text in set(sentences) if any(text in window for window in texts)}


def test_the_cost_is_what_was_read() -> None:
    reranker = LongDocuments(Counter(), "max", window=7)
    assert reranker.cost == Cost(0, 0, 0)
    assert reranker.cost.windows_per_document == 0
    # Two windows of 6 and one of 2 tokens, each with the query's one.
    reranker.score([group(LONG, "Falcon."), group()])
    assert reranker.cost == Cost(documents=2, pairs=3, tokens=17)
    # A title of one, read with both windows: 2 * (1 + 1 + 3) + 2 * (1 + 1 + 3).
    reranker.score([CandidateGroup(QUERY, [document(LONG, "T")])])
    assert reranker.cost == Cost(documents=3, pairs=7, tokens=37)
    assert reranker.cost.windows_per_document == 7 / 3


def test_the_fingerprint_changes_with_what_is_read() -> None:
    class Known(Counter):
        fingerprint = "abc"

    def of(inner: Reranker, strategy: LongStrategy = "max", **settings: Any) -> str:
        return LongDocuments(inner, strategy, **{"window": 40, **settings}).fingerprint

    first = of(Known())
    assert first == of(Known())
    assert "abc" in first
    others = [
        of(Counter()),
        of(Known(), "sum"),
        of(Known(), window=41),
        of(Known(), overlap=3),
        of(Known(), kind="tokens"),
    ]
    assert len({first, *others}) == 6


def test_weights_and_terms_of_the_extract() -> None:
    def read_with(**settings: object) -> list[str]:
        inner = Counter()
        LongDocuments(inner, "extract", window=6, **settings).score(  # type: ignore[arg-type]
            [group(LONG, query=Query(QueryId("q"), "falcon rains nest"))]
        )
        return inner.calls[0][0]

    assert read_with() == ["Hawks nest."]
    assert read_with(idf={"rains": 3.0, "falcon": 1.0, "nest": 2.0}) == ["It rains."]
    assert read_with(idf=lambda term: float(term == "hunts"), terms=lambda text: ["hunts"]) == ["Hawks nest."]
    assert read_with(terms=lambda text: ["hunts"] * ("hunts" in text or "falcon rains" in text)) == ["Falcon hunts."]


@pytest.mark.parametrize("arrays", [([1.0],), ([1.0, 2.0], [1.0]), ()])
def test_scores_that_do_not_fit_the_windows(arrays: tuple[list[float], ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(2,\), one number per window"):
        LongDocuments(Fixed(*arrays), "max", window=7).score([group(LONG)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "min"}, "long documents by 'min'; expected one of first, max, sum, top3, extract"),
        ({"kind": "headings"}, "windows of 'headings'; expected one of sentences, tokens"),
        ({"window": 0}, "windows of 0 tokens; expected 1 or more"),
        ({"overlap": 6}, "windows that overlap by 6 tokens; expected 0 to 5, half of the window. Lower"),
        ({"overlap": -1}, "windows that overlap by -1 tokens; expected 0 to 5, half of the window$"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LongDocuments(Counter(), **{"strategy": "max", "window": 10, **settings})  # type: ignore[arg-type]
