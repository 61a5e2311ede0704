"""Commands that make models of our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiercel.commands.options import Long
from tiercel.config import Settings
from tiercel.data.runs import RunFormat
from tiercel.errors import UsageError

if TYPE_CHECKING:
    from tiercel.models.description import ModelFamily
    from tiercel.training.rows import GroupSource

Measure = Annotated[str, typer.Option("--measure", "-m", help="That the best weights are chosen by.")]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings.")]
Given = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, over those of the file.", metavar="NAME=VALUE")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")]


def mine(
    queries: Annotated[str, typer.Option(help="File of queries, or a BEIR folder; - for stdin.")],
    qrels: Annotated[str, typer.Option(help="Relevance judgments: TREC, BEIR or MS MARCO form, or a BEIR folder.")],
    out: Annotated[str, typer.Option(help="Write the groups there, JSONL; - for stdout.", metavar="FILE")],
    index: Annotated[
        Path | None, typer.Argument(help="Folder of the index whose legs are asked. Or give --run.", metavar="INDEX")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which qrels of a BEIR folder.")] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Stages of the index that are asked. Default: every leg.")
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--run", help="Take the rankings of ready runs; repeat for more.")
    ] = None,
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the runs, if they do not tell.")] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Documents of the runs, for the teacher; repeat for more sources.")
    ] = None,
    negatives: Annotated[int, typer.Option(help="Most negatives of a query.")] = 7,
    depth: Annotated[int, typer.Option(help="How far down a list negatives are taken.")] = 100,
    skip: Annotated[int, typer.Option(help="How many at the top of a list are left alone.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    teacher: Annotated[
        str | None, typer.Option(help="Cross-encoder that scores all documents: a folder or hub name.")
    ] = None,
    long: Long = "match",
    margin: Annotated[
        float | None, typer.Option(help="Negatives score at least so much below the query's lowest positive.")
    ] = None,
    quantile: Annotated[
        float | None, typer.Option(help="Negatives score below this quantile of all positives' scores.")
    ] = None,
) -> None:
    """Find hard negatives for judged queries in an index or in runs, and write groups to train on."""
    from tiercel.data.qrels import read_qrels
    from tiercel.data.queries import read_queries
    from tiercel.learning import Texts, legs_of_index, legs_of_runs, read_texts
    from tiercel.protocols import DocumentStore
    from tiercel.reranking import RerankOptions, make_reranker
    from tiercel.screen import say
    from tiercel.training.groups import write_groups
    from tiercel.training.mining import MiningOptions
    from tiercel.training.mining import mine as mine_groups

    if bool(runs) == (index is not None):
        raise UsageError(
            "an index and a run were given" if runs else "neither an index nor a run was given",
            expected="one of them: tiercel mine INDEX ..., or tiercel mine --run FILE ...",
        )
    if runs and teacher and not corpus:
        raise UsageError("a teacher of runs without their texts", expected="--corpus FILE with --run and --teacher")
    if long != "match" and not teacher:
        raise UsageError(f"--long {long} without a teacher", expected="--teacher MODEL, which reads the documents")
    options = MiningOptions(negatives, depth, skip, seed, margin, quantile)
    asked, judgments = read_queries(queries), read_qrels(qrels, split=split)
    settings = Settings.from_environment()
    reading = RerankOptions(long=long)
    reranker = make_reranker(teacher, settings=settings, options=reading, say=say) if teacher else None
    store: DocumentStore = Texts({})
    if index is not None:
        judged = [query for query in asked if any(grade > 0 for grade in judgments.get(query.id, {}).values())]
        legs, store = legs_of_index(index, judged, pipeline=pipeline, depth=depth, settings=settings)
    else:
        legs = legs_of_runs(runs or [], format=run_format)
        store = read_texts(corpus) if corpus else store
    mined = mine_groups(asked, judgments, legs, options=options, teacher=reranker, documents=store)
    write_groups(mined.groups, out)
    counts = [f"{len(mined.groups)} groups", f"{mined.unjudged} queries without a positive"]
    if reranker is not None:
        counts.append(f"{mined.denied} negatives that the teacher took for answers")
    say(", ".join([*counts, f"{len(mined.dropped)} queries without negatives"]))


def adapt(
    index: Annotated[Path, typer.Argument(help="Folder of the index whose documents are learnt.", metavar="INDEX")],
    out: Annotated[Path, typer.Argument(help="New folder for the model.", metavar="OUT")],
    model: Annotated[
        str, typer.Option(help="Bi-encoder that is adapted: folder or hub name. Default: the encoder of the index.")
    ] = "",
    documents: Annotated[int, typer.Option(help="Of how many documents queries are made to train on.")] = 1000,
    held_out: Annotated[int, typer.Option(help="Of how many others to measure on.")] = 50,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 1,
    measure: Measure = "nDCG@10",
    config: Config = None,
    given: Given = None,
    resume: Resume = False,
) -> None:
    """Adapt a bi-encoder to an index's own documents, without labels: titles, snippets and keywords find them again.

    What is measured on documents that are held out decides which weights are written; those that it began with, where
    training makes none better.
    """
    from tiercel.adapting import AdaptOptions
    from tiercel.adapting import adapt as adapt_model
    from tiercel.screen import say
    from tiercel.training.settings import AdaptSettings, read_settings

    adapted = adapt_model(
        index,
        out,
        model=model,
        options=AdaptOptions(documents, held_out, seed),
        training=read_settings(AdaptSettings, config, given or ()),
        settings=Settings.from_environment(),
        measure=measure,
        resume=resume,
        say=say,
    )
    progress = adapted.progress
    learnt = f"{adapted.trained_on} queries to train on, {adapted.measured_on} to measure on"
    if progress.best_step:
        say(f"{out}: {learnt}; dev {measure} {progress.best:.4f}, of step {progress.best_step}")
    else:
        say(f"{out}: {learnt}; nothing was better than the model that it began with, which is what was written")


def train(
    family: Annotated[
        Literal["cross", "bi", "late", "local", "distil", "uni"],
        typer.Argument(help="cross, bi, late, local, distil or uni.", metavar="FAMILY"),
    ],
    model: Annotated[
        str, typer.Argument(help="What it starts as: bundled name, folder, or hub name.", metavar="MODEL")
    ],
    out: Annotated[Path, typer.Argument(help="New folder for the model.", metavar="OUT")],
    groups: Annotated[
        list[str] | None, typer.Option(help="Groups that `mine` wrote; repeat for more. Or give --rows.")
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Their documents: one for all, or one for each --groups, in order.")
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            help='JSONL of {"context": [turns], "candidates": [...], "label": N}; repeat for more. Or give --groups.'
        ),
    ] = None,
    dev: Annotated[
        list[str] | None,
        typer.Option(help="Groups or rows (as --groups or --rows) of other queries, for the dev measure; repeat."),
    ] = None,
    dev_corpus: Annotated[list[str] | None, typer.Option(help="Their documents. Default: those of --corpus.")] = None,
    measure: Measure = "nDCG@10",
    config: Config = None,
    given: Given = None,
    resume: Resume = False,
) -> None:
    """Train a model on mined groups, or on rows of response selection, and write a folder that `tiercel export` takes.

    uni reads a query's history; to all others its turns are one text, cut from its start to context_tokens.
    """
    from tiercel.learning import starting_model
    from tiercel.learning import train as train_model
    from tiercel.screen import say
    from tiercel.training.settings import FAMILIES, read_settings

    data, judged = _sources(groups, corpus, rows, dev, dev_corpus)
    settings, surroundings = read_settings(FAMILIES[family], config, given or ()), Settings.from_environment()
    # On the hub a cross-encoder has other files than an encoder; what is bundled are encoders, which do for all.
    wanted: ModelFamily = "cross-encoder" if family == "cross" and "/" in model else "encoder"
    progress = train_model(
        starting_model(model, offline=surroundings.offline, family=wanted),
        out,
        settings=settings,
        data=data,
        dev=judged,
        measure=measure,
        threads=surroundings.threads,
        resume=resume,
        say=say,
    )
    best = "" if progress.best is None else f"; dev {measure} {progress.best:.4f}, of step {progress.best_step}"
    say(f"{out}: {progress.step} steps{best}")


def _sources(
    groups: list[str] | None,
    corpus: list[str] | None,
    rows: list[str] | None,
    dev: list[str] | None,
    dev_corpus: list[str] | None,
) -> tuple[GroupSource, GroupSource | None]:
    """What is trained on, and what the dev measure is taken on: groups with their corpora, or rows."""
    from tiercel.learning import TrainData
    from tiercel.training.rows import RowData

    if bool(groups) == bool(rows):
        raise UsageError(
            "groups and rows were given" if groups else "neither groups nor rows were given",
            expected="one of them: --groups FILE --corpus FILE, or --rows FILE",
        )
    if rows:
        if corpus or dev_corpus:
            raise UsageError("a corpus with --rows", expected="no --corpus: rows bring their texts")
        return RowData(rows), RowData(dev) if dev else None
    if not corpus:
        raise UsageError("groups without a corpus", expected="--corpus FILE, which has the texts of their documents")
    return TrainData(groups or [], corpus), TrainData(dev, dev_corpus or corpus) if dev else None
