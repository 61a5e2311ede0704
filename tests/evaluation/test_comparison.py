from __future__ import annotations

import pytest

from tests.evaluation.made import QRELS, make_ranking
from tiercel.errors import InputError, UsageError
from tiercel.evaluation.comparison import Complement, MeasuredRun, compare, complement, measure_run, most_changed
from tiercel.evaluation.measures import parse_measures
from tiercel.evaluation.significance import holm, paired_differences, paired_t_test
from tiercel.types import Ranking

MEASURES = parse_measures(["RR@2", "R@1"])


def measured(name: str, *rankings: Ranking) -> MeasuredRun:
    return measure_run(name, rankings, QRELS, measures=MEASURES, keep=2)


# Relevant are a and b for q1 and q2, a for q3. RR@2: 1, 1/2, 0 and 1/2, 1, 1; R@1: 1/2, 0, 0 and 0, 1/2, 1.
BASELINE = measured("one", make_ranking("q1", "a", "x"), make_ranking("q2", "x", "b"))
OTHER = measured("two", make_ranking("q1", "x", "b"), make_ranking("q2", "a", "b"), make_ranking("q3", "a"))


def test_a_run_against_the_baseline_by_hand() -> None:
    reciprocal, recall = compare(BASELINE, [OTHER])
    assert (reciprocal.run, reciprocal.measure, recall.measure) == ("two", "RR@2", "R@1")
    assert (reciprocal.baseline_mean, reciprocal.mean) == pytest.approx((1.5 / 3, 2.5 / 3))
    # -1/2, 1/2, 1 of RR@2; -1/2, 1/2, 1 of R@1.
    assert (reciprocal.difference, recall.difference) == pytest.approx((1 / 3, 1 / 3))
    assert (reciprocal.wins, reciprocal.ties, reciprocal.losses) == (2, 0, 1)
    # Of the four sums 1, 0, 2, 1 (first sign fixed, up to sign) three are at least 1: 3/4, twice is above 1.
    assert (reciprocal.p_randomisation, reciprocal.samples) == (1.0, 0)
    assert reciprocal.interval[0] < 1 / 3 < reciprocal.interval[1]
    assert reciprocal.equivalence is None


def test_p_values_are_corrected_over_all_comparisons() -> None:
    third = measured("three", make_ranking("q1", "a", "x"), make_ranking("q2", "b", "x"), make_ranking("q3", "a"))
    found = compare(BASELINE, [OTHER, third], margin=0.9)
    plain = [paired_t_test(paired_differences(values, [1, 0.5, 0])) for values in ([0.5, 1, 1], [1, 1, 1])]
    recalls = [paired_t_test(paired_differences(values, [0.5, 0, 0])) for values in ([0, 0.5, 1], [0.5, 0.5, 1])]
    assert [one.run for one in found] == ["two", "two", "three", "three"]
    assert [one.p_t for one in found] == pytest.approx(holm([plain[0], recalls[0], plain[1], recalls[1]]))
    assert all(one.equivalence and one.equivalence.p_worse < one.equivalence.p_better for one in found)


def test_a_run_is_equivalent_to_itself() -> None:
    (found, _) = compare(BASELINE, [BASELINE], margin=0.01)
    assert (found.p_t, found.p_randomisation, found.ties) == (1, 1, 3)
    assert found.equivalence is not None
    assert found.equivalence.p == 0


def test_the_queries_that_changed_most_come_first() -> None:
    changes = most_changed(BASELINE, OTHER, measure="RR@2", limit=5)
    assert [(c.query_id, c.baseline, c.value) for c in changes] == [("q3", 0, 1), ("q1", 1, 0.5), ("q2", 0.5, 1)]
    assert len(most_changed(BASELINE, OTHER, measure="RR@2", limit=1)) == 1
    assert most_changed(BASELINE, BASELINE, measure="RR@2", limit=5) == []


def test_the_complement_adds_up_to_all_relevant_documents() -> None:
    # q1: a by the baseline, b by the other; q2: b by both, a by the other; q3: a by the other.
    assert complement(BASELINE, OTHER, QRELS, depth=2) == Complement("two", 2, 1, 3, 1, 0)
    # q1: a by the baseline; q2: a by the other; q3: a by the other; b of q1 and of q2 by neither.
    assert complement(BASELINE, OTHER, QRELS, depth=1) == Complement("two", 1, 1, 2, 0, 2)


def test_runs_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="empty: no ranking in it"):
        measured("empty")
    with pytest.raises(InputError, match=r"strange: rankings have 1 queries .*no id is in both"):
        measured("strange", make_ranking("q9", "a"))
    with pytest.raises(InputError, match="late: no judged query with hits that one answers"):
        compare(BASELINE, [measured("late", make_ranking("q3", "a"))])
    with pytest.raises(UsageError, match="the margin 0"):
        compare(BASELINE, [OTHER], margin=0)
