from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tiercel.index.bm25 as kernel
from tiercel.errors import UsageError
from tiercel.index.analysis import analyzer
from tiercel.index.bm25 import (
    BM25,
    VARIANTS,
    WINDOW,
    CollectionStatistics,
    QueryBatch,
    okapi_idf,
    term_weights,
    top_k,
)
from tiercel.index.order import IdOrder
from tiercel.index.postings import Postings, PostingsBuilder, find_terms

WeightedQuery = Sequence[tuple[str, float]]


def collected(texts: list[str]) -> Postings:
    builder = PostingsBuilder(analyzer("none"))
    builder.add(texts)
    return builder.finish()


def made(lengths: list[int], terms: dict[str, dict[int, int]]) -> Postings:
    """Postings from frequency by document by term, the lengths free of them."""
    names = sorted(terms)
    pairs = [pair for name in names for pair in sorted(terms[name].items())]
    return Postings(
        np.frombuffer("".join(names).encode(), dtype=np.uint8),
        np.cumsum([0, *map(len, names)]),
        np.cumsum([0, *(len(terms[name]) for name in names)]),
        np.array([document for document, _ in pairs], dtype=np.int32),
        np.array([frequency for _, frequency in pairs], dtype=np.uint8),
        np.array(lengths, dtype=np.int32),
        np.array([max(terms[name].values()) for name in names], dtype=np.int32),
        np.array([min(lengths[document] for document in terms[name]) for name in names], dtype=np.int32),
    )


def order_of(ranks: Sequence[int] | NDArray[np.integer]) -> IdOrder:
    array = np.asarray(ranks, dtype=np.int32)
    return IdOrder(np.argsort(array).astype(np.int32), array)


def in_order(postings: Postings) -> IdOrder:
    return order_of(range(postings.lengths.size))


def batch_of(postings: Postings, queries: Sequence[WeightedQuery]) -> QueryBatch:
    """Queries in the kernel's form: heaviest term first."""
    terms, weights, starts = [], [], [0]
    for query in queries:
        ordered = sorted(query, key=lambda pair: (-pair[1], pair[0]))
        terms += [term.encode() for term, _ in ordered]
        weights += [weight for _, weight in ordered]
        starts.append(len(terms))
    return QueryBatch(np.array(starts), find_terms(postings, terms), np.array(weights, dtype=np.float32))


Mask = NDArray[np.bool_]


def found(
    postings: Postings,
    queries: QueryBatch,
    parameters: BM25,
    mean_length: float,
    order: IdOrder,
    k: int,
    eligible: Mask | None = None,
) -> list[list[tuple[int, float]]]:
    norm = parameters.norm(mean_length)
    hits, scores, sizes = top_k(postings, queries, norm, parameters.growth, order, k, eligible)
    return [
        list(zip(row[:size].tolist(), points[:size].tolist(), strict=True))
        for row, points, size in zip(hits, scores, sizes, strict=True)
    ]


def exhaustive(
    postings: Postings,
    queries: QueryBatch,
    parameters: BM25,
    mean_length: float,
    order: IdOrder,
    k: int,
    eligible: Mask | None = None,
) -> list[list[tuple[int, float]]]:
    """Score every document in float32, one term after the other, leave out what does not count, sort by score and rank,
    cut.
    """
    base, slope = (np.float32(part) for part in parameters.norm(mean_length))
    growth = np.float32(parameters.growth)
    results = []
    for first, last in zip(queries.starts[:-1], queries.starts[1:], strict=True):
        scores = np.zeros(postings.lengths.size, dtype=np.float32)
        held = np.zeros(postings.lengths.size, dtype=bool)
        for term, weight in zip(queries.terms[first:last], queries.weights[first:last], strict=True):
            of_term = slice(postings.starts[term], postings.starts[term + 1])
            documents, f = postings.documents[of_term], postings.frequencies[of_term].astype(np.float32)
            norm = base + slope * postings.lengths[documents].astype(np.float32)
            gain = weight * f / (f + norm)
            if growth >= 0:
                gain = gain * (f + growth * norm)
            assert gain.dtype == np.float32
            scores[documents] += gain
            held[documents] = True
        if eligible is not None:
            held &= eligible
        candidates = np.flatnonzero(held)
        best = candidates[np.lexsort((order.ranks[candidates], -scores[candidates]))][:k]
        results.append([(int(document), float(scores[document])) for document in best])
    return results


