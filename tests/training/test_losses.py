from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.training.losses import (
    Objective,
    binary_cross_entropy,
    listwise_kl,
    listwise_softmax,
    margin_mse,
    pointwise_mse,
)


def made(*rows: list[float]) -> Any:
    return torch.tensor(rows)


# Two groups, of three and of two documents; what stands at the place of the sixth must not count.
MASK = torch.tensor([[True, True, True], [True, True, False]])
LN2, LN4 = math.log(2), math.log(4)


def test_listwise_softmax_by_hand() -> None:
    # Probabilities 1/2 1/4 1/4 and 4/5 1/5: -ln 1/2 and -ln 1/5.
    scores = made([LN2, 0.0, 0.0], [LN4, 0.0, 99.0])
    labels = made([1.0, 0.0, 0.0], [0.0, 1.0, 5.0])
    assert float(listwise_softmax(scores, labels, MASK)) == pytest.approx((LN2 + math.log(5)) / 2)


def test_listwise_softmax_shares_the_labels_of_several_positives() -> None:
    scores, labels = made([LN2, 0.0, 0.0]), made([1.0, 1.0, 0.0])
    assert float(listwise_softmax(scores, labels, MASK[:1])) == pytest.approx((LN2 + LN4) / 2)


def test_binary_cross_entropy_by_hand() -> None:
    # Sigmoids 1/2, 3/4 (score ln 3): -ln 1/2 for the positive, -ln 1/4 for the negative.
    scores, labels = made([0.0, math.log(3), 7.0]), made([1.0, 0.0, 1.0])
    mask = torch.tensor([[True, True, False]])
    assert float(binary_cross_entropy(scores, labels, mask)) == pytest.approx((LN2 + LN4) / 2)


def test_margin_mse_by_hand() -> None:
    # Group 1: errors 1 0 2, margins 1 -1 -2 squared 1 1 4. Group 2: errors 3 0, margin squared 9.
    scores, teacher = made([2.0, 1.0, 5.0], [3.0, 1.0, 0.0]), made([1.0, 1.0, 3.0], [0.0, 1.0, 70.0])
    assert float(margin_mse(scores, teacher, MASK)) == pytest.approx((1 + 1 + 4 + 9) / 4)


def test_listwise_kl_by_hand() -> None:
    # Teacher 1/2 1/2, ours 4/5 1/5.
    scores, teacher = made([LN4, 0.0, 50.0]), made([3.0, 3.0, -50.0])
    by_hand = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert float(listwise_kl(scores, teacher, torch.tensor([[True, True, False]]))) == pytest.approx(by_hand)


def test_listwise_kl_divides_both_sides_by_the_temperature() -> None:
    scores, teacher, mask = made([2 * LN4, 0.0]), made([6.0, 6.0]), torch.tensor([[True, True]])
    by_hand = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert float(listwise_kl(scores, teacher, mask, temperature=2.0)) == pytest.approx(4 * by_hand)


def test_pointwise_mse_by_hand() -> None:
    scores, teacher = made([2.0, 1.0, 5.0], [3.0, 1.0, 0.0]), made([1.0, 1.0, 3.0], [0.0, 1.0, 70.0])
    assert float(pointwise_mse(scores, teacher, MASK)) == pytest.approx((1 + 0 + 4 + 9 + 0) / 5)


def test_the_distillation_weight_mixes_both() -> None:
    scores, labels, teacher = made([LN2, 0.0, 0.0]), made([1.0, 0.0, 0.0]), made([LN2 + 2, 2.0, 2.0])
    mask = MASK[:1]
    mixed = Objective("listwise", "mse", weight=0.25).loss(scores, labels, teacher, mask)
    assert float(mixed) == pytest.approx(0.75 * LN2 + 0.25 * 4)
    assert float(Objective("none", "mse").loss(scores, labels, teacher, mask)) == pytest.approx(4)
    assert float(Objective("listwise").loss(scores, labels, teacher, mask)) == pytest.approx(LN2)


numbers = st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4)


@settings(max_examples=30, deadline=None)
@given(numbers, numbers, st.floats(-50, 50, width=32))
def test_a_shift_of_the_teacher_changes_margins_and_lists_not_and_points_do(
    scores: list[float], teacher: list[float], shift: float
) -> None:
    ours, theirs, mask = made(scores), made(teacher), torch.ones(1, 4, dtype=torch.bool)
    for loss in (margin_mse, listwise_kl):
        assert float(loss(ours, theirs + shift, mask)) == pytest.approx(float(loss(ours, theirs, mask)), abs=1e-3)
    if shift > 1:
        assert float(pointwise_mse(theirs, theirs + shift, mask)) == pytest.approx(shift**2, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(numbers, numbers)
def test_kl_is_zero_at_the_teachers_own_distribution_and_nowhere_less(
    scores: list[float], teacher: list[float]
) -> None:
    ours, theirs, mask = made(scores), made(teacher), torch.ones(1, 4, dtype=torch.bool)
    assert float(listwise_kl(theirs + 3.0, theirs, mask)) == pytest.approx(0.0, abs=1e-5)
    assert float(listwise_kl(ours, theirs, mask)) >= -1e-5


@pytest.mark.parametrize("distil", ["margin-mse", "kl", "mse"])
def test_a_random_linear_teacher_is_recovered(distil: Any) -> None:
    torch.manual_seed(1)
    features, truth = torch.randn(64, 6, 5), torch.randn(5)
    teacher, mask = features @ truth, torch.ones(64, 6, dtype=torch.bool)
    found = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = Objective("none", distil).loss(features @ found, teacher, teacher, mask)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(found.detach(), truth, atol=1e-2)


def test_what_stands_where_no_document_is_has_no_gradient() -> None:
    scores = made([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).requires_grad_()
    labels, teacher = made([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]), made([3.0, 2.0, 1.0], [1.0, 5.0, float("inf")])
    for distil in ("margin-mse", "kl", "mse"):
        for label in ("listwise", "bce"):
            (gradient,) = torch.autograd.grad(Objective(label, distil).loss(scores, labels, teacher, MASK), scores)
            assert torch.isfinite(gradient).all()
            assert float(gradient[1, 2]) == 0.0
