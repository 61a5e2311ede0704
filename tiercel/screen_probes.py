"""What does one see of a pipeline that was tried without judgments?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiercel.evaluation.known_items import FORMS
from tiercel.evaluation.measures import Measure
from tiercel.evaluation.probe import KnownItems, ProbeRow
from tiercel.screen import print_json, print_notes, print_table

Probed = Mapping[str, Mapping[str, Sequence[ProbeRow]]]
"""Rows by pipeline and measure."""


def print_probe(found: Probed, known: KnownItems) -> None:
    """A table for each pipeline and measure: kinds of queries down, forms across."""
    for pipeline, by_measure in found.items():
        for measure, rows in by_measure.items():
            cells = [
                [row.kind, *(f"{value:.4f}" for value in (*row.forms.values(), row.mean, row.worst)), str(row.items)]
                for row in rows
            ]
            print_table(["query", *FORMS, "mean", "worst", "items"], cells, title=f"{pipeline} {measure}")
    notes = [
        f"{known.documents} documents drawn with seed {known.seed}; "
        f"{known.with_twins} of {len(known.items)} items have near-duplicates, which count as found too",
        "the words of the queries are the documents' own: this tells how robust a pipeline is, "
        "not how well it finds what is said in other words",
    ]
    if known.passed_over:
        notes.append(f"{known.passed_over} more were passed over: no title and less than three words")
    print_notes(notes)


def print_probe_json(found: Probed, known: KnownItems, measures: Sequence[Measure]) -> None:
    """One JSON object: what was drawn, and every row by pipeline and measure."""
    print_json(
        {
            "seed": known.seed,
            "documents": known.documents,
            "passed_over": known.passed_over,
            "items": len(known.items),
            "items_with_near_duplicates": known.with_twins,
            "queries": len(known.queries),
            "providers": {measure.name: measure.provider for measure in measures},
            "pipelines": {
                pipeline: {measure: [row.to_json() for row in rows] for measure, rows in by_measure.items()}
                for pipeline, by_measure in found.items()
            },
        }
    )
