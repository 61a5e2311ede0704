"""What does one see of explanations on a page? Every stage of every document, its text coloured by what matched."""

from __future__ import annotations

from collections.abc import Sequence

from tiercel.explaining import Explanation, StageExplanation
from tiercel.explanation_tables import fusion_table, parts_tables, stage_table, verdict
from tiercel.html.page import Html, folded, marked, page, table, tag
from tiercel.parts import CosineParts, Parts, Read, TermParts, TokenParts, Window, WindowParts


def explanation_page(pipeline: str, explanations: Sequence[Explanation]) -> str:
    """The page, as text; there is at least one explanation, all of one query."""
    query = explanations[0].query
    about = tag("p", f"Pipeline {pipeline}. The query: ", tag("strong", query.text), class_="note")
    return page(f"Why here? {query.text}", about, *map(_document, explanations))


def _document(explanation: Explanation) -> Html:
    document = explanation.document
    title = f"{document.id}: {document.title}" if document.title else document.id
    columns, rows = stage_table(explanation)
    return tag(
        "section",
        tag("h2", title),
        tag("p", verdict(explanation), class_="verdict"),
        table("What every stage made of it", columns, rows),
        *map(_stage, explanation.stages),
    )


def _stage(stage: StageExplanation) -> Html:
    tables = [fusion_table(stage)] if stage.fusion else []
    tables += parts_tables(stage.parts) if stage.parts else []
    shown = [table(caption, columns, rows) for caption, columns, rows in tables]
    if not stage.reached:
        shown.insert(0, tag("p", "The document did not get here; this is how it would be scored.", class_="note"))
    if not stage.fusion and stage.parts is None:
        shown.append(tag("p", "Nothing is told of its score.", class_="note"))
    return folded(stage.stage, *shown, *(_texts(stage.parts) if stage.parts else ()), is_open=True)


def _texts(parts: Parts) -> list[Html]:
    match parts:
        case TermParts() | TokenParts():
            return _read(parts.read, marked(parts.read, parts.marks))
        case CosineParts():
            return _read(parts.read, marked(parts.read, ()))
        case WindowParts():
            numbered = enumerate(parts.windows, start=1)
            return [piece for number, window in numbered for piece in _window(number, window)]


def _window(number: int, window: Window) -> list[Html]:
    counts = "counts" if window.used else "does not count"
    note = tag("p", f"Window {number}, with the score {window.score:.4f}, {counts}.", class_="note")
    return [note, *_read(window.read, marked(window.read, ()))]


def _read(read: Read, text: Html) -> list[Html]:
    notes = []
    if read.span:
        notes.append(f"Passage: characters {read.span[0]:,} to {read.span[1]:,} of the document.")
    if read.cut:
        notes.append(f"{read.cut:,} of {len(read.text):,} characters were cut to what the model reads.")
    return [tag("p", " ".join(notes), class_="note"), text] if notes else [text]
