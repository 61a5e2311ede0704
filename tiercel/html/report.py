"""What does one see of an evaluation on a page? Quality against latency, stages, and queries that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tiercel.evaluation.measures import EvaluationResult
from tiercel.evaluation.report import PipelineReport, SetReport, report_notes, stage_columns, stage_rows
from tiercel.html.page import Html, folded, join, page, table, tag
from tiercel.html.plots import Point, bars, differences, scatter

_CHANGED = 10


def report_page(sets: Sequence[SetReport], notes: Sequence[str]) -> str:
    """The page of pipelines over one or several sets, as text."""
    return page("Evaluation", *(tag("p", note, class_="note") for note in notes), *map(_set, sets))


def runs_page(name: str, results: Mapping[str, EvaluationResult], notes: Sequence[str]) -> str:
    """The page of ready runs over one set, as text; there is at least one run."""
    measures = [str(measure) for measure in next(iter(results.values())).measures]
    rows = [[run, *(f"{result.means[measure]:.4f}" for measure in measures)] for run, result in results.items()]
    shown = [tag("p", note, class_="note") for note in notes]
    return page(
        f"Evaluation of runs: {name}", *shown, table("Runs", ["run", *measures], rows), *_against_first(results)
    )


def _set(one: SetReport) -> Html:
    last = {name: report.rows[-1].result for name, report in one.pipelines.items()}
    measure = str(next(iter(last.values())).measures[0])
    points = [
        Point(name, report.latency.p50_ms, last[name].means[measure])
        for name, report in one.pipelines.items()
        if report.latency is not None and report.latency.p50_ms > 0
    ]
    return tag(
        "section",
        tag("h2", one.name),
        *(tag("p", note, class_="note") for note in one.notes),
        *([scatter("Quality against latency", points, x="median ms of one query", y=measure)] if points else []),
        *(_pipeline(name, report) for name, report in one.pipelines.items()),
        *_against_first(last),
    )


def _pipeline(name: str, report: PipelineReport) -> Html:
    ceilings = [(row.stage, row.ceiling) for row in report.rows]
    return folded(
        name,
        table("Stages", stage_columns(report.rows[-1].result.measures), stage_rows(report)),
        bars("Recall of what survives each stage", ceilings),
        *(tag("p", note, class_="note") for note in report_notes(report)),
        is_open=True,
    )


def _against_first(results: Mapping[str, EvaluationResult]) -> Iterator[Html]:
    """What differs query by query, by the first measure, between the first system and each of the others."""
    (first, before), *others = results.items()
    measure = str(before.measures[0])
    for name, after in others:
        values = {query: (v, after.per_query[measure][query]) for query, v in before.per_query[measure].items()}
        changes = [(query, new - old) for query, (old, new) in values.items()]
        wins, losses = (sum(sign * change > 0 for _, change in changes) for sign in (1, -1))
        ordered = sorted(changes, key=lambda change: (-abs(change[1]), change[0]))[:_CHANGED]
        rows = [
            [query, *(f"{value:.4f}" for value in values[query]), f"{change:+.4f}"]
            for query, change in ordered
            if change
        ]
        counted = f"{wins:,} queries better, {len(changes) - wins - losses:,} the same, {losses:,} worse."
        yield tag(
            "section",
            tag("h3", f"{name} against {first}"),
            tag("p", counted, class_="verdict"),
            differences("Difference of each query", changes, y=measure),
            table("Queries that differ most", ["query", first, name, "difference"], rows) if rows else join(),
        )
