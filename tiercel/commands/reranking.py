"""The command that scores ready candidates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from tiercel.commands.options import Long
from tiercel.config import Precision, ScoreKind, Settings
from tiercel.data.runs import RunFormat
from tiercel.errors import PartialFailure, UsageError
from tiercel.types import DocId

if TYPE_CHECKING:
    from tiercel.protocols import CandidateGroup


def rerank(
    source: Annotated[
        str | None,
        typer.Argument(
            help='JSONL of {"query": ..., "documents": [...]}, or - for stdin. Or give --run.', metavar="CANDIDATES"
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Cross-encoder: an exported folder, its source, or a hub name; or an exported late-interaction model."
        ),
    ] = "",
    run: Annotated[str | None, typer.Option(help="Run file whose hits are reranked.")] = None,
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the run, if its name does not tell.")] = None,
    queries: Annotated[str | None, typer.Option(help="File of the run's queries.")] = None,
    corpus: Annotated[list[str] | None, typer.Option(help="Documents of the run; repeat for more sources.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits per query that are kept.")] = 1000,
    out: Annotated[str, typer.Option(help="Write the new run there; - for stdout.", metavar="FILE")] = "-",
    long: Long = "first",
    score: Annotated[ScoreKind, typer.Option(help="The model's own number, or its sigmoid.")] = "logit",
    precision: Annotated[
        Precision | None, typer.Option(help="Of the model. Default: int8, or what an exported folder has.")
    ] = None,
) -> None:
    """Score ready candidates with a cross-encoder: JSONL on stdin, or the hits of a run."""
    from tiercel.reranking import RerankOptions, make_reranker, what_was_read
    from tiercel.reranking import rerank as score_candidates
    from tiercel.screen import print_reranked, say

    if (source is None) == (run is None):
        raise UsageError(
            "no candidates were given" if run is None else "candidates and --run were given",
            expected="one of them: tiercel rerank FILE --model M, or --run R --queries Q --corpus C --model M",
        )
    if not model:
        raise UsageError("no model was named", expected="--model, a cross-encoder's folder or hub name")
    if run is not None and (queries is None or not corpus):
        raise UsageError("a run without its texts", expected="--queries FILE and --corpus FILE with --run")
    if source is not None and (queries or corpus or run_format or out != "-"):
        raise UsageError(
            "--queries, --corpus, --run-format or --out without --run", expected="candidates that bring their texts"
        )
    options = RerankOptions(precision=precision, score=score, long=long)
    missing: list[DocId] = []
    groups: Iterable[CandidateGroup]
    if run is None:
        from tiercel.data.candidates import read_groups

        if not source:
            raise UsageError("candidates of no name", expected="a file, or - for stdin")
        groups = read_groups(source)
    else:
        groups, missing = _groups_of_run(run, run_format, queries or "", corpus or [])
    reranker = make_reranker(model, settings=Settings.from_environment(), options=options, say=say)
    rankings = score_candidates(reranker, groups, keep=k)
    if run is None:
        print_reranked(rankings)
    else:
        from tiercel.data.runs import write_run

        write_run(rankings, out, format="trec" if out == "-" else None, tag="tiercel")
    if read := what_was_read(reranker):
        say(read)
    if missing:
        raise PartialFailure(
            f"the corpus lacks {len(missing)} documents of the run: {', '.join(map(repr, missing[:5]))}"
            + (", ..." if len(missing) > 5 else ""),
            where=run or "",
            next_step="The others were reranked.",
        )


def _groups_of_run(
    run: str, form: RunFormat | None, queries: str, corpus: list[str]
) -> tuple[list[CandidateGroup], list[DocId]]:
    from tiercel.data.candidates import groups_from_run
    from tiercel.data.corpus import read_documents
    from tiercel.data.queries import read_queries
    from tiercel.data.runs import read_run

    found = groups_from_run(read_run(run, format=form), read_queries(queries), read_documents(corpus))
    return found.groups, found.missing
