"""What does one see of runs that are compared?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tiercel.evaluation.comparison import Change, Comparison, Complement, MeasuredRun
from tiercel.evaluation.significance import LEVEL
from tiercel.screen import one_line, print_json, print_notes, print_table
from tiercel.types import DocId, Hit, Qrels, QueryId

_COLUMNS = ("run", "mean", "difference", "95 % interval", "p (t)", "p (flips)", "wins", "ties", "losses")
_ALPHA = 1 - LEVEL


def print_comparisons(
    baseline: MeasuredRun, comparisons: Sequence[Comparison], *, complements: Sequence[Complement]
) -> None:
    """A table for each measure, the baseline first, and one of who finds which relevant documents."""
    tested = any(comparison.equivalence for comparison in comparisons)
    for measure in map(str, baseline.result.measures):
        first = [baseline.name, f"{baseline.result.means[measure]:.4f}", *[""] * (len(_COLUMNS) - 2 + tested)]
        rows = [_cells(comparison) for comparison in comparisons if comparison.measure == measure]
        print_table([*_COLUMNS, *(["within margin"] if tested else [])], [first, *rows], title=measure)
    if complements:
        columns = ["run", "baseline only", "run only", "both", "neither"]
        rows = [[c.run, *map(str, (c.baseline_only, c.run_only, c.both, c.neither))] for c in complements]
        print_table(columns, rows, title=f"relevant documents at depth {complements[0].depth}")
    print_notes(_notes(baseline, comparisons))


def print_changes(
    baseline: MeasuredRun,
    others: Mapping[str, MeasuredRun],
    changes: Sequence[Change],
    *,
    qrels: Qrels,
    texts: tuple[Mapping[QueryId, str], Mapping[DocId, str]],
    depth: int,
) -> None:
    """Queries that changed, both rankings side by side down to `depth`; * marks a relevant document.

    `texts` are those of queries and of documents, as far as they are known.
    """
    of_queries, of_documents = texts
    for change in changes:
        query_id = change.query_id
        sides = [_side(run, query_id, depth) for run in (baseline, others[change.run])]
        rows = [
            [
                str(rank + 1),
                *(_shown_hit(side[rank : rank + 1], qrels[query_id], of_documents) for side in sides),
            ]
            for rank in range(max(map(len, sides)))
        ]
        values = f"{change.measure} {change.baseline:.4f} -> {change.value:.4f}"
        asked = f" {one_line(of_queries[query_id])}" if query_id in of_queries else ""
        print_table(["", baseline.name, change.run], rows, title=f"{query_id}{asked}: {values}")


def print_comparison_json(
    baseline: MeasuredRun,
    others: Mapping[str, MeasuredRun],
    comparisons: Sequence[Comparison],
    *,
    changes: Sequence[Change],
    complements: Sequence[Complement],
    depth: int,
) -> None:
    """One JSON object: baseline, queries, level, correction, comparisons, changed (with rankings), complement."""
    result = baseline.result
    print_json(
        {
            "baseline": {
                "run": baseline.name,
                "measures": dict(result.means),
                "missing_queries": result.missing_queries,
            },
            "queries": result.queries,
            "level": LEVEL,
            "correction": {"method": "holm", "comparisons": len(comparisons)},
            "evaluator": result.evaluator,
            "comparisons": [_facts(comparison) for comparison in comparisons],
            "changed": [
                {
                    **asdict(change),
                    "baseline_top": [hit.doc_id for hit in _side(baseline, change.query_id, depth)],
                    "run_top": [hit.doc_id for hit in _side(others[change.run], change.query_id, depth)],
                }
                for change in changes
            ],
            "complement": [asdict(found) for found in complements],
        }
    )


def _facts(comparison: Comparison) -> dict[str, Any]:
    verdict = {"verdict": _verdict(comparison)} if comparison.equivalence else {}
    return {**asdict(comparison), **verdict}


def _cells(comparison: Comparison) -> list[str]:
    low, high = comparison.interval
    return [
        comparison.run,
        f"{comparison.mean:.4f}",
        f"{comparison.difference:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        _p(comparison.p_t),
        _p(comparison.p_randomisation),
        *map(str, (comparison.wins, comparison.ties, comparison.losses)),
        *([_verdict(comparison)] if comparison.equivalence else []),
    ]


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _verdict(comparison: Comparison) -> str:
    test = comparison.equivalence
    if test is None:
        return ""
    if test.p < _ALPHA:
        return "equivalent"
    if test.p_worse < _ALPHA:
        return "no worse"
    return "no better" if test.p_better < _ALPHA else "not shown"


def _side(run: MeasuredRun, query_id: QueryId, depth: int) -> Sequence[Hit]:
    return run.top[query_id].hits[:depth] if query_id in run.top else ()


def _shown_hit(hits: Sequence[Hit], judgments: Mapping[DocId, int], texts: Mapping[DocId, str]) -> str:
    """The one hit, or nothing where a ranking has ended."""
    parts = []
    for hit in hits:
        mark = "* " if judgments.get(hit.doc_id, 0) >= 1 else ""
        parts.append(f"{mark}{hit.doc_id}" + (f" {one_line(texts[hit.doc_id])}" if hit.doc_id in texts else ""))
    return "".join(parts)


def _notes(baseline: MeasuredRun, comparisons: Sequence[Comparison]) -> list[str]:
    result = baseline.result
    notes = [
        f"{result.queries} judged queries, computed by {result.evaluator}; p corrected by Holm over {len(comparisons)}"
    ]
    if samples := max(comparison.samples for comparison in comparisons):
        notes.append(f"sign flips: {samples:,} drawn, so no p is below {1 / (samples + 1):.0e} before correction")
    if margin := next((c.equivalence.margin for c in comparisons if c.equivalence), None):
        notes.append(f"within margin: two one-sided tests against {margin:g}, at {_ALPHA:.2g}")
    return notes
