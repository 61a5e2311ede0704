"""How does an index come about and change? The commands that write, wired: index, delete, compact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from tiercel.app import open_index
from tiercel.config import OnDuplicate, Settings
from tiercel.data.corpus import locate_document, read_documents
from tiercel.data.files import is_unicode, source_name
from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.index_settings import IndexOptions, new_settings, refuse_other_settings, same_models
from tiercel.protocols import CandidateGroup
from tiercel.types import Document, Query, QueryId

if TYPE_CHECKING:
    from tiercel.index.store import Index
    from tiercel.protocols import TokenEncoder


def _silent(line: str) -> None:
    pass


class _How(TypedDict):
    on_duplicate: OnDuplicate
    progress: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Indexed:
    """What indexing did: `added` came in, `replaced` of them in place of others; the index holds `documents` now."""

    added: int
    replaced: int
    documents: int


def index_documents(
    path: Path,
    sources: Sequence[str | Path],
    options: IndexOptions,
    *,
    settings: Settings,
    say: Callable[[str], None] = _silent,
    progress: Callable[[int], None] = lambda documents: None,
) -> Indexed:
    """Add the sources to an index, or make one of them.

    `say` is told in a line what a user should know, `progress` how many documents are in.
    """
    from tiercel.index.build import RepeatedId

    documents = _at_least_one(read_documents(sources, fields=options.fields, format=options.format), sources)
    try:
        return add_documents(path, documents, options, settings=settings, say=say, progress=progress)
    except RepeatedId as error:
        places = locate_document(sources, error.doc_id, fields=options.fields, format=options.format)
        raise RepeatedId(error.doc_id, places) from None


def add_documents(
    path: Path,
    documents: Iterable[Document],
    options: IndexOptions,
    *,
    settings: Settings,
    say: Callable[[str], None] = _silent,
    progress: Callable[[int], None] = lambda documents: None,
) -> Indexed:
    """The same for documents in memory or from a stream. `fields` and `format` of the options say nothing here."""
    from tiercel.index.manifest import read_manifest
    from tiercel.index.writer import IndexWriter, is_index

    _check_place(path)
    before = read_manifest(path).settings if is_index(path) and not options.replace else None
    if before is not None:
        refuse_other_settings(path, before, options)
    documents = _first_read(documents)
    how: _How = {"on_duplicate": options.on_duplicate, "progress": progress}
    if before is None:
        made, encoder = new_settings(options, settings=settings, say=say)
        with IndexWriter(path, create=True, threads=settings.threads, say=say) as writer:
            added = writer.build(documents, made, encoder=encoder, replace=options.replace, **how)
    else:
        encoder = same_models(path, before, options, settings=settings, say=say)
        with IndexWriter(path, threads=settings.threads, say=say) as writer:
            if writer.settings != before:
                raise IndexStoreError("the index has been built anew meanwhile", where=str(path))
            added = writer.add(documents, encoder=encoder, declared=options.columns, **how)
    return Indexed(added.documents, added.replaced, _compile_search(path, encoder.tokens))


@dataclass(frozen=True, slots=True)
class Deleted:
    """What deleting did: `deleted` documents went, `documents` are left, and of `unknown` ids there was none."""

    deleted: int
    documents: int
    unknown: tuple[str, ...]


def delete_documents(
    path: Path, *, ids: Sequence[str] = (), where: str = "", settings: Settings, say: Callable[[str], None] = _silent
) -> Deleted:
    """Delete the documents of these ids, or those that an expression over the metadata selects."""
    from tiercel.index.writer import IndexWriter

    with IndexWriter(path, threads=settings.threads, say=say) as writer:
        before = writer.documents
        unknown = () if where else tuple(writer.delete(ids))
        if where:
            writer.delete_where(where)
        return Deleted(before - writer.documents, writer.documents, unknown)


def compact_index(path: Path, *, settings: Settings, say: Callable[[str], None] = _silent) -> Index:
    """Merge all segments into one without what has been deleted; returns the index as it is then."""
    from tiercel.index.writer import IndexWriter

    with IndexWriter(path, threads=settings.threads, say=say) as writer:
        if not writer.compact():
            say("it is compact already")
    return open_index(path)


def _check_place(path: Path) -> None:
    """Refuse a place where an index would be in the way of something else, or something else in its way."""
    from tiercel.index.writer import is_index

    if not is_unicode(str(path)):
        raise UsageError(f"the path {str(path)!r}", expected="one that is UTF-8")
    if path.exists() and not path.is_dir():
        raise IndexStoreError("this is a file", where=str(path), expected="a new path, or an index")
    if path.is_dir() and not is_index(path) and (other := _not_of_a_build(path)):
        raise IndexStoreError(
            f"the folder holds something else ({other})",
            where=str(path),
            expected="a new path, an empty folder, or an index",
        )


def _not_of_a_build(folder: Path) -> str:
    """The first name in a folder that a build which did not finish cannot have left; "" if there is none."""
    left = {"write.lock", "segments", "journal", "commits", "deletes", "manifest.json.new"}
    names = sorted(path.name for path in folder.iterdir() if path.name not in left and not path.name.startswith("."))
    names += sorted(f"segments/{path.name}" for path in folder.glob("segments/*") if not path.name.isdecimal())
    return names[0] if names else ""


def _at_least_one(documents: Iterable[Document], sources: Sequence[str | Path]) -> Iterator[Document]:
    """The documents again; none is an error when the first is asked for."""
    empty = True
    for document in documents:
        empty = False
        yield document
    if empty:
        raise InputError(
            "no document in it",
            where=", ".join(map(source_name, sources)),
            expected="at least one",
            next_step="Check that this is the right file or folder.",
        )


def _first_read(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents again, the first of them read: what cannot be read is known before a model is loaded."""
    waiting = iter(documents)
    return chain([first for first in [next(waiting, None)] if first is not None], waiting)


def _compile_search(path: Path, tokens: TokenEncoder | None) -> int:
    """Ask something, so that the search kernels are compiled and cached now and no search waits for the compiler.

    Returns how many documents the index holds.
    """
    from tiercel.index.lexical import LexicalRetriever

    index = open_index(path)
    query = Query(QueryId(""), "falcon")
    LexicalRetriever(index.views, index.analyzer).retrieve([query], keep=1)
    if index.manifest.settings.encoder is not None:
        from tiercel.index.vectors import nearest

        for vectors in (view.segment.vectors for view in index.views):
            nearest(vectors, vectors.stored[:1].astype(np.float32), 1)
    if tokens is not None:
        from tiercel.index.stored_tokens import StoredTokens
        from tiercel.rerankers.late_interaction import LateInteraction

        some = [Document(doc_id, "") for view in index.views for doc_id in view.some_ids(1)]
        LateInteraction(tokens, stored=StoredTokens(index.views)).score([CandidateGroup(query, some)])
    return len(index)
