from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.local import REDUCED, make_network, plain_tk
from tiercel.errors import UsageError
from tiercel.models.local_attention import CENTRES, Geometry, Head
from tiercel.models.texts import unit_rows
from tiercel.rerankers.regions import RegionScorer

EXACT = np.eye(4, dtype=np.float32)
"""Words whose cosines are 1 and 0."""


def made(geometry: Geometry, seed: int = 0) -> Head:
    head = make_network(geometry, dimension=16).head
    torch.manual_seed(seed)
    with torch.no_grad():
        head.regions.copy_(torch.rand_like(head.regions))
    return head.weights()


def drawn(tokens: int, seed: int = 1) -> NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).standard_normal((tokens, 16)).astype(np.float32))


def counting(geometry: Geometry) -> Head:
    """The first kernel's logarithm alone."""
    kernels = np.zeros(len(CENTRES), dtype=np.float32)
    kernels[0] = 1
    weights = np.ones((geometry.regions, len(geometry.offsets)), dtype=np.float32)
    return Head(np.zeros(4, np.float32), np.zeros((3, 3), np.float32), kernels, weights)


def test_a_window_by_hand() -> None:
    """Three tokens, a window of two; the kernel at 1 all but ignores a cosine of 0."""
    geometry = Geometry(window=2, stride=1, regions=1, neighbours=0, saturation="log")
    scorer = RegionScorer(EXACT[:1], geometry, counting(geometry))
    found = scorer.windows(EXACT[[1, 0, 0]])
    far = math.exp(-0.5 * 10**2)
    assert found.tolist() == pytest.approx([math.log(1 + far), math.log(2)], abs=1e-6)
    assert scorer.score(EXACT[[1, 0, 0]]).best == (1,)


def test_saturation_by_hand() -> None:
    """u = ln 100 makes it (s - 1) * exp(v) + w."""
    geometry = Geometry(window=2, stride=2, regions=1, neighbours=0)
    plain = counting(geometry)
    saturation = np.array([[0, 0, math.log(100)], [1, 0, 0], [0, 3, 5]], dtype=np.float32)
    head = Head(np.array([0.5, 0, 0, 0], np.float32), saturation, plain.kernels, plain.regions)
    found = RegionScorer(EXACT[:1], geometry, head).windows(EXACT[[0, 0, 0]])
    expected = [math.exp(0.5) * (2 - 1) + 3 + 5, math.exp(0.5) * (1 - 1) + 3 / 2 + 5]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tokens", [0, 1, 29, 30, 31, 90, 91, 400, 2500])
@pytest.mark.parametrize("geometry", [Geometry(), Geometry(regions=2, neighbours=1, stride=3, saturation="log")])
def test_it_is_the_head_that_was_learnt(tokens: int, geometry: Geometry) -> None:
    head = make_network(geometry, dimension=16).head
    torch.manual_seed(0)
    with torch.no_grad():
        head.regions.copy_(torch.rand_like(head.regions))
        query, document = drawn(5, seed=2), drawn(tokens)
        mask, lengths = torch.ones(1, 5, dtype=torch.bool), torch.tensor([tokens])
        expected = head(torch.tensor(query)[None], mask, torch.tensor(document)[None], lengths)
    found = RegionScorer(query, geometry, made(geometry)).score(document)
    assert found.score == pytest.approx(float(expected.scores[0]), rel=1e-4)
    assert list(found.best) == expected.best[0].tolist()
    assert sum(found.parts) == pytest.approx(found.score)


@pytest.mark.parametrize("tokens", [1, 12, 48])
def test_reduced_it_is_plain_tk(tokens: int) -> None:
    head = made(REDUCED)
    head.regions[:] = 1
    query, document = drawn(3, seed=2), drawn(tokens)
    expected = plain_tk(torch.tensor(query), torch.tensor(document), torch.tensor(head.kernels), REDUCED.floor)
    assert RegionScorer(query, REDUCED, head).score(document).score == pytest.approx(expected, rel=1e-5)


def test_blocks_of_windows_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, document = RegionScorer(drawn(5, seed=2), Geometry(), made(Geometry())), drawn(500)
    whole = scorer.windows(document)
    monkeypatch.setattr("tiercel.rerankers.regions._BLOCK", 7)
    assert scorer.windows(document).tolist() == whole.tolist()


def test_without_terms_all_is_nothing() -> None:
    found = RegionScorer(drawn(0), Geometry(), made(Geometry())).score(drawn(100))
    assert found.score == 0


def test_vectors_of_another_dimension_are_refused() -> None:
    with pytest.raises(UsageError, match=r"a query of shape \(2, 4\); expected vectors of 16 dimensions"):
        RegionScorer(EXACT[:2], Geometry(), made(Geometry()))
    with pytest.raises(UsageError, match=r"a document of shape \(4, 4\); expected vectors of 16 dimensions"):
        RegionScorer(drawn(2), Geometry(), made(Geometry())).score(EXACT)
