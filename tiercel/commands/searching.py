"""The command that answers queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from tiercel.commands.options import (
    K1,
    AsJson,
    B,
    Budget,
    IndexPath,
    Long,
    MinScore,
    ModelPrecision,
    Overlap,
    Pipeline,
    QueryForm,
    QueryIdField,
    QueryTextField,
    Score,
    Variant,
    Where,
    check_budget,
    check_reranking,
    single_query,
)
from tiercel.config import Settings
from tiercel.data.queries import QueryFormat
from tiercel.data.records import FieldNames
from tiercel.data.runs import RunFormat
from tiercel.errors import InputError, UsageError
from tiercel.types import Query


def search(
    index: IndexPath,
    query: Annotated[str | None, typer.Argument(help="The query. Or give --queries.", metavar="QUERY")] = None,
    queries: Annotated[str | None, typer.Option(help="File of queries: JSONL, TSV, CSV or text; - for stdin.")] = None,
    history: Annotated[
        str | None,
        typer.Option(help='QUERY\'s earlier turns, oldest first: JSONL of strings or {"text": ...}; - for stdin.'),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Hits per query. Default: 10, with --run 1000.")] = None,
    pipeline: Pipeline = "",
    as_json: AsJson = False,
    run: Annotated[str | None, typer.Option(help="Write a run file; - for stdout.", metavar="FILE")] = None,
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the run, if its name does not tell.")] = None,
    query_format: QueryForm = None,
    query_id_field: QueryIdField = None,
    query_text_field: QueryTextField = None,
    where: Where = "",
    passages: Annotated[
        bool, typer.Option("--passages", help="Rank passages, not documents by their best passage.")
    ] = False,
    long: Long = "match",
    overlap: Overlap = 0,
    score: Score = "logit",
    precision: ModelPrecision = None,
    budget_ms: Budget = None,
    min_score: MinScore = None,
    tag: Annotated[str, typer.Option(help="Name of the run in a TREC file.")] = "tiercel",
    k1: K1 = 0.9,
    b: B = 0.4,
    variant: Variant = "lucene",
) -> None:
    """Answer one query, or a file of queries.

    A stage that reranks (cross:MODEL@10 in --pipeline) reads title and text: of a document that is cut into passages
    the one that matched, of others as far as the model reads, unless --long says otherwise.

    Earlier turns (--history, or "history" of a query in JSONL, a list of strings) are for stages that read a history;
    all others, the recall legs among them, read the query alone.
    """
    from tiercel import app
    from tiercel.calibrating import cut_below
    from tiercel.index.bm25 import BM25
    from tiercel.reranking import RerankOptions
    from tiercel.screen import counted, print_rankings, print_rankings_json, say, telling_empty

    _check_run(run, run_format, as_json=as_json, passages=passages)
    named = [app.find_pipeline(index, pipeline)] if pipeline else []
    reranking = RerankOptions(precision=precision, score=score, long=long, overlap=overlap)
    check_reranking(reranking, named)
    fields = FieldNames(id=query_id_field, text=query_text_field)
    asked = _queries(query, queries, fields, query_format, history=history)
    opened = app.open_index(index)
    (spec,) = named or [app.default_pipeline(opened)]
    check_budget(budget_ms, [spec])
    bm25 = BM25(k1=k1, b=b, variant=variant)
    options = app.SearchOptions(where, passages, bm25, reranking, say, budget_ms)
    cut = cut_below(index, spec, min_score, options)
    cascade = app.make_pipeline(opened, spec, settings=Settings.from_environment(), options=options)
    keep = k or (1000 if run else 10)
    batches: Iterable[list[Query]] = (asked[i : i + 64] for i in range(0, len(asked), 64))
    if run not in (None, "-"):  # results on the screen are their own sign of progress, and a line would cut into them
        batches = counted(batches, len(asked), "searching", "queries")
    rankings = cut(ranking for batch in batches for ranking in cascade.retrieve(batch, keep=keep))
    if run is not None:
        from tiercel.data.runs import write_run

        form = run_format or ("trec" if run == "-" else None)
        told = telling_empty(rankings, opened, where=where, least=min_score)
        write_run(told, run, format=form, tag=app.run_tag(tag, cascade))
    elif as_json:
        print_rankings_json(rankings, opened, where=where, least=min_score, facts_of=app.budget_facts(cascade))
    else:
        print_rankings(rankings, opened, several=query is None, where=where, least=min_score)
    for line in (*app.what_was_read(cascade), *app.what_was_skipped(cascade)):
        say(line)


def _check_run(run: str | None, run_format: RunFormat | None, *, as_json: bool, passages: bool) -> None:
    if run is not None and as_json:
        raise UsageError("--json and --run were given", expected="one of them; a run of JSON is --run FILE.jsonl")
    if run is None and run_format is not None:
        raise UsageError("--run-format without --run", expected="a run for it to be the form of")
    if run is not None and passages:
        raise UsageError("--run and --passages were given", expected="one of them: a run ranks documents")


def _queries(
    query: str | None,
    queries: str | None,
    fields: FieldNames,
    format: QueryFormat | None,
    *,
    history: str | None,
) -> list[Query]:
    from tiercel.data.history import read_history
    from tiercel.data.queries import read_queries

    if (query is None) == (queries is None):
        raise UsageError(
            "no query was given" if query is None else "a query and --queries were given",
            expected="one of them: tiercel search INDEX QUERY, or tiercel search INDEX --queries FILE",
        )
    if query is not None:
        return [single_query(query, () if history is None else read_history(history))]
    if history is not None:
        raise UsageError(
            "--history and --queries were given",
            expected='a QUERY with it; in a file of queries each has its own "history"',
        )
    source = queries or ""
    found = read_queries(source, fields=fields, format=format)
    if not found:
        raise InputError("there is no query in it", where=source, expected="at least one")
    return found
