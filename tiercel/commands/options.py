"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiercel.config import LongStrategy, Precision, ScoreKind
from tiercel.data.files import is_unicode
from tiercel.data.queries import QueryFormat
from tiercel.errors import UsageError
from tiercel.types import Query, QueryId

if TYPE_CHECKING:
    from tiercel.reranking import RerankOptions
    from tiercel.retrieve.spec import PipelineSpec

IndexPath = Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HtmlFile = Annotated[
    str | None, typer.Option("--html", help="Write a page that opens without a network; - for stdout.", metavar="FILE")
]
IdField = Annotated[str | None, typer.Option(help="Field of the id, if not _id, id, docid or doc_id.")]
TextField = Annotated[str | None, typer.Option(help="Field of the text, if not text, contents or body.")]
TitleField = Annotated[str | None, typer.Option(help="Field of the title, if not title.")]
Pipeline = Annotated[
    str,
    typer.Option(
        "--pipeline",
        "-p",
        help="Stages, as in bm25+dense@100, or a name that the index has for some. Default: every leg the index has, "
        "and late where it keeps token vectors.",
    ),
]
K1 = Annotated[float, typer.Option(help="BM25 k1.")]
B = Annotated[float, typer.Option(help="BM25 b.")]
Variant = Annotated[
    str, typer.Option(help="BM25 variant: lucene, robertson, atire, bm25l, bm25+, rank-bm25-okapi, rank-bm25-l.")
]
QueryForm = Annotated[QueryFormat | None, typer.Option(help="Form of the queries, if their name does not tell.")]
QueryIdField = Annotated[str | None, typer.Option(help="Field of a query's id, if not _id, id, qid or query_id.")]
QueryTextField = Annotated[str | None, typer.Option(help="Field of its text, if not text, query, title or question.")]
Where = Annotated[
    str, typer.Option(help="Only documents whose metadata fit, as in: year >= 2020 and lang = 'en'.", metavar="EXPR")
]
Long = Annotated[
    LongStrategy,
    typer.Option(
        help="What a reranker reads: the passage that matched (without passages as first), the first window of the "
        "document, all its windows and what is made of their scores, or an extract."
    ),
]
Overlap = Annotated[
    int, typer.Option(min=0, help="Most tokens (words, marks) that a window of --long repeats of the one before.")
]
Score = Annotated[ScoreKind, typer.Option(help="A cross-encoder's own number, or its sigmoid.")]
ModelPrecision = Annotated[
    Precision | None, typer.Option(help="Of the reranker. Default: int8, or what an exported folder has.")
]
Measures = Annotated[
    list[str] | None, typer.Option("--measure", "-m", help="As ir_measures spells them; repeat for more.")
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        help="Most milliseconds for a query: stages rerank as deep as there is time, and what they skip is told.",
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(help="Only hits with at least this chance of relevance, as tiercel calibrate has fitted it."),
]


def check_budget(budget_ms: float | None, pipelines: Iterable[PipelineSpec]) -> None:
    """Raise UsageError for a budget that is no time, or that a pipeline has nothing to spend on."""
    if budget_ms is None:
        return
    if not 0 < budget_ms < float("inf"):
        raise UsageError(f"--budget-ms {budget_ms:g}", expected="a number above 0")
    if without := next((str(spec) for spec in pipelines if not spec.reranks), ""):
        raise UsageError(
            f"--budget-ms with the pipeline {without}, which does not rerank",
            expected="a stage to plan for, such as cross:MODEL in --pipeline",
        )


def single_query(text: str, history: tuple[str, ...] = ()) -> Query:
    """The query that an argument is, after these turns. Raises UsageError for one that is not UTF-8."""
    return Query(QueryId("1"), checked_utf8(text, "a query"), history)


def checked_utf8(text: str, what: str) -> str:
    """The argument again. Raises UsageError, calling it `what`, where its bytes are not UTF-8."""
    if not is_unicode(text):
        raise UsageError(f"{what} that is not UTF-8", expected="text in UTF-8")
    return text


def check_reranking(options: RerankOptions, pipelines: Iterable[PipelineSpec]) -> None:
    """Raise UsageError where something is asked of stages that rerank, and no pipeline has one that heeds it."""
    from tiercel.reranking import STAGES, RerankOptions, heeded_by

    usual = asdict(RerankOptions())
    asked = {name: value for name, value in asdict(options).items() if value != usual[name]}
    stages = {stage.name for spec in pipelines for stage in spec.reranks}
    deaf = [name for name, value in asked.items() if stages.isdisjoint(heeded_by(name, value))]
    if deaf:
        heeding = sorted(set(STAGES).intersection(*(heeded_by(name, asked[name]) for name in deaf)))
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in deaf)} without a stage that heeds it",
            expected=f"{' or '.join(heeding)} among the stages of --pipeline, such as cross:MODEL",
        )
