from __future__ import annotations

import pytest

from tests.explained_by_hand import COSINE, FUSED, STAGES, TERMS, TOKENS, WINDOWS, explanation, stage
from tiercel.explanation_tables import fusion_table, parts_tables, stage_table, verdict
from tiercel.parts import Parts
from tiercel.types import DocId, Hit

LOST = stage("bm25", TERMS, kept=False, rank=None, score=None)


def test_a_row_for_every_stage() -> None:
    columns, rows = stage_table(explanation())
    assert {len(row) for row in rows} == {len(columns)}
    assert [row[0] for row in rows] == ["  bm25", "  dense", "bm25+dense", "late@5", "cross@1", "cross:other@1"]
    assert rows[0][1:] == ["2", "0.6000", "5", "z", "0.5000", "+0.1000", "kept"]
    assert rows[1][1:] == ["-", "-", "5", "z", "0.5000", "", "not found"]
    assert [row[-1] for row in rows[4:]] == ["dropped", "not reached; it would score 0.7000"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (explanation(*STAGES[:4]), "Rank 2 of the result."),
        (
            explanation(),
            "Dropped by cross@1: rank 2 where 1 are kept, score 0.6000, 0.15 below z, the last one kept (0.7500).",
        ),
        (
            explanation(stage("late@1", TOKENS, kept=False, last=Hit(DocId("c"), 0.6))),
            "Dropped by late@1: rank 2 where 5 are kept, score 0.6000, as much as c, the last one kept (0.6000), "
            "whose id comes first.",
        ),
        (explanation(LOST), "Not found by bm25: it holds nothing that the query asks for."),
        (
            explanation(
                stage("bm25", TERMS, is_leg=True, rank=7), STAGES[1], stage("bm25+dense", None, kept=False, rank=None)
            ),
            "Not found by bm25+dense: bm25 ranks it 7 and hands on 5 and dense does not find it.",
        ),
        (explanation(eligible=False), "The filter does not select it, so no stage can find it."),
    ],
)  # fmt: skip
def test_what_became_of_it_in_a_sentence(found: object, said: str) -> None:
    assert verdict(found) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "caption", "rows"),
    [
        (
            TERMS,
            "BM25 of the document: 3 terms, the mean is 4.5, so K(length) is 0.7000",
            [
                ["falcon", "1", "2", "3", "0.2500", "0.5000", "0.8000", "0.400000"],
                ["owl", "1", "0", "1", "2.0000", "2.0000", "0.0000", "0.000000"],
                ["sum", "", "", "", "", "", "", "0.400000"],
            ],
        ),
        (COSINE, "cosine", [["characters 5 to 29, 10 of 23 characters cut", "0.250000"]]),
        (
            TOKENS,
            "MaxSim with the document",
            [["falcon", "falcon", "0.900000"], ["[MASK]", "none", "-1.000000"], ["score", "", "-0.100000"]],
        ),
        (
            WINDOWS,
            "Windows of the document (max)",
            [
                ["1", "12", "0", "no", "0.100000"],
                ["2", "20", "4", "yes", "0.700000"],
                ["score", "", "", "", "0.700000"],
            ],
        ),
    ],
)
def test_the_parts_of_every_kind_of_stage(parts: Parts, caption: str, rows: list[list[str]]) -> None:
    ((found, columns, cells),) = parts_tables(parts)
    assert (found, cells) == (caption, rows)
    assert {len(row) for row in cells} == {len(columns)}


def test_fused_parts_and_their_sum() -> None:
    _, _, rows = fusion_table(stage("bm25+dense", None, fusion=FUSED))
    assert rows == [
        ["bm25", "1", "0.4000", "2", "0.500000"],
        ["dense", "-", "-", "1", "0.000000"],
        ["sum", "", "", "", "0.500000"],
    ]
