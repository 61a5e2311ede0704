from __future__ import annotations

import pytest

from tiercel.evaluation import variants
from tiercel.retrieve.spec import parse


def proposed(propose: variants.Propose, text: str) -> list[str]:
    return [str(spec) for spec in propose(parse(text))]


def test_bm25() -> None:
    found = proposed(variants.of_bm25, "bm25+2dense@50")
    assert len(found) == len(set(found)) == 16
    assert found[0] == "bm25:k1=0.6:b=0.2+2dense@50"
    assert proposed(variants.of_bm25, "dense") == []
    assert proposed(variants.of_bm25, "bm25:k1=1+dense") == []


def test_legs() -> None:
    assert proposed(variants.of_legs, "rrf:bm25+2dense@50,cross:m") == ["bm25@50,cross:m", "dense@50,cross:m"]
    assert proposed(variants.of_legs, "bm25") == []


def test_fusion() -> None:
    found = proposed(variants.of_fusion, "2bm25+dense")
    assert found[:3] == ["bm25+0.25dense", "bm25+0.5dense", "bm25+dense"]
    assert found[-1] == "rrf:bm25+4dense"
    assert len(found) == 10
    assert proposed(variants.of_fusion, "dense") == []


def test_stages() -> None:
    found = proposed(variants.of_stages, "bm25,late,cross:m@10")
    assert found[:4] == [
        "bm25,cross:m@10",
        "bm25,late,cross:m@10",
        "bm25,minmax:late,cross:m@10",
        "bm25,minmax:2late,cross:m@10",
    ]
    assert found[4] == "bm25,late"
    assert proposed(variants.of_stages, "bm25") == []


def test_depths_never_widen_the_list() -> None:
    assert proposed(variants.of_depths, "bm25@100,late@50,cross:m@20") == [
        "bm25@50,late@50,cross:m@20",
        "bm25@100,late@50,cross:m@20",
        "bm25@200,late@50,cross:m@20",
        "bm25@100,late@20,cross:m@20",
        "bm25@100,late@50,cross:m@20",
        "bm25@100,late@100,cross:m@20",
    ]
    assert proposed(variants.of_depths, "bm25") == []


@pytest.mark.parametrize("text", ["bm25", "bm25+dense", "bm25+dense@50,late,cross:m@10", "bm25,minmax:cross:m"])
def test_every_proposal_is_a_pipeline(text: str) -> None:
    for propose in (*variants.OF_RECALL, *variants.OF_RERANKING):
        for spec in propose(parse(text)):
            assert parse(str(spec)) == spec