def test_scores_by_hand() -> None:
    postings = collected(["falcon dove", "falcon falcon dove owl", "owl", ""])
    parameters = BM25(k1=1.0, b=0.5)  # mean length 7/4: K(length) = 0.5 + length * 2/7
    queries = batch_of(postings, [[("falcon", 2.0), ("owl", 1.0)]])
    k2, k4, k1 = 0.5 + 4 / 7, 0.5 + 8 / 7, 0.5 + 2 / 7
    expected = [(1, 2 * 2 / (2 + k4) + 1 / (1 + k4)), (0, 2 / (1 + k2)), (2, 1 / (1 + k1))]
    (hits,) = found(postings, queries, parameters, 7 / 4, in_order(postings), 10)
    assert [document for document, _ in hits] == [document for document, _ in expected]
    assert [score for _, score in hits] == pytest.approx([score for _, score in expected], rel=1e-6)


def test_ties_go_to_the_smaller_id_whatever_the_ordinal() -> None:
    postings = collected(["falcon"] * 5)
    queries = batch_of(postings, [[("falcon", 1.0)]])
    order = order_of([3, 0, 4, 2, 1])
    for k in range(1, 6):
        (hits,) = found(postings, queries, BM25(), 1.0, order, k)
        assert [document for document, _ in hits] == [1, 4, 3, 0, 2][:k]


@pytest.mark.parametrize(
    ("variant", "saturated", "constant"),
    [
        # N = 10, df = 2, k1 = 1.5: idf times the factor of f / (f + K), and what every document scores.
        ("lucene", math.log(1 + 8.5 / 2.5), 0.0),
        ("robertson", math.log(8.5 / 2.5), 0.0),
        ("rank-bm25-okapi", math.log(8.5 / 2.5) * 2.5, 0.0),
        ("atire", math.log(10 / 2) * 2.5, 0.0),
        ("bm25+", math.log(11 / 2) * 2.5, math.log(11 / 2) * 1.0),
        ("bm25l", math.log(11 / 2.5) * 2.5 * 1.5 / 2, math.log(11 / 2.5) * 2.5 * 0.5 / 2),
        ("rank-bm25-l", math.log(11 / 2.5) * 2.5, 0.0),
    ],
)
def test_weight_of_each_variant_by_hand(variant: str, saturated: float, constant: float) -> None:
    statistics = CollectionStatistics(10, 5.0, 1.0)
    weights, constants = term_weights(BM25(k1=1.5, variant=variant), np.array([2, 0]), statistics)
    assert weights.tolist() == pytest.approx([saturated, 0.0])
    assert constants.tolist() == pytest.approx([constant, 0.0])


@pytest.mark.parametrize(("mean_idf", "weight"), [(2.0, 0.5), (-1.0, 0.0)])
def test_rank_bm25s_floor_is_a_quarter_of_the_mean_idf_and_not_negative(mean_idf: float, weight: float) -> None:
    statistics = CollectionStatistics(10, 5.0, mean_idf)
    weights, _ = term_weights(BM25(k1=0, variant="rank-bm25-okapi"), np.array([9]), statistics)
    assert weights.tolist() == [weight]


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_finite_and_not_negative_at_every_frequency(variant: str) -> None:
    frequencies = np.arange(11)
    for k1, delta in [(0.0, None), (0.0, 0.0), (1.2, None), (1.2, 0.0), (1.2, 7.0)]:
        parts = term_weights(BM25(k1, 0.4, variant, delta), frequencies, CollectionStatistics(10, 2.0, 0.3))
        for part in parts:
            assert np.isfinite(part).all()
            assert (part >= 0).all()
            assert part[0] == 0


