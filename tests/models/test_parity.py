from __future__ import annotations

import numpy as np
import pytest

from tiercel.models.parity import EncodedTexts, compare_scores, compare_tokens, compare_vectors, spearman

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


def test_scores_are_compared_query_by_query() -> None:
    reference = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], dtype=np.float32)
    other = np.array([[1, 2, 3, 4], [4, 2, 3, 1]], dtype=np.float32)
    parity = compare_scores(reference, other)
    assert (parity.pairs, parity.max_score_difference, parity.top10_agreement) == (8, 1.0, 1.0)
    assert parity.spearman == pytest.approx((1 + 0.8) / 2)  # one exchange of neighbours: 1 - 6 * 2 / (4 * 15)
    assert parity.score_deviation == pytest.approx(1.25**0.5)
    assert parity.worst == pytest.approx(1 / 1.25**0.5)


def test_the_best_ten_are_compared() -> None:
    reference = np.arange(20, dtype=np.float32)[np.newaxis, ::-1].copy()
    other = reference.copy()
    other[0, [9, 10]] = reference[0, [10, 9]]
    assert compare_scores(reference, other).top10_agreement == pytest.approx(0.9)


def test_rank_correlation_equals_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0)
    for _ in range(20):
        first, second = draw.integers(0, 9, size=(2, 30)).astype(np.float64)
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0


def test_scores_that_are_not_numbers_are_worst() -> None:
    reference = np.arange(4, dtype=np.float32).reshape(1, 4)
    assert not compare_scores(reference, np.full_like(reference, np.nan)).worst <= 1.0


_TURNED = np.array([[0.6, 0.8, 0.0]], dtype=np.float32)


def test_equal_tokens_have_perfect_parity() -> None:
    texts = EncodedTexts([_AXES[:2]], [_AXES[1:], _AXES[:1], _AXES[:0]], _AXES)
    parity = compare_tokens(texts, texts)
    assert (parity.tokens, parity.worst, parity.spearman, parity.top10_agreement) == (5, 0.0, 1.0, 1.0)


def test_a_turned_token_is_measured_and_scored() -> None:
    reference = EncodedTexts([_AXES[:2]], [_AXES[:1], _AXES[1:]])
    parity = compare_tokens(reference, EncodedTexts([_AXES[:2]], [_TURNED, _AXES[1:]]))
    assert parity.max_cosine_distance == pytest.approx(0.4)
    # The first document scored (1 + 0) / 2 and now scores (.6 + .8) / 2; the second (0 + 1) / 2.
    assert parity.max_score_difference == pytest.approx(0.2)
    assert parity.max_sentence_distance == 0
    assert parity.worst == parity.max_cosine_distance


def test_sentences_are_measured_beside_the_tokens() -> None:
    reference = EncodedTexts([_AXES[:2]], [_AXES[:1], _AXES[1:]], _AXES)
    turned = np.concatenate([_AXES[:2], _TURNED])
    assert compare_tokens(reference, reference._replace(sentences=turned)).worst == pytest.approx(1)


def test_tokens_that_are_not_numbers_or_not_there_are_worst() -> None:
    reference = EncodedTexts([_AXES[:2]], [_AXES[:1], _AXES[1:]])
    missing = compare_tokens(reference, reference._replace(documents=[_AXES[:1], _AXES[2:]]))
    assert missing.worst == np.inf
    broken = reference._replace(documents=[np.full((1, 3), np.nan, np.float32), _AXES[1:]])
    assert not compare_tokens(reference, broken).worst <= 1.0
