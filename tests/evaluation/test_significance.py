from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.errors import InputError
from tiercel.evaluation.significance import (
    EXACT_QUERIES,
    confidence_interval,
    equivalence_test,
    holm,
    paired_differences,
    paired_t_test,
    randomisation_test,
    wins_ties_losses,
)

# Mean 0.2, standard deviation sqrt(0.1 / 3), standard error sqrt(0.1 / 12), t = 0.2 / 0.0913 = 2.1909.
FOUR = np.array([0.0, 0.1, 0.3, 0.4])

SMALL = st.lists(st.sampled_from([-1.0, -0.5, -1 / 3, 0.0, 0.1, 0.25, 1.0]), min_size=2, max_size=9)


def test_differences_below_rounding_are_ties() -> None:
    differences = paired_differences([0.1 + 0.2, 0.5, 0.1], [0.3, 0.4, 0.4])
    assert differences.tolist() == pytest.approx([0.0, 0.1, -0.3])
    assert wins_ties_losses(differences) == (1, 1, 1)


def test_one_query_is_too_few() -> None:
    with pytest.raises(InputError, match="1 judged query; expected at least two"):
        paired_differences([1.0], [0.0])


def test_t_test_by_hand() -> None:
    # With three degrees of freedom the tail beyond t is 1/2 - (atan(x) + x / (1 + x^2)) / pi, x = t / sqrt(3).
    x = 0.2 / math.sqrt(0.1 / 12) / math.sqrt(3)
    tail = 0.5 - (math.atan(x) + x / (1 + x * x)) / math.pi
    assert paired_t_test(FOUR) == pytest.approx(2 * tail)
    assert paired_t_test(-FOUR) == pytest.approx(2 * tail)


def test_the_interval_by_hand() -> None:
    # t of 97.5 % with three degrees of freedom is 3.18245.
    half = 3.182446 * math.sqrt(0.1 / 12)
    assert confidence_interval(FOUR) == pytest.approx((0.2 - half, 0.2 + half), rel=1e-6)


def test_randomisation_by_hand() -> None:
    # Signs of 0.1, 0.3, 0.4: of the 8 sums only 0.8 and -0.8 are as far from 0.
    assert randomisation_test(FOUR).p == 2 / 8
    assert randomisation_test(FOUR).samples == 0
    # 0.1 + 0.3 - 0.4 is 0 on paper: every sum is as far.
    assert randomisation_test(np.array([0.1, 0.3, -0.4])).p == 1


def test_differences_without_spread() -> None:
    same, none = np.full(5, 0.1), np.zeros(5)
    assert (paired_t_test(same), paired_t_test(none)) == (0, 1)
    assert confidence_interval(same) == pytest.approx((0.1, 0.1))
    assert randomisation_test(none).p == 1
    assert randomisation_test(same).p == 2 / 2**5
    assert equivalence_test(none, 0.01).p == 0
    assert equivalence_test(same, 0.01).p == 1


def test_holm_by_hand() -> None:
    # Ascending 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, then 0.06 and 0.04 are lifted to what came before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_as_in_statsmodels() -> None:
    # multipletests(p, method="holm")[1] of statsmodels 0.15.0
    p = [0.001, 0.2, 0.013, 0.04, 0.013, 0.7]
    assert holm(p) == pytest.approx([0.006, 0.4, 0.065, 0.12, 0.065, 0.7])


def test_equivalence_by_hand() -> None:
    # The mean is 0.2: a margin of 0.4 leaves 0.6 standard-error units below and 0.2 above.
    def tail(distance: float) -> float:
        x = distance / math.sqrt(0.1 / 12) / math.sqrt(3)
        return 0.5 - (math.atan(x) + x / (1 + x * x)) / math.pi

    result = equivalence_test(FOUR, 0.4)
    assert (result.p_worse, result.p_better) == pytest.approx((tail(0.6), tail(0.2)))
    assert result.p == result.p_better
    # ttost_paired of statsmodels 0.15.0
    assert (result.p_worse, result.p_better) == pytest.approx((0.0035822677173672, 0.0580787641737691))
    assert equivalence_test(FOUR, 0.1).p_better > 0.5


def test_drawn_flips_come_near_the_exact_p_and_never_reach_zero() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1, EXACT_QUERIES + 30)
    drawn = randomisation_test(differences)
    assert drawn.samples == 100_000
    assert drawn == randomisation_test(differences)
    assert drawn.p == pytest.approx(paired_t_test(differences), abs=0.01)
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=2
    )
    assert drawn.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert randomisation_test(np.full(64, 0.5)).p == 1 / 100_001


@settings(deadline=None, max_examples=60)
@given(SMALL)
def test_randomisation_is_that_of_brute_force_and_scipy(values: list[float]) -> None:
    differences = np.array(values)
    observed = abs(math.fsum(values)) - 1e-9
    flips = [
        abs(math.fsum(s * d for s, d in zip(signs, values, strict=True)))
        for signs in product([1, -1], repeat=len(values))
    ]
    p = randomisation_test(differences).p
    assert p == pytest.approx(sum(flip >= observed for flip in flips) / len(flips))
    theirs = scipy.stats.permutation_test((differences,), np.mean, permutation_type="samples", vectorized=True)
    assert p == pytest.approx(theirs.pvalue)


@settings(deadline=None)
@given(SMALL.filter(lambda values: len(set(values)) > 1), st.sampled_from([0.01, 0.2, 1.0]))
def test_t_intervals_and_equivalence_are_those_of_scipy(values: list[float], margin: float) -> None:
    differences = np.array(values)
    theirs = scipy.stats.ttest_1samp(differences, 0)
    assert paired_t_test(differences) == pytest.approx(theirs.pvalue)
    assert confidence_interval(differences) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    result = equivalence_test(differences, margin)
    assert result.p_worse == pytest.approx(scipy.stats.ttest_1samp(differences, -margin, alternative="greater").pvalue)
    assert result.p_better == pytest.approx(scipy.stats.ttest_1samp(differences, margin, alternative="less").pvalue)


def test_the_paired_test_is_that_of_scipy_on_two_runs() -> None:
    dice = np.random.default_rng(3)
    a, b = dice.random(40), dice.random(40)
    assert paired_t_test(paired_differences(b.tolist(), a.tolist())) == pytest.approx(
        scipy.stats.ttest_rel(b, a).pvalue
    )
