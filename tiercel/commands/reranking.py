"""The command that scores ready candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tiercel.commands.options import (
    IdField,
    Long,
    ModelPrecision,
    Overlap,
    QueryForm,
    QueryIdField,
    QueryTextField,
    Score,
    TextField,
    TitleField,
)
from tiercel.config import Settings
from tiercel.data.corpus import CorpusFormat
from tiercel.data.records import FieldNames
from tiercel.data.runs import RunFormat
from tiercel.errors import PartialFailure, UsageError

if TYPE_CHECKING:
    from tiercel.reranking import RerankOptions
    from tiercel.run_reranking import RunSources, RunTarget


def rerank(
    source: Annotated[
        str | None,
        typer.Argument(
            help='JSONL of {"query": ..., "documents": [...]} or {"context": [turns], "candidates": [...]}; - for '
            "stdin. Or give --run.",
            metavar="CANDIDATES",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Cross-encoder: an exported folder, its source, or a hub name; or a model of late interaction, "
            "local attention or a Uni-Encoder."
        ),
    ] = "",
    run: Annotated[str | None, typer.Option(help="Run file whose hits are reranked.")] = None,
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the run, if its name does not tell.")] = None,
    queries: Annotated[str | None, typer.Option(help="File of the run's queries.")] = None,
    query_format: QueryForm = None,
    query_id_field: QueryIdField = None,
    query_text_field: QueryTextField = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Documents of the run; repeat for more sources. Or an index of them.")
    ] = None,
    format: Annotated[
        CorpusFormat | None, typer.Option(help="Form of the documents, if their names do not tell.")
    ] = None,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits per query that are kept.")] = 1000,
    out: Annotated[
        str, typer.Option(help="Write the new run there; - for stdout. A file can be gone on with.", metavar="FILE")
    ] = "-",
    out_format: Annotated[
        RunFormat | None, typer.Option(help="Form of the new run, if its name does not tell.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever an interrupted command left beside --out.")
    ] = False,
    long: Long = "match",
    overlap: Overlap = 0,
    score: Score = "logit",
    precision: ModelPrecision = None,
) -> None:
    """Score ready candidates with a cross-encoder: JSONL on stdin, or the hits of a run.

    Of a conversation ("context", turns oldest first) the last turn is the query, those before are its history, as is a
    query's "history". A model that reads no history reads the query alone.

    With --out FILE, the same command goes on where an interrupted one stopped; FILE.partial has what is done.
    """
    from tiercel.reranking import RerankOptions
    from tiercel.run_reranking import RunSources, RunTarget

    _check_asked(source, run, model)
    options = RerankOptions(precision=precision, score=score, long=long, overlap=overlap)
    target = RunTarget(out, keep=k, format=out_format, restart=restart)
    sources = RunSources(
        run=run or "",
        queries=queries or "",
        corpus=corpus or (),
        run_format=run_format,
        query_format=query_format,
        corpus_format=format,
        query_fields=FieldNames(id=query_id_field, text=query_text_field),
        corpus_fields=FieldNames(id=id_field, text=text_field, title=title_field),
    )
    if run is not None:
        _rerank_run(sources, target, model, options)
        return
    if (sources, target) != (RunSources("", "", ()), RunTarget("-", keep=k)):
        raise UsageError(
            "an option about runs without --run", expected="candidates that bring their texts and go to standard output"
        )
    _rerank_candidates(source or "", model, options, keep=k)


def _check_asked(source: str | None, run: str | None, model: str) -> None:
    if (source is None) == (run is None):
        raise UsageError(
            "no candidates were given" if run is None else "candidates and --run were given",
            expected="one of them: tiercel rerank FILE --model M, or --run R --queries Q --corpus C --model M",
        )
    if not model:
        raise UsageError("no model was named", expected="--model, a cross-encoder's folder or hub name")


def _rerank_candidates(source: str, model: str, options: RerankOptions, *, keep: int) -> None:
    from tiercel.data.candidates import read_candidates
    from tiercel.reranking import in_batches, make_reranker, what_was_read
    from tiercel.reranking import rerank as score_groups
    from tiercel.screen import print_reranked, say

    if not source:
        raise UsageError("candidates of no name", expected="a file, or - for stdin")
    waiting = read_candidates(source)
    reranker = make_reranker(model, settings=Settings.from_environment(), options=options, say=say)
    for batch in in_batches(waiting, lambda candidates: len(candidates.group.documents)):
        rankings = score_groups(reranker, [candidates.group for candidates in batch], keep=keep)
        print_reranked(zip(rankings, batch, strict=True))
    if read := what_was_read(reranker):
        say(read)


def _rerank_run(sources: RunSources, target: RunTarget, model: str, options: RerankOptions) -> None:
    from tiercel.reranking import make_reranker, what_was_read
    from tiercel.run_reranking import Listener, open_run, scores_of, write_reranked
    from tiercel.screen import counting, say

    if not sources.queries or not sources.corpus:
        raise UsageError("a run without its texts", expected="--queries FILE and --corpus FILE with --run")
    if [sources.run, sources.queries, *sources.corpus].count("-") > 1:
        raise UsageError("standard input (-) named twice", expected="it once: it can be read only once")
    target.check()
    settings = Settings.from_environment()
    reranker = make_reranker(model, settings=settings, options=options, say=say)
    candidates = open_run(sources)
    asked = scores_of(reranker, model, settings=settings, options=options)
    with counting("reranking", "queries", len(candidates.rankings)) as progress:
        write_reranked(reranker, candidates, target, asked=asked, listener=Listener(say, progress))
    if read := what_was_read(reranker):
        say(read)
    if missing := list(candidates.missing):
        raise PartialFailure(
            f"the corpus lacks {len(missing)} documents of the run: {', '.join(map(repr, missing[:5]))}"
            + (", ..." if len(missing) > 5 else ""),
            where=sources.run,
            next_step="The others were reranked.",
        )
