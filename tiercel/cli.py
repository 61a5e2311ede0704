"""The command line: arguments in, exit code out. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tiercel.config import LongStrategy, OnDuplicate, Precision, ScoreKind, Settings
from tiercel.data.chunking import Chunking, ChunkKind
from tiercel.data.corpus import CorpusFormat
from tiercel.data.queries import QueryFormat
from tiercel.data.records import FieldNames
from tiercel.data.runs import RunFormat
from tiercel.errors import IndexStoreError, InputError, PartialFailure, TiercelError, UsageError
from tiercel.types import DocId, Query, QueryId

if TYPE_CHECKING:
    from tiercel.models.description import ModelFamily
    from tiercel.protocols import CandidateGroup


class _Commands(TyperGroup):
    """Say what typer leaves unsaid (an interrupt) and takes for a failure (a reader that has seen enough)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("tiercel: interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader, as in `| head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    cls=_Commands,
    name="tiercel",
    help="Index text and answer queries through a cascade of stages: BM25 and dense recall, fusion, rerankers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "TIERCEL", "help_option_names": ["-h", "--help"]},
)


IndexPath = Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
IdField = Annotated[str | None, typer.Option(help="Field of the id, if not _id, id, docid or doc_id.")]
TextField = Annotated[str | None, typer.Option(help="Field of the text, if not text, contents or body.")]
TitleField = Annotated[str | None, typer.Option(help="Field of the title, if not title.")]
Pipeline = Annotated[
    str, typer.Option("--pipeline", "-p", help="Stages, as in bm25+dense@100. Default: every leg the index has.")
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
    typer.Option(help="What a reranker makes of the windows of a document longer than its own, or an extract."),
]
Measures = Annotated[
    list[str] | None, typer.Option("--measure", "-m", help="As ir_measures spells them; repeat for more.")
]

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100")


@app.command()
def index(
    index: IndexPath,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="JSONL, TSV, CSV or Parquet files, BEIR folders, folders of text, or - for stdin.", metavar="SOURCE..."
        ),
    ],
    encoder: Annotated[
        str | None, typer.Option(help="Model name or folder; 'none' for BM25 only. Default: all-MiniLM-L6-v2.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the encoder. Default: int8.")] = None,
    analyzer: Annotated[
        str | None, typer.Option(help="english (default), none, cjk, or a language that Snowball stems.")
    ] = None,
    ann: Annotated[
        str | None, typer.Option(help="auto (default: by size), flat, hnsw, ivf, or a FAISS factory string.")
    ] = None,
    recall: Annotated[
        float | None, typer.Option(help="Share of the exact 100 nearest that the ANN is tuned to find. Default: 0.98.")
    ] = None,
    chunk: Annotated[
        ChunkKind | None, typer.Option(help="Cut documents into passages. Default: each document is one.")
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Most tokens (words, marks) of a passage. Default: 200.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Most tokens that a passage repeats of the one before. Default: 0.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="What precedes a passage: title (default), headings, title,headings, or none.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            help="NAME=TYPE of a metadata column, if its values do not tell: string, number, boolean, date, list, "
            "other; repeat for more.",
        ),
    ] = None,
    on_duplicate: Annotated[
        OnDuplicate, typer.Option(help="An id that comes twice in the sources: refuse all, or let the last one count.")
    ] = "refuse",
    format: Annotated[
        CorpusFormat | None, typer.Option(help="Form of the sources, if their names do not tell.")
    ] = None,
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = None,
    replace: Annotated[bool, typer.Option("--replace", help="Build an existing index anew, not add to it.")] = False,
) -> None:
    """Index documents; into an index that is there, add them, each in place of the one with its id."""
    from tiercel.index.columns import parse_declared
    from tiercel.indexing import IndexOptions, index_documents
    from tiercel.screen import counting, say

    options = IndexOptions(
        fields=FieldNames(id=id_field, text=text_field, title=title_field),
        format=format,
        analyzer=analyzer,
        encoder=encoder,
        precision=precision,
        ann=ann,
        recall=recall,
        chunking=_chunking(chunk, chunk_size, chunk_overlap),
        context=None if context is None else _context(context),
        columns=parse_declared(columns) if columns else None,
        on_duplicate=on_duplicate,
        replace=replace,
    )
    with counting("indexing", "documents") as progress:
        done = index_documents(
            index, sources, options, settings=Settings.from_environment(), say=say, progress=progress
        )
    place = shlex.quote(str(index))
    news = "" if done.added == done.documents else f", {done.added} of them new"
    if done.replaced:
        news = f", {done.added - done.replaced} of them new, {done.replaced} replaced"
    say(f"{index}: {done.documents} documents{news}. Ask with: tiercel search {place} 'your question'")


