"""One explanation of every kind of parts, written by hand."""

from __future__ import annotations

from tiercel.explaining import Explanation, StageExplanation
from tiercel.parts import (
    CosineParts,
    Mark,
    Piece,
    Read,
    TermPart,
    TermParts,
    TokenMatch,
    TokenParts,
    Window,
    WindowParts,
)
from tiercel.retrieve.fusion import FusedPart
from tiercel.types import DocId, Document, Hit, Query, QueryId

TEXT = "the <b>falcon</b> hunts"
READ = Read(TEXT, len(TEXT))
FALCON = TermPart("falcon", 1, 2, 3, 0.25, 0.5, 0.8, 0.0, 0.4)
OWL = TermPart("owl", 1, 0, 1, 2.0, 2.0, 0.0, 0.0, 0.0)
TERMS = TermParts(READ, (FALCON, OWL), 3, 4.5, 0.7, (Mark(7, 13, 0.4),))
COSINE = CosineParts(Read(TEXT, 13, (5, 29)), 0.25)
TOKENS = TokenParts(READ, (TokenMatch(Piece("falcon", 0, 6), Piece("falcon", 7, 13), 0.9),
                           TokenMatch(Piece("[MASK]", 0, 0), None, -1.0)), -0.1)  # fmt: skip
WINDOWS = WindowParts(
    (Window(Read("first", 5), 0.1, 12, 0, used=False), Window(Read("second", 3), 0.7, 20, 4)), "max", 0.7
)


def stage(name: str, parts: object, **changes: object) -> StageExplanation:
    """A stage that keeps the document at rank 2 of 5, with the score 0.6, where the last one has 0.5."""
    values: dict[str, object] = {
        "stage": name, "is_leg": False, "reached": True, "rank": 2, "score": 0.6, "keep": 5, "kept": True,
        "last": Hit(DocId("z"), 0.5), "fusion": (), "parts": parts,
    }  # fmt: skip
    return StageExplanation(**(values | changes))  # type: ignore[arg-type]


FUSED = (FusedPart("bm25", 2.0, 1, 0.4, 0.5), FusedPart("dense", 1.0, None, None, 0.0))

STAGES = (
    stage("bm25", TERMS, is_leg=True),
    stage("dense", COSINE, is_leg=True, rank=None, score=None, kept=False),
    stage("bm25+dense", None, fusion=FUSED),
    stage("late@5", TOKENS),
    stage("cross@1", WINDOWS, rank=2, keep=1, kept=False, last=Hit(DocId("z"), 0.75)),
    stage("cross:other@1", WINDOWS, reached=False, rank=None, score=None, kept=False),
)


def explanation(*stages: StageExplanation, eligible: bool = True) -> Explanation:
    """Of a document whose text and title look like elements."""
    document = Document(DocId("d<1>"), TEXT, "<i>title</i>")
    return Explanation(Query(QueryId("1"), "falcon & owl"), document, eligible, stages or STAGES)
