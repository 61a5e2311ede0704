"""Commands that learn from judgments: a better pipeline, and what its scores mean."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tiercel.commands.options import (
    AsJson,
    IndexPath,
    Measures,
    ModelPrecision,
    Pipeline,
    QueryForm,
    QueryIdField,
    QueryTextField,
)
from tiercel.config import CalibrationMethod, Settings
from tiercel.data.records import FieldNames
from tiercel.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tiercel.app import SearchOptions
    from tiercel.config import Precision
    from tiercel.evaluation.measures import Measure
    from tiercel.index.store import Index
    from tiercel.retrieve.spec import PipelineSpec

TUNED_MEASURES = ("nDCG@10",)


def tune(
    index: IndexPath,
    queries: Annotated[str, typer.Option(help="File of queries; - for stdin.")],
    qrels: Annotated[str, typer.Option(help="Relevance judgments: TREC, BEIR or MS MARCO form, or a BEIR folder.")],
    split: Annotated[str | None, typer.Option(help="Which qrels of a BEIR folder.")] = None,
    pipeline: Pipeline = "",
    latency_ms: Annotated[
        float | None, typer.Option("--latency-ms", help="Most milliseconds that 95 of 100 queries may take.")
    ] = None,
    measures: Measures = None,
    name: Annotated[str, typer.Option(help="What the index is to call the winner.")] = "tuned",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name nothing.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the halves that the queries are divided into.")] = 1,
    query_format: QueryForm = None,
    query_id_field: QueryIdField = None,
    query_text_field: QueryTextField = None,
    precision: ModelPrecision = None,
    as_json: AsJson = False,
) -> None:
    """Look for a better pipeline: k1 and b, fusion and weights, depths and stages; the first measure is tuned.

    One half of the judged queries is tuned on; every figure is of the other half. A winner that is better there than
    the pipeline as given, or fast enough where that is not, gets a name in the index, which --pipeline then takes.
    """
    from tiercel import app
    from tiercel.data.qrels import read_qrels
    from tiercel.data.queries import read_queries
    from tiercel.evaluation.measures import parse_measures
    from tiercel.evaluation.tuning import Search
    from tiercel.evaluation.tuning import tune as look
    from tiercel.index.pipelines import check_pipeline_name, name_pipeline
    from tiercel.reranking import STAGES
    from tiercel.screen import say
    from tiercel.screen_tuning import print_tuned

    wanted = parse_measures(measures or TUNED_MEASURES)
    check_pipeline_name(name, (*app.RECALL_LEGS, *STAGES))
    if latency_ms is not None and not 0 < latency_ms < float("inf"):
        raise UsageError(f"--latency-ms {latency_ms:g}", expected="a number above 0")
    if queries == qrels == "-":
        raise UsageError("standard input (-) named twice", expected="it once: it can be read only once")
    opened, spec, options = _subject(index, pipeline, precision)
    judgments = read_qrels(qrels, split=split)
    asked = read_queries(queries, fields=FieldNames(id=query_id_field, text=query_text_field), format=query_format)
    make = partial(app.make_pipelines, opened, settings=Settings.from_environment(), options=options)
    search = Search(_keep(wanted), latency_ms, seed, say)
    found = look(spec, make, asked, judgments, measures=wanted, search=search)
    kept = found.is_better(latency_ms) and not dry_run
    if kept:
        name_pipeline(index, name, str(found.winner.spec))
    print_tuned(found, search, name=name if kept else "", as_json=as_json)


def _keep(measures: tuple[Measure, ...]) -> int:
    """What the measures need; a hundred for those that look at all there is."""
    return max(10, *(measure.cutoff or 100 for measure in measures))


def calibrate(
    index: IndexPath,
    queries: Annotated[str, typer.Option(help="File of queries; - for stdin.")],
    qrels: Annotated[str, typer.Option(help="Relevance judgments: TREC, BEIR or MS MARCO form, or a BEIR folder.")],
    split: Annotated[str | None, typer.Option(help="Which qrels of a BEIR folder.")] = None,
    pipeline: Pipeline = "",
    method: Annotated[
        CalibrationMethod, typer.Option(help="A logistic curve, or steps, which want some thousand hits.")
    ] = "platt",
    k: Annotated[int, typer.Option("-k", min=1, help="Hits per query that are looked at.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the halves that the queries are divided into.")] = 1,
    query_format: QueryForm = None,
    query_id_field: QueryIdField = None,
    query_text_field: QueryTextField = None,
    precision: ModelPrecision = None,
    as_json: AsJson = False,
) -> None:
    """Fit what chance of relevance a pipeline's scores stand for, so that search --min-score means something.

    It is fitted on one half of the judged queries; the calibration error is that of the other half. A hit that is not
    judged counts as not relevant.
    """
    from tiercel import app, calibrating
    from tiercel.data.qrels import read_qrels
    from tiercel.data.queries import read_queries
    from tiercel.evaluation.calibration import calibrate as fit
    from tiercel.screen_tuning import print_calibrated

    if queries == qrels == "-":
        raise UsageError("standard input (-) named twice", expected="it once: it can be read only once")
    opened, spec, options = _subject(index, pipeline, precision)
    judgments = read_qrels(qrels, split=split)
    asked = read_queries(queries, fields=FieldNames(id=query_id_field, text=query_text_field), format=query_format)
    cascade = app.make_pipeline(opened, spec, settings=Settings.from_environment(), options=options)
    found = fit(cascade, asked, judgments, method=method, keep=k, seed=seed)
    calibrating.keep(index, spec, found.calibration, options)
    print_calibrated(found, str(spec), as_json=as_json)


def _subject(path: Path, pipeline: str, precision: Precision | None) -> tuple[Index, PipelineSpec, SearchOptions]:
    """The index, the pipeline of it that is meant, and how it is to be asked."""
    from tiercel import app
    from tiercel.commands.options import check_reranking
    from tiercel.reranking import RerankOptions
    from tiercel.screen import say

    named = [app.find_pipeline(path, pipeline)] if pipeline else []
    reranking = RerankOptions(precision=precision)
    check_reranking(reranking, named)
    index = app.open_index(path)
    (spec,) = named or [app.default_pipeline(index)]
    return index, spec, app.SearchOptions(reranking=reranking, say=say)