def test_okapi_idf_is_negative_above_half_of_the_documents() -> None:
    assert okapi_idf(np.array([1, 5, 9]), 10).tolist() == pytest.approx([math.log(9.5 / 1.5), 0, math.log(1.5 / 9.5)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k1": -0.1}, "k1=-0.1; expected a number of at least 0"),
        ({"k1": math.inf}, "k1=inf; expected a number of at least 0"),
        ({"k1": math.nan}, "k1=nan; expected a number of at least 0"),
        ({"b": -0.1}, "b=-0.1; expected a number from 0 to 1"),
        ({"b": 1.1}, "b=1.1; expected a number from 0 to 1"),
        ({"b": math.nan}, "b=nan; expected a number from 0 to 1"),
        ({"delta": -1.0}, "delta=-1.0; expected a number of at least 0"),
        ({"delta": math.nan}, "delta=nan; expected a number of at least 0"),
        ({"variant": "bm26"}, f"unknown BM25 variant 'bm26'; expected one of {', '.join(VARIANTS)}"),
    ],
)
def test_parameters_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        BM25(**values)  # type: ignore[arg-type]
    assert str(refused.value) == message


def test_every_variant_has_its_own_default_delta() -> None:
    assert {variant: BM25(variant=variant).shift for variant in ("bm25l", "rank-bm25-l", "bm25+")} == {
        "bm25l": 0.5,
        "rank-bm25-l": 0.5,
        "bm25+": 1.0,
    }
    assert BM25(variant="bm25+", delta=0.0).shift == 0.0


words = st.sampled_from("abcdef")
collections = st.lists(st.lists(words, max_size=6).map(" ".join), min_size=1, max_size=40)
# Few different weights, so that there are ties; tiny ones, so that sums round.
weighted = st.dictionaries(words, st.sampled_from([1e-7, 0.5, 1.0, 1.5, 7.0]), max_size=6)


