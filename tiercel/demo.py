"""A first look: SciFact indexed, asked and evaluated, with the published figures beside ours."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from tiercel.app import make_pipeline, open_index
from tiercel.config import Settings
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.errors import IndexStoreError, InputError
from tiercel.evaluation.measures import parse_measures
from tiercel.evaluation.report import evaluate_pipeline
from tiercel.index_settings import IndexOptions
from tiercel.indexing import index_documents
from tiercel.retrieve.spec import parse
from tiercel.screen import counting, print_rankings, say
from tiercel.types import Query, QueryId

_PLACE = Path(".demo/scifact.tiercel")

QUESTIONS = (
    "Does vitamin D protect against respiratory infections?",
    "How do tumour cells escape the immune system?",
    "Is a high-fat diet linked to insulin resistance?",
)

PUBLISHED = {
    "bm25": ("0.665 to 0.679", "BEIR multi-field and Pyserini flat, depth 1000"),
    "dense": ("0.645", "all-MiniLM-L6-v2, fp32, 256 tokens"),
}
"""nDCG@10 on the 300 test queries of SciFact, by stage."""


def run_demo(data: Path | None, index: Path | None, *, settings: Settings) -> None:
    """Index the collection, answer three questions, print the evaluation of every stage.

    Only an index in the demo's own place is made anew; another path must be free.
    """
    source = data or _examples()
    options = IndexOptions(replace=index is None)
    if index is not None and index.exists():
        raise IndexStoreError(
            "there is something already", where=str(index), expected="a new path for the demo's index"
        )
    index = index or _PLACE
    started = time.perf_counter()
    with counting("indexing", "documents") as progress:
        index_documents(index, [source], options, settings=settings, say=say, progress=progress)
    say(f"indexed in {time.perf_counter() - started:.1f} s; the index is {index}")
    opened = open_index(index)
    pipeline = make_pipeline(opened, parse("bm25+dense@100"), settings=settings)
    pipeline.retrieve([Query(QueryId("0"), QUESTIONS[0])], keep=3)  # loads what a first query loads
    for number, question in enumerate(QUESTIONS, start=1):
        started = time.perf_counter()
        rankings = pipeline.retrieve([Query(QueryId(str(number)), question)], keep=3)
        typer.echo(f"\n{question}  ({(time.perf_counter() - started) * 1000:.0f} ms)")
        print_rankings(rankings, opened, several=False)
    typer.echo("")
    report = evaluate_pipeline(
        pipeline,
        read_queries(source),
        qrels=read_qrels(source, split="test"),
        measures=parse_measures(["nDCG@10", "RR@10", "R@100"]),
        keep=100,
    )
    last = report.rows[-1].result
    encoder = opened.manifest.settings.encoder
    typer.echo(f"{source.resolve().name} test, {last.queries} queries, title + text, depth 100")
    if encoder is not None:
        typer.echo(
            f"BM25 k1=0.9 b=0.4; {encoder.name}, {encoder.precision}, {encoder.max_tokens} tokens; fused by minmax"
        )
    typer.echo(f"{'stage':<16}{'nDCG@10':>9}{'RR@10':>9}{'R@100':>9}   published nDCG@10")
    for row in report.rows:
        figures = "".join(f"{row.result.means[name]:9.4f}" for name in ("nDCG@10", "RR@10", "R@100"))
        published, setting = PUBLISHED.get(row.stage, ("", "")) if source.resolve().name == "scifact" else ("", "")
        typer.echo(f"{row.stage:<16}{figures}   {published}{f' ({setting})' if setting else ''}")
    if report.latency is not None:
        typer.echo(f"one query through the whole pipeline: p50 {report.latency.p50_ms:.1f} ms, "
                   f"p95 {report.latency.p95_ms:.1f} ms")  # fmt: skip


def _examples() -> Path:
    """The SciFact folder inside the installed package, or in the checkout."""
    package = Path(__file__).parent
    for folder in (package / "examples" / "scifact", package.parent / "examples" / "scifact"):
        if folder.is_dir():
            return folder
    raise InputError("the demo's collection is not installed", next_step="Name a BEIR folder with --data.")
