"""The command that says why a document is where it is."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from tiercel.commands.options import (
    K1,
    AsJson,
    B,
    HtmlFile,
    IndexPath,
    Long,
    ModelPrecision,
    Overlap,
    Pipeline,
    QueryForm,
    Score,
    Variant,
    Where,
    check_reranking,
    checked_utf8,
    single_query,
)
from tiercel.config import Settings
from tiercel.data.queries import QueryFormat
from tiercel.errors import UsageError
from tiercel.types import DocId, Query, QueryId


def explain(
    index: IndexPath,
    query: Annotated[str, typer.Argument(help="The query; with --queries, its id there.", metavar="QUERY")],
    documents: Annotated[list[str], typer.Argument(help="Ids of documents, found or not.", metavar="DOC...")],
    queries: Annotated[str | None, typer.Option(help="File of queries, of which QUERY is one; - for stdin.")] = None,
    query_format: QueryForm = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits that the search is to give.")] = 10,
    pipeline: Pipeline = "",
    as_json: AsJson = False,
    html: HtmlFile = None,
    where: Where = "",
    long: Long = "match",
    overlap: Overlap = 0,
    score: Score = "logit",
    precision: ModelPrecision = None,
    k1: K1 = 0.9,
    b: B = 0.4,
    variant: Variant = "lucene",
) -> None:
    """Show what every stage made of a document, and which one dropped it."""
    from tiercel.app import SearchOptions, default_pipeline, make_pipeline, open_index
    from tiercel.data.files import check_target
    from tiercel.explaining import explain as explain_documents
    from tiercel.index.bm25 import BM25
    from tiercel.reranking import RerankOptions
    from tiercel.retrieve.spec import parse
    from tiercel.screen import say
    from tiercel.screen_explained import print_explanations, print_explanations_json

    if html == "-" and as_json:
        raise UsageError("--json and --html - were given", expected="one of them on stdout")
    named = [parse(pipeline)] if pipeline else []
    reranking = RerankOptions(precision=precision, score=score, long=long, overlap=overlap)
    check_reranking(reranking, named)
    if html is not None:
        check_target(html)
    asked = _query(query, queries, query_format)
    opened = open_index(index)
    (spec,) = named or [default_pipeline(opened)]
    options = SearchOptions(where=where, parameters=BM25(k1, b, variant), reranking=reranking, say=say)
    cascade = make_pipeline(opened, spec, settings=Settings.from_environment(), options=options)
    ids = [DocId(checked_utf8(document, "the id of a document")) for document in documents]
    found = explain_documents(opened, cascade, asked, ids, keep=k, where=where)
    if html is not None:
        from tiercel.html.explanation import explanation_page
        from tiercel.html.page import write_page

        write_page(html, explanation_page(str(spec), found))
    if as_json:
        print_explanations_json(str(spec), found)
    elif html != "-":
        print_explanations(found)


def _query(query: str, queries: str | None, form: QueryFormat | None) -> Query:
    from tiercel.data.queries import read_queries

    if queries is None:
        return single_query(query)
    known = {one.id: one for one in read_queries(queries, format=form)}
    if query not in known:
        near = difflib.get_close_matches(query, known, n=1) or list(known)[:1]
        raise UsageError(
            f"no query has the id {query!r}",
            where=queries,
            expected=f"one of {len(known)} ids, such as {near[0]!r}" if near else "a file with queries",
        )
    return known[QueryId(query)]
