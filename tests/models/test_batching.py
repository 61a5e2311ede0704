from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercel.models.batching import pad_batch, plan_batches, plan_runs

_LENGTHS = st.lists(st.integers(1, 60))


@given(_LENGTHS, st.integers(1, 200))
def test_each_position_appears_once(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, max_batch_tokens=budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))


@given(_LENGTHS, st.integers(1, 200))
def test_padded_batches_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    for batch in plan_batches(lengths, max_batch_tokens=budget):
        assert len(batch) == 1 or len(batch) * max(lengths[position] for position in batch) <= budget


@given(_LENGTHS, st.integers(1, 200))
def test_longest_first_and_equal_lengths_in_order(lengths: list[int], budget: int) -> None:
    order = [position for batch in plan_batches(lengths, max_batch_tokens=budget) for position in batch]
    assert order == sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))


def test_known_plan() -> None:
    assert plan_batches([2, 9, 3, 2, 4], max_batch_tokens=8) == [[1], [4, 2], [0, 3]]
    assert plan_batches([], max_batch_tokens=8) == []


@given(_LENGTHS, st.integers(1, 200))
def test_a_run_is_of_one_length_and_within_its_bound(lengths: list[int], bound: int) -> None:
    runs = plan_runs(lengths, max_run_tokens=bound)
    assert sorted(position for run in runs for position in run) == list(range(len(lengths)))
    assert all(len({lengths[position] for position in run}) == 1 for run in runs)
    assert all(len(run) == 1 or sum(lengths[position] for position in run) <= bound for run in runs)
    assert [lengths[run[0]] for run in runs] == sorted((lengths[run[0]] for run in runs), reverse=True)


def test_known_runs() -> None:
    assert plan_runs([2, 3, 2, 3, 2, 3], max_run_tokens=6) == [[1, 3], [5], [0, 2, 4]]
    assert plan_runs([]) == []


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch_tokens is 0, expected at least 1"):
        plan_batches([1], max_batch_tokens=0)


def test_padding_is_masked() -> None:
    batch = pad_batch([np.array([5, 6, 7]), np.array([8])], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
