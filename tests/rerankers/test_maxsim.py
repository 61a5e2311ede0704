from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.rerankers.maxsim import maxsim

AXES = np.eye(3, dtype=np.float32)


def unit(drawn: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    rows = drawn.standard_normal((count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def slowly(query: NDArray[np.float32], documents: list[NDArray[np.float32]]) -> list[float]:
    """In float64, document by document."""
    wide = query.astype(np.float64)
    return [float((wide @ one.T).max(axis=1).sum()) if len(one) else -float(len(query)) for one in documents]


def offsets_of(sizes: list[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *sizes], dtype=np.int64)


def test_sums_worked_out_by_hand() -> None:
    query = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    tokens = np.concatenate([AXES[:2], AXES[1:2], -AXES[:2]])
    # Both tokens find axis 0 or 1: 1 + 0.8. Axis 1 alone: 0 + 0.8. Of what is opposite the least so: 0 - 0.6.
    scores = maxsim(query, tokens, offsets_of([2, 1, 2]))
    assert scores.dtype == np.float32
    assert_allclose(scores, [1.8, 0.8, -0.6], atol=1e-7)


def test_negative_similarities_stay_negative() -> None:
    assert maxsim(AXES[:1], -AXES[:1], offsets_of([1])).tolist() == [-1.0]


def test_a_document_without_tokens_gets_the_least_there_is() -> None:
    assert maxsim(AXES[:2], AXES[:1], offsets_of([0, 1, 0])).tolist() == [-2.0, 1.0, -2.0]


def test_a_query_without_tokens_gives_nothing_to_all() -> None:
    assert maxsim(AXES[:0], AXES[:1], offsets_of([0, 1])).tolist() == [0.0, 0.0]


def test_no_documents_have_no_scores() -> None:
    assert maxsim(AXES, AXES[:0], offsets_of([])).shape == (0,)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
    st.integers(1, 19),
    st.lists(st.integers(0, 11), min_size=1, max_size=9),
)
def test_scores_are_those_of_a_slow_computation(seed: int, asked: int, dimension: int, sizes: list[int]) -> None:
    drawn = np.random.default_rng(seed)
    query, tokens, offsets = unit(drawn, asked, dimension), unit(drawn, sum(sizes), dimension), offsets_of(sizes)
    scores = maxsim(query, tokens, offsets)
    assert_allclose(scores, slowly(query, np.split(tokens, offsets[1:-1])), atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 19), st.permutations(range(9)))
def test_a_score_depends_on_no_other_document(seed: int, asked: int, dimension: int, order: list[int]) -> None:
    drawn = np.random.default_rng(seed)
    documents = [unit(drawn, size, dimension) for size in range(9)]
    query = unit(drawn, asked, dimension)
    apart = [maxsim(query, document, offsets_of([len(document)]))[0] for document in documents]
    together = maxsim(query, np.concatenate([documents[i] for i in order]), offsets_of(order))
    assert together.tolist() == [apart[i] for i in order]


def test_matrices_may_lie_in_memory_as_they_like() -> None:
    drawn = np.random.default_rng(0)
    query, tokens, offsets = unit(drawn, 5, 8), unit(drawn, 7, 8), offsets_of([3, 4])
    turned = maxsim(np.asfortranarray(query), np.asfortranarray(tokens), offsets)
    assert turned.tolist() == maxsim(query, tokens, offsets).tolist()


@pytest.mark.parametrize("offsets", [[], [0], [0, 2], [0, 4], [1, 3], [0, 2, 1, 3], [0, 5, 3]])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(UsageError, match="offsets that do not divide 3 tokens"):
        maxsim(AXES, AXES, np.array(offsets, dtype=np.int64))


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"tokens of shape \(3, 3\) cannot be compared with a query of shape \(2, 2\)"):
        maxsim(np.eye(2, dtype=np.float32), AXES, offsets_of([3]))