@app.command()
def delete(
    index: IndexPath,
    more: Annotated[
        list[str] | None, typer.Argument(help="Further ids, or - for one per line of stdin.", metavar="ID...")
    ] = None,
    ids: Annotated[list[str] | None, typer.Option(help="Ids of documents.", metavar="ID...")] = None,
    where: Where = "",
    as_json: AsJson = False,
) -> None:
    """Delete documents by their ids, or those that an expression over the metadata selects."""
    from tiercel.indexing import delete_documents
    from tiercel.screen import print_deleted, say

    named = [*(ids or ()), *(more or ())]
    if bool(named) == bool(where):
        raise UsageError(
            "ids and --where were given" if where else "nothing to delete was named",
            expected="one of: --ids ID..., --where EXPRESSION, or - for ids on stdin",
        )
    if "-" in named:
        from tiercel.data.files import read_lines

        named = [name for name in named if name != "-"] + [line for _, line in read_lines("-") if line]
    done = delete_documents(index, ids=named, where=where, settings=Settings.from_environment(), say=say)
    print_deleted(done, as_json=as_json)
    if done.unknown:
        raise PartialFailure(
            f"no document has the id {' or '.join(repr(name) for name in done.unknown[:5])}"
            + (f", and {len(done.unknown) - 5} more" if len(done.unknown) > 5 else ""),
            where=str(index),
            next_step="The others were deleted." if done.deleted else "",
        )


@app.command()
def compact(index: IndexPath, as_json: AsJson = False) -> None:
    """Merge the segments of an index into one, without what has been deleted."""
    from tiercel.indexing import compact_index
    from tiercel.screen import print_info, say

    print_info(compact_index(index, settings=Settings.from_environment(), say=say), as_json=as_json)


@app.command()
def search(
    index: IndexPath,
    query: Annotated[str | None, typer.Argument(help="The query. Or give --queries.", metavar="QUERY")] = None,
    queries: Annotated[str | None, typer.Option(help="File of queries: JSONL, TSV, CSV or text; - for stdin.")] = None,
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
    long: Long = "first",
    tag: Annotated[str, typer.Option(help="Name of the run in a TREC file.")] = "tiercel",
    k1: K1 = 0.9,
    b: B = 0.4,
    variant: Variant = "lucene",
) -> None:
    """Answer one query, or a file of queries."""
    from tiercel.app import SearchOptions, default_pipeline, make_pipeline, open_index, what_was_read
    from tiercel.index.bm25 import BM25
    from tiercel.reranking import RerankOptions
    from tiercel.retrieve.spec import parse
    from tiercel.screen import counted, print_rankings, print_rankings_json, say, telling_empty

    if run is not None and as_json:
        raise UsageError("--json and --run were given", expected="one of them; a run of JSON is --run FILE.jsonl")
    if run is None and run_format is not None:
        raise UsageError("--run-format without --run", expected="a run for it to be the form of")
    if long != "first" and "cross" not in pipeline:
        raise UsageError("--long without a stage that reranks", expected="cross:MODEL in --pipeline")
    if run is not None and passages:
        raise UsageError("--run and --passages were given", expected="one of them: a run ranks documents")
    fields = FieldNames(id=query_id_field, text=query_text_field)
    asked = _queries(query, queries, fields, query_format)
    opened = open_index(index)
    spec = parse(pipeline) if pipeline else default_pipeline(opened)
    options = SearchOptions(
        where=where,
        passages=passages,
        parameters=BM25(k1=k1, b=b, variant=variant),
        reranking=RerankOptions(long=long),
        say=say,
    )
    cascade = make_pipeline(opened, spec, settings=Settings.from_environment(), options=options)
    keep = k or (1000 if run else 10)
    batches: Iterable[list[Query]] = (asked[i : i + 64] for i in range(0, len(asked), 64))
    if run not in (None, "-"):  # results on the screen are their own sign of progress, and a line would cut into them
        batches = counted(batches, len(asked), "searching", "queries")
    rankings = (ranking for batch in batches for ranking in cascade.retrieve(batch, keep=keep))
    if run is not None:
        from tiercel.data.runs import write_run

        form = run_format or ("trec" if run == "-" else None)
        write_run(telling_empty(rankings, opened, where=where), run, format=form, tag=tag)
    elif as_json:
        print_rankings_json(rankings, opened, where=where)
    else:
        print_rankings(rankings, opened, several=query is None, where=where)
    for line in what_was_read(cascade):
        say(line)


