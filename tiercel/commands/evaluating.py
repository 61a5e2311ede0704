"""Commands that measure pipelines and runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiercel.commands.options import (
    K1,
    AsJson,
    B,
    Budget,
    Long,
    Measures,
    ModelPrecision,
    Overlap,
    QueryForm,
    QueryIdField,
    QueryTextField,
    Score,
    Variant,
    check_budget,
    check_reranking,
)
from tiercel.config import Settings
from tiercel.data.records import FieldNames
from tiercel.data.runs import RunFormat
from tiercel.errors import UsageError

if TYPE_CHECKING:
    from tiercel.evaluation.measures import Measure
    from tiercel.types import Qrels

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100")


def evaluate(
    qrels: Annotated[str, typer.Option(help="Relevance judgments: TREC, BEIR or MS MARCO form, or a BEIR folder.")],
    index: Annotated[Path | None, typer.Argument(help="Folder of the index. Or give --run.", metavar="INDEX")] = None,
    queries: Annotated[str | None, typer.Option(help="File of queries; - for stdin.")] = None,
    split: Annotated[str | None, typer.Option(help="Which qrels of a BEIR folder.")] = None,
    pipelines: Annotated[
        list[str] | None, typer.Option("--pipeline", "-p", help="Stages; repeat to evaluate several.")
    ] = None,
    runs: Annotated[list[str] | None, typer.Option("--run", help="Evaluate ready run files instead.")] = None,
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the runs, if they do not tell.")] = None,
    query_format: QueryForm = None,
    query_id_field: QueryIdField = None,
    query_text_field: QueryTextField = None,
    measures: Measures = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Hits per query. Default: what the measures need, at least 100.")
    ] = None,
    long: Long = "first",
    overlap: Overlap = 0,
    score: Score = "logit",
    precision: ModelPrecision = None,
    budget_ms: Budget = None,
    as_json: AsJson = False,
    k1: K1 = 0.9,
    b: B = 0.4,
    variant: Variant = "lucene",
) -> None:
    """Measure every stage of a pipeline, or ready run files, against judgments."""
    from tiercel import app
    from tiercel.data.qrels import read_qrels
    from tiercel.evaluation.measures import parse_measures
    from tiercel.reranking import RerankOptions

    wanted = parse_measures(measures or DEFAULT_MEASURES)
    if bool(runs) == (index is not None):
        raise UsageError(
            "neither an index nor a run was given" if not runs else "an index and a run were given",
            expected="one of them: tiercel eval INDEX --queries Q --qrels R, or tiercel eval --run FILE --qrels R",
        )
    of_an_index = (("--queries", queries), ("--pipeline", pipelines), ("-k", k), ("--budget-ms", budget_ms))
    unused = [name for name, value in of_an_index if value]
    if runs and unused:
        raise UsageError(f"{' and '.join(unused)} with --run", expected="a run to be measured as it is")
    reranking = RerankOptions(precision=precision, score=score, long=long, overlap=overlap)
    named = [app.find_pipeline(index, text) for text in pipelines or () if index]
    check_reranking(reranking, named)
    check_budget(budget_ms, named)
    if [queries, qrels, *(runs or ())].count("-") > 1:
        raise UsageError("standard input (-) named twice", expected="it once: it can be read only once")
    judgments = read_qrels(qrels, split=split)
    if index is None:
        _evaluate_runs(runs or [], run_format, judgments, wanted, as_json=as_json)
        return
    if queries is None:
        raise UsageError("no queries were given", expected="--queries FILE")
    from tiercel.data.queries import read_queries
    from tiercel.evaluation.report import evaluate_pipeline
    from tiercel.index.bm25 import BM25
    from tiercel.screen import print_pipeline_reports, say

    opened = app.open_index(index)
    fields = FieldNames(id=query_id_field, text=query_text_field)
    asked = read_queries(queries, fields=fields, format=query_format)
    keep = k or max([100, *(measure.cutoff or 0 for measure in wanted)])
    specs = named or [app.default_pipeline(opened)]
    bm25 = BM25(k1=k1, b=b, variant=variant)
    options = app.SearchOptions(parameters=bm25, reranking=reranking, say=say, budget_ms=budget_ms)
    cascades = app.make_pipelines(opened, specs, settings=Settings.from_environment(), options=options)
    reports = {}
    for spec, cascade in zip(specs, cascades, strict=True):
        say(f"evaluating {spec}")
        reports[str(spec)] = evaluate_pipeline(cascade, asked, qrels=judgments, measures=wanted, keep=keep)
        for line in app.what_was_skipped(cascade):
            say(f"{spec}: {line}")
    print_pipeline_reports(reports, as_json=as_json)
    for line in dict.fromkeys(line for cascade in cascades for line in app.what_was_read(cascade)):
        say(f"{line} (over all pipelines, with the queries that were timed)")


def _evaluate_runs(
    runs: Sequence[str], form: RunFormat | None, qrels: Qrels, measures: Sequence[Measure], *, as_json: bool
) -> None:
    from tiercel.data.runs import read_run
    from tiercel.evaluation.measures import evaluate as measure
    from tiercel.screen import print_run_results

    rankings = {name: read_run(name, format=form) for name in runs}
    results = {name: measure(run, qrels, measures) for name, run in rankings.items()}
    print_run_results(results, rankings, as_json=as_json)
