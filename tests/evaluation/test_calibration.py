from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize

from tests.index.made import asked
from tiercel.config import CalibrationMethod
from tiercel.errors import InputError
from tiercel.evaluation.calibration import (
    Calibration,
    calibrate,
    calibration_error,
    fit_isotonic,
    fit_platt,
)
from tiercel.types import DocId, Hit, Qrels, Query, Ranking

METHODS: list[CalibrationMethod] = ["platt", "isotonic"]


def test_isotonic_by_hand() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = fit_isotonic(scores, np.array([False, True, False, True, True]))
    # 2 and 3 are the wrong way round: pooled, they are relevant half the time.
    assert list(found.values) == [1, 0, 2, 0.5, 3, 0.5, 4, 1, 5, 1]
    assert found.chances([0, 1, 1.5, 2.5, 3.5, 9]) == [0, 0, 0.25, 0.5, 0.75, 1]


def test_equal_scores_have_one_chance() -> None:
    found = fit_isotonic(np.array([1.0, 1.0, 1.0, 2.0]), np.array([True, False, False, True]))
    assert found.chances([1.0]) == [pytest.approx(1 / 3)]


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40))
def test_isotonic_is_scipys(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], np.float64)
    labels = np.array([label for _, label in pairs])
    distinct, counts = np.unique(scores, return_counts=True)
    means = [labels[scores == score].mean() for score in distinct]
    expected = isotonic_regression(means, weights=counts).x
    assert fit_isotonic(scores, labels).chances(distinct.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_platt_has_the_least_loss(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    scores = drawn.normal(20, 7, 300)
    labels = drawn.random(300) < 1 / (1 + np.exp(-(scores - 24) / 3))
    targets = np.where(labels, (labels.sum() + 1) / (labels.sum() + 2), 1 / ((~labels).sum() + 2))

    def loss(at: np.ndarray) -> float:
        x = at[0] * (scores - 20) + at[1]
        return float((np.logaddexp(0, x) - targets * x).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9}).x
    slope, intercept = fit_platt(scores, labels).values
    assert (slope, intercept + 20 * slope) == pytest.approx(tuple(best), rel=1e-4)


def test_platt_of_labels_that_a_threshold_parts() -> None:
    found = fit_platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]))
    low, *_, high = found.chances([1.0, 2.0, 3.0, 4.0])
    assert 0 < low < 0.3
    assert 0.7 < high < 1


def test_scores_that_say_the_contrary_say_nothing() -> None:
    found = fit_platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, True, False]))
    assert found.chances([1, 4]) == pytest.approx([0.75, 0.75])


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=2, max_size=30).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    )
)
def test_a_higher_score_is_never_less_likely(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in pairs]), np.array([y for _, y in pairs])
    for found in (fit_platt(scores, labels), fit_isotonic(scores, labels)):
        chances = found.chances(sorted([*scores.tolist(), -2e6, 2e6]))
        assert all(0 <= chance <= 1 for chance in chances)
        assert all(b >= a - 1e-12 for a, b in pairwise(chances))
        assert Calibration.from_json(found.to_json()) == found


def test_the_error_by_hand() -> None:
    # Two hits of 0.25, of which one is relevant: off by 0.25. Two of 0.9 and 1, both relevant: off by 0.05.
    error = calibration_error(np.array([0.25, 0.25, 0.9, 1.0]), np.array([True, False, True, True]))
    assert error == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert calibration_error(np.array([]), np.array([], np.bool_)) == 0


class Honest:
    """Gives every query ten hits of scores 0 to 9, of which a score of s is relevant s times in ten."""

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        return [Ranking(query, tuple(Hit(DocId(f"d{9 - n}"), 9.0 - n) for n in range(keep)), "s") for query in queries]


def judged(count: int, *, random: bool = False) -> tuple[list[Query], Qrels]:
    queries = asked(*["w"] * count)
    drawn = np.random.default_rng(4)
    return queries, {
        query.id: {DocId(f"d{n}"): int(drawn.random() < (0.3 if random else n / 10)) for n in range(10)}
        for query in queries
    }


@pytest.mark.parametrize("method", METHODS)
def test_chances_hold_on_the_other_half(method: CalibrationMethod) -> None:
    queries, qrels = judged(400)
    found = calibrate(Honest(), queries, qrels, method=method, keep=10, seed=1)
    assert (found.training_queries, found.held_out_queries, found.held_out_hits) == (200, 200, 2000)
    assert found.error < 0.06
    assert found.brier < found.usual_brier
    assert found.relevant == pytest.approx(0.45, abs=0.03)
    assert found.calibration.chances([2, 5, 8]) == pytest.approx([0.2, 0.5, 0.8], abs=0.1)
    assert calibrate(Honest(), queries, qrels, method=method, keep=10, seed=1) == found


@pytest.mark.parametrize("method", METHODS)
def test_random_labels_give_the_usual_share(method: CalibrationMethod) -> None:
    queries, qrels = judged(400, random=True)
    found = calibrate(Honest(), queries, qrels, method=method, keep=10, seed=1)
    assert found.brier == pytest.approx(found.usual_brier, abs=0.01)
    assert found.calibration.chances([0, 9]) == pytest.approx([0.3, 0.3], abs=0.1)


def test_hits_all_alike() -> None:
    queries = asked(*["w"] * 20)
    with pytest.raises(InputError, match="of 100 hits of 10 queries none are relevant"):
        calibrate(Honest(), queries, {q.id: {DocId("x"): 1} for q in queries}, method="platt", keep=10, seed=1)
    with pytest.raises(InputError, match="3 judged queries; expected at least 10"):
        calibrate(Honest(), *judged(3), method="platt", keep=10, seed=1)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"method": "platt"},
        {"method": "no", "values": [1, 2]},
        {"method": "platt", "values": [1]},
        {"method": "platt", "values": [1, 2, 3, 4]},
        {"method": "isotonic", "values": []},
        {"method": "platt", "values": ["1", "2"]},
    ],
)
def test_what_cannot_be_read(record: dict[str, object]) -> None:
    with pytest.raises(InputError, match="a calibration that cannot be read"):
        Calibration.from_json(record)