@app.command("eval")
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
    as_json: AsJson = False,
    k1: K1 = 0.9,
    b: B = 0.4,
    variant: Variant = "lucene",
) -> None:
    """Measure every stage of a pipeline, or ready run files, against judgments."""
    from tiercel.data.qrels import read_qrels
    from tiercel.evaluation.measures import parse_measures

    wanted = parse_measures(measures or DEFAULT_MEASURES)
    if bool(runs) == (index is not None):
        raise UsageError(
            "neither an index nor a run was given" if not runs else "an index and a run were given",
            expected="one of them: tiercel eval INDEX --queries Q --qrels R, or tiercel eval --run FILE --qrels R",
        )
    unused = [name for name, value in (("--queries", queries), ("--pipeline", pipelines), ("-k", k)) if value]
    if runs and unused:
        raise UsageError(f"{' and '.join(unused)} with --run", expected="a run to be measured as it is")
    if [queries, qrels, *(runs or ())].count("-") > 1:
        raise UsageError("standard input (-) named twice", expected="it once: it can be read only once")
    judgments = read_qrels(qrels, split=split)
    if index is None:
        from tiercel.data.runs import read_run
        from tiercel.evaluation.measures import evaluate as measure
        from tiercel.screen import print_run_results

        rankings = {name: read_run(name, format=run_format) for name in runs or ()}
        print_run_results(
            {name: measure(run, judgments, wanted) for name, run in rankings.items()}, rankings, as_json=as_json
        )
        return
    if queries is None:
        raise UsageError("no queries were given", expected="--queries FILE")
    from tiercel.app import SearchOptions, default_pipeline, make_pipelines, open_index
    from tiercel.data.queries import read_queries
    from tiercel.evaluation.report import evaluate_pipeline
    from tiercel.index.bm25 import BM25
    from tiercel.reranking import RerankOptions
    from tiercel.retrieve.spec import parse
    from tiercel.screen import print_pipeline_reports, say

    opened = open_index(index)
    fields = FieldNames(id=query_id_field, text=query_text_field)
    asked = read_queries(queries, fields=fields, format=query_format)
    keep = k or max([100, *(measure.cutoff or 0 for measure in wanted)])
    specs = [parse(text) for text in pipelines] if pipelines else [default_pipeline(opened)]
    options = SearchOptions(parameters=BM25(k1=k1, b=b, variant=variant), reranking=RerankOptions(long=long), say=say)
    cascades = make_pipelines(opened, specs, settings=Settings.from_environment(), options=options)
    reports = {}
    for spec, cascade in zip(specs, cascades, strict=True):
        say(f"evaluating {spec}")
        reports[str(spec)] = evaluate_pipeline(cascade, asked, qrels=judgments, measures=wanted, keep=keep)
    print_pipeline_reports(reports, as_json=as_json)


