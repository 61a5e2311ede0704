"""What does one see of a pipeline that was tried without judgments?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tiercel.evaluation.known_items import FORMS
from tiercel.evaluation.load import Load
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


def print_loads(found: Mapping[str, Sequence[Load]], *, queries: int, source: str, threads: int) -> None:
    """A table for each pipeline, one line for each number of callers."""
    for pipeline, loads in found.items():
        cells = [
            [
                str(load.callers),
                f"{load.per_second:.1f}",
                *(f"{ms:.1f}" for ms in (load.latency.p50_ms, load.latency.p95_ms, load.latency.p99_ms)),
            ]
            for load in loads
        ]
        print_table(["callers", "queries/s", "p50 ms", "p95 ms", "p99 ms"], cells, title=pipeline)
    each = max((load.latency.count for loads in found.values() for load in loads), default=0)
    print_notes([f"{each:,} requests for each line, of {queries:,} queries {source}; {threads} threads in a query"])


def print_loads_json(found: Mapping[str, Sequence[Load]], *, queries: int, source: str, threads: int) -> None:
    """One JSON object: queries, where they are from, threads, and by pipeline what each number of callers saw."""
    print_json(
        {
            "queries": queries,
            "source": source,
            "threads": threads,
            "pipelines": {pipeline: [asdict(load) for load in loads] for pipeline, loads in found.items()},
        }
    )
