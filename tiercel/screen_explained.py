"""What does one see of explanations? A table for each stage, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tiercel.explaining import Explanation, StageExplanation
from tiercel.explanation_tables import fusion_table, parts_tables, stage_table, verdict
from tiercel.parts import Parts, TokenParts
from tiercel.screen import one_line, print_json, print_notes, print_table


def print_explanations(explanations: Sequence[Explanation]) -> None:
    """The stages of each document, then out of what each made its score."""
    for explanation in explanations:
        document = explanation.document
        columns, rows = stage_table(explanation)
        print_table(columns, rows, title=f"{document.id} {one_line(document.full_text)}")
        for stage in explanation.stages:
            tables = [fusion_table(stage)] if stage.fusion else []
            for caption, columns, rows in tables + (parts_tables(stage.parts) if stage.parts else []):
                print_table(columns, rows, title=f"{stage.stage}: {caption}")
        print_notes([f"{document.id}: {verdict(explanation)}"])


def print_explanations_json(pipeline: str, explanations: Sequence[Explanation]) -> None:
    """One JSON object: query, pipeline, documents (doc_id, rank, dropped_by, stages)."""
    documents = [
        {
            "doc_id": one.document.id,
            "eligible": one.eligible,
            "rank": one.rank,
            "dropped_by": one.dropped_by.stage if one.dropped_by else None,
            "verdict": verdict(one),
            "stages": [_stage_facts(stage) for stage in one.stages],
        }
        for one in explanations
    ]
    print_json({"query": explanations[0].query.text, "pipeline": pipeline, "documents": documents})


def _stage_facts(stage: StageExplanation) -> dict[str, Any]:
    facts = asdict(stage)
    last, fusion = stage.last, stage.fusion
    return facts | {
        "margin": stage.margin,
        "last": None if last is None else {"doc_id": last.doc_id, "score": last.score},
        "fusion": [part._asdict() for part in fusion],
        "parts": None if stage.parts is None else _parts_facts(stage.parts),
    }


def _parts_facts(parts: Parts) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": _KINDS[type(parts).__name__], **asdict(parts), "score": parts.score}
    if isinstance(parts, TokenParts):
        facts["tokens"] = [
            {
                "asked": match.asked._asdict(),
                "found": None if match.found is None else match.found._asdict(),
                "similarity": match.similarity,
            }
            for match in parts.tokens
        ]
    if "marks" in facts:
        facts["marks"] = [mark._asdict() for mark in facts["marks"]]
    return facts


_KINDS = {"TermParts": "terms", "CosineParts": "cosine", "TokenParts": "tokens", "WindowParts": "windows"}
