"""Commands that measure pipelines and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tiercel.commands.options import (
    K1,
    AsJson,
    B,
    Budget,
    HtmlFile,
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
from tiercel.types import Qrels, Query

if TYPE_CHECKING:
    from tiercel.app import SearchOptions
    from tiercel.evaluation.measures import Measure
    from tiercel.retrieve.spec import PipelineSpec
    from tiercel.run_evaluating import JudgedQueries

Resume = Annotated[
    str | None,
    typer.Option(help="Keep there what is done, until all is: after a stop, the same command goes on.", metavar="FILE"),
]

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100")


def evaluate(
    qrels: Annotated[
        list[str],
        typer.Option(
            help="Relevance judgments: TREC, BEIR or MS MARCO form, a BEIR folder, or irds:SET, a set that the package "
            "ir_datasets finds or fetches, as irds:beir/scifact/test; one for each --queries."
        ),
    ],
    index: Annotated[Path | None, typer.Argument(help="Folder of the index. Or give --run.", metavar="INDEX")] = None,
    queries: Annotated[
        list[str] | None,
        typer.Option(help="File of queries, irds:SET, or - for stdin. Repeat, with --qrels, for several sets."),
    ] = None,
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
    long: Long = "match",
    overlap: Overlap = 0,
    score: Score = "logit",
    precision: ModelPrecision = None,
    budget_ms: Budget = None,
    as_json: AsJson = False,
    html: HtmlFile = None,
    resume: Resume = None,
    k1: K1 = 0.9,
    b: B = 0.4,
    variant: Variant = "lucene",
) -> None:
    """Measure every stage of a pipeline, or ready run files, against judgments.

    MS MARCO dev small and TREC DL, told by the name of the judgments, are measured as is usual for them.
    """
    from tiercel.app import SearchOptions, find_pipeline
    from tiercel.evaluation.measures import parse_measures
    from tiercel.reranking import RerankOptions
    from tiercel.run_evaluating import check_resume

    parse_measures(measures or DEFAULT_MEASURES)
    of_pipelines = {
        "--queries": queries,
        "--pipeline": pipelines,
        "-k": k,
        "--budget-ms": budget_ms,
        "--resume": resume,
    }
    _check_subject(index, runs, of_pipelines)
    reranking = RerankOptions(precision=precision, score=score, long=long, overlap=overlap)
    named = [find_pipeline(index, text) for text in pipelines or () if index]
    check_reranking(reranking, named)
    check_resume(resume)
    _check_files([*(queries or ()), *qrels, *(runs or ())], html, as_json=as_json)
    judgments = [JudgedSet.read(source, measures or (), split=split) for source in qrels]
    if index is None:
        _evaluate_runs(runs or [], judgments, run_format, html, as_json=as_json)
        return
    from tiercel.data.queries import read_queries
    from tiercel.index.bm25 import BM25
    from tiercel.screen import say

    fields = FieldNames(id=query_id_field, text=query_text_field)
    asked = [read_queries(source, fields=fields, format=query_format) for source in _one_each(queries or [], qrels)]
    bm25 = BM25(k1=k1, b=b, variant=variant)
    options = SearchOptions(parameters=bm25, reranking=reranking, say=say, budget_ms=budget_ms)
    sets = [judged.asked(of_set, k) for judged, of_set in zip(judgments, asked, strict=True)]
    _evaluate_pipelines(index, named, sets, options, resume, html, as_json=as_json)


class JudgedSet(NamedTuple):
    """Judgments, how they are measured, and what is to be said about that."""

    name: str
    qrels: Qrels
    measures: Sequence[Measure]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, source: str, asked: Sequence[str], *, split: str | None) -> JudgedSet:
        """Judgments from a file or a BEIR folder, and the measures asked for, else those usual for the set."""
        from tiercel.data.qrels import qrels_path, read_qrels
        from tiercel.evaluation.conventions import convention_of, measures_of
        from tiercel.evaluation.measures import binary_measures

        convention = convention_of(str(qrels_path(source, split=split)))
        measures = measures_of(convention, asked, DEFAULT_MEASURES)
        qrels = read_qrels(source, split=split)
        notes = [convention.note(qrels)] if convention else []
        if not convention and (binary := binary_measures(measures, qrels)):
            notes.append(f"the judgments are graded; {', '.join(binary)} take grade 1 and up as relevant")
        return cls(source, qrels, measures, tuple(notes))

    def asked(self, queries: Sequence[Query], k: int | None) -> JudgedQueries:
        """With the queries that pipelines answer. Raises as `JudgedQueries.checked`."""
        from tiercel.run_evaluating import JudgedQueries

        return JudgedQueries(self.name, self.notes, self.qrels, self.measures, queries).checked(k)


def _check_subject(index: Path | None, runs: Sequence[str] | None, of_pipelines: Mapping[str, object]) -> None:
    """Raise UsageError unless there is either an index or a run, and a run with no option that only pipelines have."""
    if bool(runs) == (index is not None):
        raise UsageError(
            "neither an index nor a run was given" if not runs else "an index and a run were given",
            expected="one of them: tiercel eval INDEX --queries Q --qrels R, or tiercel eval --run FILE --qrels R",
        )
    unused = [name for name, value in of_pipelines.items() if value]
    if runs and unused:
        raise UsageError(f"{' and '.join(unused)} with --run", expected="a run to be measured as it is")


def _one_each(queries: Sequence[str], qrels: Sequence[str]) -> Sequence[str]:
    """The queries' sources again. Raises UsageError unless there is one for each of the judgments."""
    if not queries:
        raise UsageError("no queries were given", expected="--queries FILE")
    if len(queries) != len(qrels):
        raise UsageError(
            f"{len(queries)} files of queries and {len(qrels)} of judgments",
            expected="as many of one as of the other: --queries Q1 --qrels R1 --queries Q2 --qrels R2",
        )
    return queries


