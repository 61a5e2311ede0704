from __future__ import annotations

import runpy

import pytest

from tests.conftest import REPOSITORY
from tiercel.rerankers import costs
from tiercel.rerankers.costs import Backbone, Cost, Lengths

SMALL = Backbone(1, 2, 3)
"""A token costs 8 * 4 + 4 * 2 * 3 = 56 operations, and 8 for each that it attends to."""


ASKED = Lengths(3, 4, 2)


def test_operations_worked_out_by_hand() -> None:
    assert costs.encoding(5, attended=7, backbone=SMALL) == 5 * (56 + 7 * 8)
    assert costs.encoding(5, attended=7, backbone=Backbone(4, 2, 3)) == 4 * 5 * (56 + 7 * 8)
    assert costs.cross_encoder(ASKED, backbone=SMALL) == Cost(14, 2 * 7 * (56 + 7 * 8))
    one_way = costs.uni_encoder(ASKED, arrow=False, backbone=SMALL)
    assert one_way == Cost(11, 3 * (56 + 3 * 8) + 8 * (56 + 7 * 8))
    arrow = costs.uni_encoder(ASKED, arrow=True, backbone=SMALL)
    assert arrow == Cost(11, one_way.operations + 3 * 8 * 8)
    compared = 2 * 2 * 3 * 4 * 5
    late = costs.late_interaction(ASKED, stored=True, dimension=5, backbone=SMALL)
    assert late == Cost(3, 3 * (56 + 3 * 8) + compared)
    made = costs.late_interaction(ASKED, stored=False, dimension=5, backbone=SMALL)
    assert made == Cost(11, late.operations + 8 * (56 + 4 * 8))
    assert costs.pair_head(ASKED, stored=True, width=5, backbone=SMALL) == Cost(
        3, 3 * (56 + 3 * 8) + 2 * (4 * 2 * 5 + 10)
    )
    # 41 tokens are two chunks of 40, read with 5 on either side.
    local = costs.local_attention(Lengths(3, 41, 2), stored=False, dimension=5, kernels=2, backbone=SMALL)
    assert local == Cost(203, 3 * (56 + 3 * 8) + 200 * (56 + 50 * 8) + 2 * 3 * 41 * (10 + 8))


def test_one_candidate_costs_a_uni_encoder_what_it_costs_a_cross_encoder() -> None:
    assert costs.uni_encoder(Lengths(30, 20, 1), arrow=True) == costs.cross_encoder(Lengths(30, 20, 1))


@pytest.mark.parametrize(
    ("asked", "times"),
    [(Lengths(256, 32, 10), 5.0), (Lengths(16, 120, 10), 1.12), (Lengths(16, 120, 100), 1.13)],
)
def test_a_uni_encoder_saves_tokens_where_contexts_are_long(asked: Lengths, times: float) -> None:
    cross, uni = costs.cross_encoder(asked), costs.uni_encoder(asked, arrow=True)
    assert cross.tokens / uni.tokens == pytest.approx(times, abs=0.005)
    assert cross.tokens / uni.tokens < 1 + asked.query / asked.candidate


def test_local_attention_is_linear_in_the_length_of_a_document() -> None:
    of_lengths = [costs.local_attention(Lengths(16, 40 * n, 1), stored=False).operations for n in (10, 20, 30)]
    assert of_lengths[2] - of_lengths[1] == of_lengths[1] - of_lengths[0]


def test_the_table_of_the_docs_is_that_of_the_formulas() -> None:
    lines = runpy.run_path(str(REPOSITORY / "benchmarks" / "costs.py"))["lines"]
    page = (REPOSITORY / "docs" / "RERANKERS.md").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines() if line not in page]