@app.command()
def rerank(
    source: Annotated[
        str | None,
        typer.Argument(
            help='JSONL of {"query": ..., "documents": [...]}, or - for stdin. Or give --run.', metavar="CANDIDATES"
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Cross-encoder: an exported folder, its source folder, or a hub name.")
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


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="Model name, folder of (sentence-)transformers, or hub name.", metavar="MODEL")
    ],
    precision: Annotated[Precision, typer.Option(help="Number format of the weights.")] = "int8",
    cross_encoder: Annotated[bool, typer.Option("--cross-encoder", help="It is a cross-encoder.")] = False,
) -> None:
    """Turn a bi-encoder or a cross-encoder into ONNX, prove that it gives the same, and keep it in the cache."""
    from tiercel.app import export_model
    from tiercel.screen import print_model, say

    family: ModelFamily = "cross-encoder" if cross_encoder else "encoder"
    settings = Settings.from_environment()
    print_model(export_model(model, settings=settings, family=family, precision=precision, say=say))


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that this machine has: bundled packages and exports in the cache."""
    from tiercel.models.zoo import known_models
    from tiercel.screen import print_models

    print_models(known_models(Settings.from_environment().cache_dir), as_json=as_json)


@app.command()
def info(index: IndexPath, as_json: AsJson = False) -> None:
    """Show what an index holds."""
    from tiercel.app import open_index
    from tiercel.screen import print_info

    print_info(open_index(index), as_json=as_json)


@app.command()
def verify(index: IndexPath, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with what was written."""
    from tiercel.app import open_index
    from tiercel.screen import print_verified

    opened = open_index(index)
    opened.verify()
    print_verified(opened, as_json=as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, providers, models, cache."""
    from tiercel.doctor import examine
    from tiercel.screen import print_checks

    checks = examine(Settings.from_environment())
    print_checks(checks, as_json=as_json)
    if any(check.status == "fails" for check in checks):
        raise typer.Exit(5)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="BEIR folder. Default: the SciFact abstracts that come along.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Where to make the index. Default: .demo/scifact.tiercel, anew each time.")
    ] = None,
) -> None:
    """Index the SciFact abstracts, answer three questions, and evaluate on the 300 test queries."""
    from tiercel.demo import run_demo

    run_demo(data, index, settings=Settings.from_environment())


def _version(wanted: bool) -> None:
    if wanted:
        from tiercel import __version__

        typer.echo(f"tiercel {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        # Not from TIERCEL_VERSION: that is where an image or a script keeps which version to install.
        typer.Option(
            "--version", callback=_version, is_eager=True, allow_from_autoenv=False, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def _groups_of_run(
    run: str, form: RunFormat | None, queries: str, corpus: list[str]
) -> tuple[list[CandidateGroup], list[DocId]]:
    from tiercel.data.candidates import groups_from_run
    from tiercel.data.corpus import read_documents
    from tiercel.data.queries import read_queries
    from tiercel.data.runs import read_run

    found = groups_from_run(read_run(run, format=form), read_queries(queries), read_documents(corpus))
    return found.groups, found.missing


def _chunking(kind: ChunkKind | None, size: int | None, overlap: int | None) -> Chunking | None:
    if kind is None:
        if size is not None or overlap is not None:
            raise UsageError("--chunk-size or --chunk-overlap without --chunk", expected="documents that are cut")
        return None
    given = {"size": size, "overlap": overlap}
    return Chunking(kind, **{name: value for name, value in given.items() if value is not None})


def _context(text: str) -> tuple[str, ...]:
    parts = [] if text == "none" else text.split(",")
    return (
        tuple(sorted(parts, key=("title", "headings").index)) if set(parts) <= {"title", "headings"} else tuple(parts)
    )


def _queries(query: str | None, queries: str | None, fields: FieldNames, format: QueryFormat | None) -> list[Query]:
    from tiercel.data.queries import read_queries

    if (query is None) == (queries is None):
        raise UsageError(
            "no query was given" if query is None else "a query and --queries were given",
            expected="one of them: tiercel search INDEX QUERY, or tiercel search INDEX --queries FILE",
        )
    if query is not None:
        if not query.isascii() and query != query.encode("utf-8", "replace").decode("utf-8"):
            raise UsageError("a query that is not UTF-8", expected="text in UTF-8")
        return [Query(QueryId("1"), query)]
    source = queries or ""
    found = read_queries(source, fields=fields, format=format)
    if not found:
        raise InputError("there is no query in it", where=source, expected="at least one")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code; the entry point of the shell command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # what goes into a pipe or a file, whatever a terminal here would show
    try:
        app(args=None if arguments is None else list(arguments))
    except TiercelError as error:
        _leave(error)
    except OSError as error:
        _leave(IndexStoreError(f"the system refused: {error}", next_step="Check the disk's space and permissions."))


def _leave(error: TiercelError) -> NoReturn:
    from tiercel.screen import say

    say(str(error))
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
