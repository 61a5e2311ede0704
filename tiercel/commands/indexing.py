"""Commands that make, change and examine an index."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from tiercel.commands.options import AsJson, IdField, IndexPath, TextField, TitleField, Where
from tiercel.config import OnDuplicate, Precision, Settings, TokenCodec
from tiercel.data.chunking import Chunking, ChunkKind
from tiercel.data.corpus import CorpusFormat
from tiercel.data.records import FieldNames
from tiercel.errors import PartialFailure, UsageError

Tokens = Annotated[
    TokenCodec | None,
    typer.Option(help="Keep the vectors of all tokens too, for the stage late, in this form. Default: none are."),
]
TokenModel = Annotated[
    str | None, typer.Option(help="Late-interaction model that makes them. Default: the encoder, in one pass.")
]

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="NAME=TYPE of a metadata column, if its values do not tell: string, number, boolean, date, list, "
        "other; repeat for more.",
    ),
]


def index(
    index: IndexPath,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="JSONL, TSV, CSV or Parquet files, BEIR folders, folders of text, irds:SET of ir_datasets, or -.",
            metavar="SOURCE...",
        ),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(help="Model name or folder; 'none' for BM25 only. Default: the bundled tiercel-minilm."),
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the models. Default: int8.")] = None,
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
    tokens: Tokens = None,
    token_model: TokenModel = None,
    columns: Columns = None,
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
    from tiercel.index_settings import IndexOptions
    from tiercel.indexing import index_documents
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
        tokens=tokens,
        token_model=token_model,
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


def compact(index: IndexPath, as_json: AsJson = False) -> None:
    """Merge the segments of an index into one, without what has been deleted."""
    from tiercel.indexing import compact_index
    from tiercel.screen import print_info, say

    print_info(compact_index(index, settings=Settings.from_environment(), say=say), as_json=as_json)


def info(index: IndexPath, as_json: AsJson = False) -> None:
    """Show what an index holds."""
    from tiercel.app import open_index
    from tiercel.screen import print_info

    print_info(open_index(index), as_json=as_json)


def verify(index: IndexPath, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with what was written."""
    from tiercel.app import open_index
    from tiercel.screen import print_verified

    opened = open_index(index)
    opened.verify()
    print_verified(opened, as_json=as_json)


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
