"""Explanations as captions, columns and rows: what the screen and the page both show."""

from __future__ import annotations

from typing import TypeAlias

from tiercel.explaining import Explanation, StageExplanation
from tiercel.parts import CosineParts, Parts, Read, TermParts, TokenParts, WindowParts

Table: TypeAlias = tuple[str, list[str], list[list[str]]]
"""Caption, columns, rows."""


def verdict(explanation: Explanation) -> str:
    """In a sentence, where the document ended and why."""
    if not explanation.eligible:
        return "The filter does not select it, so no stage can find it."
    stage = explanation.dropped_by
    if stage is None:
        return f"Rank {explanation.rank} of the result."
    if stage.rank is None:
        return f"Not found by {stage.stage}: {_why_unranked(explanation, stage)}."
    return (
        f"Dropped by {stage.stage}: rank {stage.rank} where {stage.keep} are kept, score {_score(stage.score)}, "
        f"{_behind(stage)}."
    )


def stage_table(explanation: Explanation) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row for each stage."""
    columns = ["stage", "rank", "score", "kept", "last kept", "its score", "margin", "verdict"]
    return columns, [_stage_row(stage) for stage in explanation.stages]


def fusion_table(stage: StageExplanation) -> Table:
    """What each of the fused lists adds; the last row is the sum."""
    rows = [
        [part.name, _number(part.rank), _score(part.score), f"{part.weight:g}", f"{part.part:.6f}"]
        for part in stage.fusion
    ]
    rows.append(["sum", "", "", "", f"{sum(part.part for part in stage.fusion):.6f}"])
    return "fused from", ["list", "rank", "score", "weight", "part"], rows


def parts_tables(parts: Parts) -> list[Table]:
    """Out of what a stage's own score is made; the last row is the score."""
    match parts:
        case TermParts():
            return [_terms(parts)]
        case CosineParts():
            return [("cosine", ["vector of", "cosine"], [[_row(parts.read), f"{parts.score:.6f}"]])]
        case TokenParts():
            return [_tokens(parts)]
        case WindowParts():
            return [_windows(parts)]


def _why_unranked(explanation: Explanation, stage: StageExplanation) -> str:
    legs = [leg for leg in explanation.stages if leg.is_leg]
    if not legs or stage.fusion:
        return "it holds nothing that the query asks for"
    return " and ".join(
        f"{leg.stage} does not find it"
        if leg.rank is None
        else f"{leg.stage} ranks it {leg.rank} and hands on {leg.keep}"
        for leg in legs
    )


def _behind(stage: StageExplanation) -> str:
    if stage.last is None or stage.margin is None:
        return "and nothing is kept"
    last = f"{stage.last.doc_id}, the last one kept ({stage.last.score:.4f})"
    if stage.margin == 0:
        return f"as much as {last}, whose id comes first"
    return f"{-stage.margin:.4g} below {last}"


def _stage_row(stage: StageExplanation) -> list[str]:
    if not stage.reached:
        said = "not reached" if stage.parts is None else f"not reached; it would score {stage.parts.score:.4f}"
    elif stage.rank is None:
        said = "not found"
    else:
        said = "kept" if stage.kept else "dropped"
    last = (stage.last.doc_id, f"{stage.last.score:.4f}") if stage.last else ("", "")
    margin = "" if stage.margin is None else f"{stage.margin:+.4f}"
    name = f"  {stage.stage}" if stage.is_leg else stage.stage
    return [name, _number(stage.rank), _score(stage.score), str(stage.keep), *last, margin, said]


def _terms(parts: TermParts) -> Table:
    columns = ["term", "in query", "tf", "df", "idf", "weight", "saturation", "part"]
    rows = [
        [
            term.term,
            str(term.asked),
            str(term.frequency),
            str(term.document_frequency),
            f"{term.idf:.4f}",
            f"{term.weight:.4f}",
            f"{term.saturation:.4f}",
            f"{term.part:.6f}",
        ]
        for term in parts.terms
    ]
    rows.append(["sum", *[""] * (len(columns) - 2), f"{parts.score:.6f}"])
    length = f"{parts.length} terms, the mean is {parts.mean_length:.1f}, so K(length) is {parts.norm:.4f}"
    return f"BM25 of {_row(parts.read)}: {length}", columns, rows


def _tokens(parts: TokenParts) -> Table:
    rows = [
        [match.asked.text, "none" if match.found is None else match.found.text, f"{match.similarity:.6f}"]
        for match in parts.tokens
    ]
    rows.append(["score", "", f"{parts.score:.6f}"])
    return f"MaxSim with {_row(parts.read)}", ["token of the query", "most similar", "similarity"], rows


def _windows(parts: WindowParts) -> Table:
    columns = ["window", "tokens", "tokens cut", "counts", "score"]
    rows = [
        [
            str(number),
            str(window.tokens),
            str(window.cut_tokens),
            "yes" if window.used else "no",
            f"{window.score:.6f}",
        ]
        for number, window in enumerate(parts.windows, start=1)
    ]
    rows.append(["score", "", "", "", f"{parts.score:.6f}"])
    return f"Windows of the document ({parts.strategy})", columns, rows


def _row(read: Read) -> str:
    of = f"characters {read.span[0]} to {read.span[1]}" if read.span else "the document"
    return f"{of}, {read.cut:,} of {len(read.text):,} characters cut" if read.cut else of


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
