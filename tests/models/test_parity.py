from __future__ import annotations

import numpy as np
import pytest

from tiercel.models.parity import compare_vectors

_AXES = np.eye(3, dtype=np.float32)


def test_equal_vectors_have_perfect_parity() -> None:
    parity = compare_vectors(_AXES, _AXES)
    assert (parity.texts, parity.worst, parity.top10_agreement) == (3, 0.0, 1.0)


def test_a_turned_vector_is_measured() -> None:
    turned = _AXES.copy()
    turned[2] = [0.6, 0.0, 0.8]
    parity = compare_vectors(_AXES, turned)
    assert parity.max_cosine_distance == pytest.approx(0.2)
    assert parity.max_similarity_difference == pytest.approx(0.6)
    assert parity.worst == parity.max_similarity_difference


def test_lost_neighbours_lower_the_agreement() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert compare_vectors(vectors, vectors[::-1].copy()).top10_agreement < 0.6


def test_vectors_that_are_not_numbers_are_worst() -> None:
    broken = _AXES.copy()
    broken[0, 0] = np.nan
    assert not compare_vectors(_AXES, broken).worst <= 1.0