@settings(deadline=None, max_examples=150)
@given(
    collections,
    st.lists(weighted, max_size=4),
    st.sampled_from([0.0, 0.9, 1.5, 20.0]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from(["lucene", "bm25l", "rank-bm25-l"]),
    st.randoms(use_true_random=False),
)
def test_any_k_equals_scoring_everything(
    texts: list[str], asked: list[dict[str, float]], k1: float, b: float, variant: str, drawn: object
) -> None:
    postings = collected(texts)
    vocabulary = set(" ".join(texts).split())
    queries = batch_of(postings, [[pair for pair in query.items() if pair[0] in vocabulary] for query in asked])
    ranks = list(range(len(texts)))
    drawn.shuffle(ranks)  # type: ignore[attr-defined]
    order = order_of(ranks)
    parameters = BM25(k1, b, variant)
    mean_length = float(postings.lengths.mean())
    complete = exhaustive(postings, queries, parameters, mean_length, order, len(texts))
    for k in range(1, len(texts) + 4):
        assert found(postings, queries, parameters, mean_length, order, k) == [hits[:k] for hits in complete]


@settings(deadline=None, max_examples=150)
@given(
    collections,
    st.lists(weighted, max_size=4),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.sampled_from(["lucene", "rank-bm25-l"]),
    st.randoms(use_true_random=False),
)
def test_any_mask_and_any_k_equal_scoring_everything(
    texts: list[str], asked: list[dict[str, float]], share: float, variant: str, drawn: Any
) -> None:
    postings = collected(texts)
    vocabulary = set(" ".join(texts).split())
    queries = batch_of(postings, [[pair for pair in query.items() if pair[0] in vocabulary] for query in asked])
    ranks = list(range(len(texts)))
    drawn.shuffle(ranks)
    order = order_of(ranks)
    eligible = np.array([drawn.random() < share for _ in texts])
    parameters = BM25(variant=variant)
    complete = exhaustive(postings, queries, parameters, 3.0, order, len(texts), eligible)
    for k in range(1, len(texts) + 4):
        assert found(postings, queries, parameters, 3.0, order, k, eligible) == [hits[:k] for hits in complete]


@pytest.mark.parametrize("others", [0, 30])  # with them most documents are eligible, without few
def test_documents_that_do_not_count_do_not_raise_the_bar(others: int) -> None:
    """The heaviest term has k postings, and so has the next, but not of documents that count: no bound can be had."""
    postings = collected(["a a a a"] * 5 + ["b b b"] * 5 + ["c a", "c b", "c", "c", "c c"] + ["d"] * others)
    queries = batch_of(postings, [[("a", 3.0), ("b", 2.0), ("c", 1.0)]])
    numbers = np.arange(15 + others)
    for k in range(1, 16):
        for mask in (numbers >= 10, numbers >= 5, numbers % 5 != 0):
            expected = exhaustive(postings, queries, BM25(), 3.0, in_order(postings), k, mask)
            assert found(postings, queries, BM25(), 3.0, in_order(postings), k, mask) == expected
    (hits,) = found(postings, queries, BM25(), 3.0, in_order(postings), 3, numbers >= 10)
    assert [document for document, _ in hits] == [10, 11, 14]


def test_no_document_counts() -> None:
    postings = collected(["a b", "a", "b"])
    queries = batch_of(postings, [[("a", 1.0), ("b", 1.0)], []])
    assert found(postings, queries, BM25(), 1.0, in_order(postings), 2, np.zeros(3, bool)) == [[], []]


def test_queries_from_the_middle_of_a_batch_meet_a_mask() -> None:
    """A task gets its share of a batch's starts, but the terms of all."""
    postings = collected(["a b", "b c", "c a", "a", "b b", "c c c"])
    whole = batch_of(postings, [[("a", 1.0)], [("b", 2.0), ("c", 1.0)], [("c", 1.0)]])
    eligible = np.array([False, True, False, False, False, True])
    for first in range(3):
        part = QueryBatch(whole.starts[first:], whole.terms, whole.weights)
        expected = exhaustive(postings, part, BM25(), 2.0, in_order(postings), 3, eligible)
        assert found(postings, part, BM25(), 2.0, in_order(postings), 3, eligible) == expected


def test_a_mask_compiles_no_second_kernel() -> None:
    postings = collected(["a b", "a", "b"])
    order = in_order(postings)
    for array in (*postings, *order):
        array.setflags(write=False)  # as mapped
    queries = batch_of(postings, [[("a", 1.0)]])
    found(postings, queries, BM25(), 1.0, order, 2)
    compiled = len(kernel._search.signatures)
    fixed = np.array([True, True, False])
    fixed.setflags(write=False)
    for mask in (np.array([True, False, True]), np.zeros(3, bool), fixed, np.array([True, False] * 3)[::2]):
        found(postings, queries, BM25(), 1.0, order, 2, mask)
    assert len(kernel._search.signatures) == compiled


@pytest.mark.parametrize("seed", range(12))
def test_many_copies_of_few_documents_are_cut_by_id(seed: int) -> None:
    """Scores that tie with the threshold to the last bit, weights from heavy to next to nothing."""
    drawn = np.random.default_rng(seed)
    names = [f"t{i:02d}" for i in range(24)]
    weights = np.sort(10.0 ** drawn.uniform(-7, 1, len(names)))[::-1]
    kinds = [" ".join(drawn.choice(names, drawn.integers(1, 30))) for _ in range(6)] + [" ".join(names)]
    texts = [kinds[i] for i in drawn.integers(0, len(kinds), 700)]
    postings = collected(texts)
    held = set(" ".join(kinds).split())
    queries = batch_of(
        postings,
        [
            [(name, float(weight)) for name, weight in zip(names, weights, strict=True) if name in held and keep]
            for keep in (True,)
        ]
        + [
            [(name, float(w)) for name, w in zip(names, weights, strict=True) if name in held and drawn.random() < 0.5]
            for _ in range(20)
        ],
    )
    order = order_of(drawn.permutation(len(texts)))
    mean_length = float(postings.lengths.mean())
    for parameters in (BM25(), BM25(1.5, 1.0), BM25(0.0, 0.0)):
        complete = exhaustive(postings, queries, parameters, mean_length, order, len(texts))
        for k in (1, 2, 3, 10, 50):
            assert found(postings, queries, parameters, mean_length, order, k) == [hits[:k] for hits in complete]


def zipf_postings(documents: int, *, seed: int) -> Postings:
    drawn = np.random.default_rng(seed)
    lengths = drawn.integers(0, 30, documents)
    numbers = np.minimum(drawn.zipf(1.2, lengths.sum()), 3_000)
    names = np.array([f"w{i}" for i in range(3_001)])[numbers]
    return collected([" ".join(part) for part in np.split(names, np.cumsum(lengths)[:-1])])


@pytest.mark.parametrize("variant", ["lucene", "rank-bm25-l"])
def test_a_large_collection_equals_scoring_everything(variant: str) -> None:
    documents = 20_000
    postings = zipf_postings(documents, seed=1)
    drawn = np.random.default_rng(2)
    order = order_of(drawn.permutation(documents))
    parameters = BM25(1.2, 0.75, variant)
    frequencies = np.diff(postings.starts)
    mean_length = float(postings.lengths.mean())
    weights, _ = term_weights(parameters, frequencies, CollectionStatistics(documents, mean_length, 0.0))
    blob, starts = postings.term_bytes.tobytes().decode(), postings.term_starts
    names = [blob[a:b] for a, b in pairwise(starts.tolist())]
    common = np.argsort(-frequencies)
    chosen: list[NDArray[np.intp] | list[np.intp]] = [
        *([term] for term in common[[0, 1, 10, 100, -1]]),  # alone: all documents but few, down to a single one
        *(drawn.choice(common[:20], 4, replace=False) for _ in range(5)),
        *(np.concatenate([common[[0, 1, 2]], drawn.choice(common[200:], 2)]) for _ in range(10)),
        *(drawn.choice(common, 8, replace=False) for _ in range(5)),
        common[::7],  # over 400 terms
    ]
    queries = batch_of(postings, [[(names[t], float(weights[t])) for t in sorted(set(terms))] for terms in chosen])
    complete = exhaustive(postings, queries, parameters, mean_length, order, 1000)
    for k in (1, 10, 100, 1000):
        assert found(postings, queries, parameters, mean_length, order, k) == [hits[:k] for hits in complete]
    best = np.ones(documents, dtype=bool)
    best[[document for hits in complete for document, _ in hits[:50]]] = False  # what would set the bar is out
    for eligible in (best, *(drawn.random(documents) < share for share in (0.9, 0.5, 0.1, 0.01))):
        complete = exhaustive(postings, queries, parameters, mean_length, order, 1000, eligible)
        for k in (1, 10, 1000):
            expected = [hits[:k] for hits in complete]
            assert found(postings, queries, parameters, mean_length, order, k, eligible) == expected


@pytest.mark.parametrize("documents", [1, 63, 64, 65, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 1])
def test_documents_at_the_edges_of_a_window_are_found(documents: int) -> None:
    texts = ["a b"] + ["c"] * (documents - 2) + ["b a a"] if documents > 1 else ["b a a"]
    postings = collected(texts)
    queries = batch_of(postings, [[("a", 1.0), ("b", 0.5)], [("b", 1.0)]])
    for k in (1, 2, documents):
        for order in (in_order(postings), order_of(range(documents)[::-1])):
            complete = exhaustive(postings, queries, BM25(), 2.0, order, k)
            assert found(postings, queries, BM25(), 2.0, order, k) == complete


def test_documents_a_window_apart_are_found() -> None:
    texts = ["a" if i % WINDOW == 0 else "b" if i % WINDOW == WINDOW - 1 else "" for i in range(3 * WINDOW)]
    postings = collected(texts)
    queries = batch_of(postings, [[("a", 1.0), ("b", 1.0)]])
    (hits,) = found(postings, queries, BM25(), 1.0, in_order(postings), 10)
    assert [document for document, _ in hits] == [0, WINDOW - 1, WINDOW, 2 * WINDOW - 1, 2 * WINDOW, 3 * WINDOW - 1]


@pytest.mark.parametrize("k1", [0.0, 1.2])
@pytest.mark.parametrize("b", [0.0, 1.0])
@pytest.mark.parametrize("variant", ["lucene", "rank-bm25-l"])
def test_parameters_at_their_ends_give_finite_scores(k1: float, b: float, variant: str) -> None:
    postings = collected(["a", "a a b", "", "b " * 70_000])
    queries = batch_of(postings, [[("a", 1.0), ("b", 0.5)]])
    for delta in (0.0, None):
        parameters = BM25(k1, b, variant, delta)
        mean_length = float(postings.lengths.mean())
        (hits,) = found(postings, queries, parameters, mean_length, in_order(postings), 4)
        assert sorted(document for document, _ in hits) == [0, 1, 3]
        assert all(math.isfinite(score) and score >= 0 for _, score in hits)
        assert [hits] == exhaustive(postings, queries, parameters, mean_length, in_order(postings), 4)


def test_documents_without_a_term_are_never_found() -> None:
    postings = collected(["", ""])
    queries = QueryBatch(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert BM25().norm(0.0)[1] == 0.0
    assert found(postings, queries, BM25(), 0.0, in_order(postings), 5) == [[], []]


def test_no_documents_no_queries_and_no_hits_asked_for() -> None:
    nothing = collected([])
    empty = QueryBatch(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert found(nothing, empty, BM25(), 0.0, in_order(nothing), 5) == []
    postings = collected(["a"])
    assert found(postings, empty, BM25(), 1.0, in_order(postings), 5) == []
    assert found(postings, batch_of(postings, [[("a", 1.0)]]), BM25(), 1.0, in_order(postings), 0) == [[]]


def test_a_query_of_five_hundred_terms() -> None:
    drawn = np.random.default_rng(3)
    names = [f"t{i}" for i in range(500)]
    texts = [" ".join(drawn.choice(names, drawn.integers(1, 400))) for _ in range(300)] + [" ".join(names)] * 40
    postings = collected(texts)
    queries = batch_of(postings, [[(name, 1 + (i % 7) / 10) for i, name in enumerate(names)], [("t3", 1.0)]])
    order = order_of(drawn.permutation(len(texts)))
    for k in (1, 5, 30):
        assert found(postings, queries, BM25(), 200.0, order, k) == exhaustive(
            postings, queries, BM25(), 200.0, order, k
        )


def test_a_term_that_can_add_next_to_nothing_beside_the_others() -> None:
    """Its share is lost in the sum of what the terms can add; a seed computed from the difference would be 0 / 0."""
    postings = made([2_000_000_000, 1, 1], {"heavy": {0: 1}, "light": {1: 1, 2: 1}})
    queries = batch_of(postings, [[("heavy", 8.0), ("light", 7.0)]])
    parameters = BM25(1.0, 1.0)
    for k in (1, 2, 3):
        expected = exhaustive(postings, queries, parameters, 1.0, in_order(postings), k)
        assert found(postings, queries, parameters, 1.0, in_order(postings), k) == expected


def test_a_weight_too_small_for_float32_does_no_harm() -> None:
    postings = collected(["a b", "a", "b"])
    queries = batch_of(postings, [[("a", 1e-60)], [("a", 1.0), ("b", 1e-60)]])
    first, second = found(postings, queries, BM25(), 1.0, in_order(postings), 1)
    assert first == [(0, 0.0)]
    assert [document for document, _ in second] == [1]


def test_arrays_that_cannot_be_written_to_will_do() -> None:
    postings = collected(["a b", "a", "b"])
    order = in_order(postings)
    for array in (*postings, *order):
        array.setflags(write=False)
    queries = batch_of(postings, [[("a", 1.0)]])
    assert found(postings, queries, BM25(), 1.0, order, 2) == exhaustive(postings, queries, BM25(), 1.0, order, 2)
