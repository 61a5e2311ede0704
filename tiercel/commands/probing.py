"""Commands that try the user's own index without judgments."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tiercel.commands.options import (
    AsJson,
    Budget,
    IndexPath,
    Measures,
    ModelPrecision,
    QueryForm,
    QueryIdField,
    QueryTextField,
)
from tiercel.config import Settings
from tiercel.data.records import FieldNames
from tiercel.errors import InputError, UsageError
from tiercel.protocols import Retriever
from tiercel.types import Query

PROBE_MEASURES = ("RR@10",)
_BENCH_DOCUMENTS = 100


def probe(
    index: IndexPath,
    pipelines: Annotated[
        list[str] | None, typer.Option("--pipeline", "-p", help="Stages; repeat to probe several.")
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="How many documents are to be found again.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw: the same gives the same queries.")] = 1,
    measures: Measures = None,
    precision: ModelPrecision = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write queries and judgments into this folder, in BEIR's form.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try whether pipelines find documents of the index again, by keywords, a snippet and the title.

    Every query is asked as it stands, with slips, in lower case and with its words in another order; "worst" is the
    mean over the documents of each one's worst form. A near-duplicate of the document counts as found.
    """
    from tiercel.app import SearchOptions, default_pipeline, find_pipeline, make_pipelines, open_index
    from tiercel.commands.options import check_reranking
    from tiercel.evaluation.measures import parse_measures
    from tiercel.evaluation.probe import make_known_items, write_known_items
    from tiercel.evaluation.probe import probe as find_again
    from tiercel.reranking import RerankOptions
    from tiercel.screen import say
    from tiercel.screen_probes import print_probe, print_probe_json

    wanted = parse_measures(measures or PROBE_MEASURES)
    named = [find_pipeline(index, text) for text in pipelines or ()]
    reranking = RerankOptions(precision=precision)
    check_reranking(reranking, named)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}, which is there already", expected="a new or an empty folder")
    opened = open_index(index)
    specs = named or [default_pipeline(opened)]
    options = SearchOptions(reranking=reranking, say=say)
    cascades = make_pipelines(opened, specs, settings=Settings.from_environment(), options=options)
    known = make_known_items(opened, documents=documents, seed=seed)
    if out is not None:
        write_known_items(known, out)
    keep = max([10, *(measure.cutoff or 100 for measure in wanted)])
    found = {
        str(spec): find_again(cascade, known, measures=wanted, keep=keep)
        for spec, cascade in zip(specs, cascades, strict=True)
    }
    if as_json:
        print_probe_json(found, known, wanted)
    else:
        print_probe(found, known)


def bench(
    index: IndexPath,
    queries: Annotated[
        str | None, typer.Option(help="File of queries; - for stdin. Default: queries made of the index's documents.")
    ] = None,
    pipelines: Annotated[
        list[str] | None, typer.Option("--pipeline", "-p", help="Stages; repeat to measure several.")
    ] = None,
    callers: Annotated[
        int, typer.Option(min=1, max=1024, help="Most callers at once; 1, 2, 4 and so on are measured too.")
    ] = 4,
    requests: Annotated[int, typer.Option(min=1, help="Queries that are timed for each number of callers.")] = 200,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits per query.")] = 10,
    query_format: QueryForm = None,
    query_id_field: QueryIdField = None,
    query_text_field: QueryTextField = None,
    precision: ModelPrecision = None,
    budget_ms: Budget = None,
    as_json: AsJson = False,
) -> None:
    """Measure throughput and latency of pipelines while several callers ask at once.

    Each caller asks its next query when its last one is answered. TIERCEL_THREADS sets how many threads one query uses.
    """
    from tiercel.app import SearchOptions, default_pipeline, find_pipeline, make_pipelines, open_index
    from tiercel.commands.options import check_budget, check_reranking
    from tiercel.data.queries import read_queries
    from tiercel.evaluation.load import Load, caller_counts, measure_load
    from tiercel.evaluation.probe import make_known_items
    from tiercel.reranking import RerankOptions
    from tiercel.screen import say
    from tiercel.screen_probes import print_loads, print_loads_json

    named = [find_pipeline(index, text) for text in pipelines or ()]
    reranking = RerankOptions(precision=precision)
    check_reranking(reranking, named)
    fields = FieldNames(id=query_id_field, text=query_text_field)
    if queries is None and (query_format or fields != FieldNames()):
        raise UsageError("the form of queries without --queries", expected="a file for it to be the form of")
    asked = read_queries(queries, fields=fields, format=query_format) if queries is not None else []
    if queries is not None and not asked:
        raise InputError("there is no query in it", where=queries, expected="at least one")
    opened = open_index(index)
    if queries is None:
        known = make_known_items(opened, documents=_BENCH_DOCUMENTS, seed=1)
        asked = [item.queries["plain"] for item in known.items]
    specs = named or [default_pipeline(opened)]
    check_budget(budget_ms, specs)
    settings = Settings.from_environment()
    options = SearchOptions(reranking=reranking, say=say, budget_ms=budget_ms)
    found: dict[str, list[Load]] = {}
    for spec, cascade in zip(specs, make_pipelines(opened, specs, settings=settings, options=options), strict=True):
        found[str(spec)] = []
        for count in caller_counts(callers):
            say(f"{spec}: {count} at once")
            run_one = partial(_answer, cascade, k)
            found[str(spec)].append(measure_load(run_one, asked, callers=count, requests=requests))
    told = print_loads_json if as_json else print_loads
    source = "made of the index's documents" if queries is None else f"of {queries}"
    told(found, queries=len(asked), source=source, threads=settings.threads)


def _answer(pipeline: Retriever, keep: int, query: Query) -> object:
    return pipeline.retrieve([query], keep=keep)