def _check_files(sources: Sequence[str], html: str | None, *, as_json: bool) -> None:
    """Raise UsageError or InputError where standard input or output is named twice, or the page cannot be written."""
    from tiercel.data.files import check_target

    if sources.count("-") > 1:
        raise UsageError("standard input (-) named twice", expected="it once: it can be read only once")
    if html == "-" and as_json:
        raise UsageError("--json and --html - were given", expected="one of them on stdout")
    if html is not None:
        check_target(html)


def _evaluate_pipelines(
    path: Path,
    named: Sequence[PipelineSpec],
    sets: Sequence[JudgedQueries],
    options: SearchOptions,
    resume: str | None,
    html: str | None,
    *,
    as_json: bool,
) -> None:
    """Every pipeline, else every leg of the index, on every set."""
    from tiercel.app import default_pipeline, make_pipelines, open_index, what_was_read, what_was_skipped
    from tiercel.run_evaluating import asked_of, evaluate_sets, resumed, steps_of
    from tiercel.screen import index_note, print_set_reports

    index = open_index(path)
    specs = named or [default_pipeline(index)]
    check_budget(options.budget_ms, specs)
    settings = Settings.from_environment()
    cascades = dict(zip(specs, make_pipelines(index, specs, settings=settings, options=options), strict=True))
    asked = asked_of(index, cascades, sets, settings=settings, options=options)
    by_name = {str(spec): cascade for spec, cascade in cascades.items()}
    with resumed(resume, asked, total=steps_of(len(by_name), sets), say=options.say) as steps:
        reports = evaluate_sets(by_name, sets, steps, say=options.say)
        if html is not None:
            from tiercel.html.page import write_page
            from tiercel.html.report import report_page

            write_page(html, report_page(reports, [index_note(index)]))
        if html != "-":
            print_set_reports(reports, index, as_json=as_json)
    for name, cascade in by_name.items():
        for line in what_was_skipped(cascade):
            options.say(f"{name}: {line}")
    for line in dict.fromkeys(line for cascade in by_name.values() for line in what_was_read(cascade)):
        options.say(f"{line} (by this call, over all pipelines, with the queries that were timed)")


def _evaluate_runs(
    runs: Sequence[str], judgments: Sequence[JudgedSet], form: RunFormat | None, html: str | None, *, as_json: bool
) -> None:
    from tiercel.data.runs import read_run
    from tiercel.evaluation.measures import evaluate as measure
    from tiercel.screen import print_notes, print_run_results

    if len(judgments) > 1:
        raise UsageError(f"{len(judgments)} files of judgments with --run", expected="one, which the runs are of")
    (judged,) = judgments
    rankings = {name: read_run(name, format=form) for name in runs}
    results = {name: measure(run, judged.qrels, judged.measures) for name, run in rankings.items()}
    if html is not None:
        from tiercel.html.page import write_page
        from tiercel.html.report import runs_page

        write_page(html, runs_page(judged.name, results, judged.notes))
    if html != "-":
        print_run_results(results, rankings, as_json=as_json)
    if not as_json:
        print_notes(judged.notes)
