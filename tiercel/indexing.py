"""How does an index come about and change? The commands that write, wired: index, delete, compact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tiercel.app import export_model, open_index, query_encoder
from tiercel.config import OnDuplicate, Precision, Settings
from tiercel.data.chunking import Chunking
from tiercel.data.corpus import CorpusFormat, locate_document, read_documents
from tiercel.data.files import is_unicode, source_name
from tiercel.data.records import USUAL_NAMES, FieldNames
from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.types import Document, Query, QueryId

if TYPE_CHECKING:
    from tiercel.index.columns import ColumnType
    from tiercel.index.manifest import EncoderRecord, IndexSettings
    from tiercel.index.store import Index
    from tiercel.models.encoder import OnnxEncoder

NO_ENCODER = "none"
CONTEXTS = ("title", "headings")


def _silent(line: str) -> None:
    pass


class _How(TypedDict):
    on_duplicate: OnDuplicate
    progress: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How documents are read and indexed. None: as the index has it, and for a new one the default.

    Attributes:
        fields: names of the id, text and title fields, where they are not the usual ones.
        format: form of the sources, where their names do not tell.
        analyzer: see `tiercel.index.analysis.analyzer`; english by default.
        encoder: a model's name or folder, "none" for BM25 only.
        precision: of the encoder; by default int8, or what an exported folder has.
        ann: "auto" (default), "flat", "hnsw", "ivf" or a FAISS factory string.
        recall: share of the exact 100 nearest that the ANN is to find, above 0 and at most 1.
        chunking: how documents are cut into passages; by default they are not.
        context: what precedes a passage: "title" (default), "headings", both or nothing.
        columns: types of metadata columns, where they are not to be taken from the values.
        on_duplicate: what happens to an id that comes twice in the sources.
        replace: build an existing index anew, not add to it; it answers until the new one is complete.
    """

    fields: FieldNames = USUAL_NAMES
    format: CorpusFormat | None = None
    analyzer: str | None = None
    encoder: str | None = None
    precision: Precision | None = None
    ann: str | None = None
    recall: float | None = None
    chunking: Chunking | None = None
    context: tuple[str, ...] | None = None
    columns: Mapping[str, ColumnType] | None = None
    on_duplicate: OnDuplicate = "refuse"
    replace: bool = False

    def __post_init__(self) -> None:
        if self.encoder == NO_ENCODER and (self.ann or self.precision or self.recall):
            raise UsageError("--ann, --recall or --precision with --encoder none", expected="them only with vectors")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise UsageError(f"--recall {self.recall:g}", expected="a share above 0 and at most 1")
        if unknown := [part for part in self.context or () if part not in CONTEXTS]:
            raise UsageError(f"--context {unknown[0]!r}", expected=f"{', '.join(CONTEXTS)}, or none")
        if "headings" in (self.context or ()) and self.chunking and self.chunking.kind != "headings":
            raise UsageError(
                f"--context headings with --chunk {self.chunking.kind}", expected="--chunk headings, which finds them"
            )


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
    from tiercel.index.manifest import read_manifest
    from tiercel.index.writer import IndexWriter, is_index

    _check_place(path)
    before = read_manifest(path).settings if is_index(path) and not options.replace else None
    if before is not None:
        _refuse_other_settings(path, before, options)
    documents = _at_least_one(read_documents(sources, fields=options.fields, format=options.format), sources)
    how: _How = {"on_duplicate": options.on_duplicate, "progress": progress}
    try:
        if before is None:
            made, encoder = _new_settings(options, settings=settings, say=say)
            with IndexWriter(path, create=True, threads=settings.threads, say=say) as writer:
                added = writer.build(documents, made, encoder=encoder, replace=options.replace, **how)
        else:
            encoder = _same_encoder(path, before, options, settings=settings, say=say)
            with IndexWriter(path, threads=settings.threads, say=say) as writer:
                if writer.settings != before:
                    raise IndexStoreError("the index has been built anew meanwhile", where=str(path))
                added = writer.add(documents, encoder=encoder, declared=options.columns, **how)
    except RepeatedId as error:
        places = locate_document(sources, error.doc_id, fields=options.fields, format=options.format)
        raise RepeatedId(error.doc_id, places) from None
    return Indexed(added.documents, added.replaced, _compile_search(path))


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


def _at_least_one(documents: Iterator[Document], sources: Sequence[str | Path]) -> Iterator[Document]:
    """The documents again, the first of them read: what cannot be read is known before a model is loaded."""
    first = next(documents, None)
    if first is None:
        raise InputError(
            "no document in it",
            where=", ".join(map(source_name, sources)),
            expected="at least one",
            next_step="Check that this is the right file or folder.",
        )
    return chain([first], documents)


def _new_settings(
    options: IndexOptions, *, settings: Settings, say: Callable[[str], None]
) -> tuple[IndexSettings, OnnxEncoder | None]:
    """The settings of a new index, and its encoder."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.manifest import DEFAULT_RECALL, IndexSettings

    found = analyzer(options.analyzer or "english")
    if "headings" in (options.context or ()) and options.chunking is None:
        raise UsageError("--context headings without --chunk", expected="--chunk headings, which finds them")
    encoder = record = None
    if options.encoder != NO_ENCODER:
        from tiercel.index.vectors import check_ann

        encoder, record = _named_encoder(options.encoder, options.precision, settings=settings, say=say)
        check_ann(options.ann or "auto", encoder.dimension)
    made = IndexSettings(
        analyzer=found.name,
        analyzer_fingerprint=found.fingerprint,
        encoder=record,
        ann=options.ann or "auto",
        recall=options.recall or DEFAULT_RECALL,
        chunking=options.chunking,
        chunking_fingerprint=options.chunking.fingerprint if options.chunking else "",
        context=("title",) if options.context is None else options.context,
        declared=dict(options.columns or {}),
    )
    return made, encoder


def _refuse_other_settings(path: Path, has: IndexSettings, options: IndexOptions) -> None:
    """Raises IndexStoreError for an option that is not what the index was made with."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.store import enforced_analyzer

    enforced_analyzer(path, has)
    if options.analyzer is not None:
        asked = analyzer(options.analyzer)
        if asked.fingerprint != has.analyzer_fingerprint:
            raise _other(
                path,
                f"analyzer {asked.name} of fingerprint {asked.fingerprint}",
                f"{has.analyzer} of fingerprint {has.analyzer_fingerprint}",
            )
    if has.chunking is not None and has.chunking.fingerprint != has.chunking_fingerprint:
        raise _other(
            path, f"passages of fingerprint {has.chunking.fingerprint}, as this Tiercel cuts", has.chunking_fingerprint
        )
    compared: dict[str, tuple[object, object]] = {
        "--chunk": (options.chunking, has.chunking),
        "--context": (options.context, has.context),
        "--ann": (options.ann, has.ann),
        "--recall": (options.recall, has.recall),
    }
    for flag, (wanted, there) in compared.items():
        if wanted is not None and wanted != there:
            raise _other(path, f"{flag} {_in_words(wanted)}", _in_words(there))


def _in_words(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)


def _other(path: Path, found: str, expected: str) -> IndexStoreError:
    return IndexStoreError(
        found,
        where=str(path),
        expected=f"{expected}, with which the index was made",
        next_step="Leave the option out to add to it, or build it anew with --replace.",
    )


def _same_encoder(
    path: Path, has: IndexSettings, options: IndexOptions, *, settings: Settings, say: Callable[[str], None]
) -> OnnxEncoder | None:
    """The encoder that made the index's vectors. Raises IndexStoreError if the options name another."""
    record = has.encoder
    if record is None:
        if options.encoder not in (None, NO_ENCODER) or options.precision:
            raise _other(path, f"encoder {options.encoder or options.precision}", "none: BM25 only")
        return None
    if options.encoder == NO_ENCODER:
        raise _other(path, "encoder none", f"{record.name} of fingerprint {record.fingerprint}")
    if options.encoder is None and options.precision is None:
        return query_encoder(path, record, "", settings=settings)
    encoder, _ = _named_encoder(options.encoder or record.name, options.precision, settings=settings, say=say)
    if encoder.fingerprint != record.fingerprint:
        raise _other(
            path,
            f"encoder {options.encoder or record.name} of fingerprint {encoder.fingerprint}",
            f"{record.name}, {record.precision}, of fingerprint {record.fingerprint}",
        )
    return encoder


def _named_encoder(
    name: str | None, precision: Precision | None, *, settings: Settings, say: Callable[[str], None]
) -> tuple[OnnxEncoder, EncoderRecord]:
    from tiercel.index.manifest import EncoderRecord
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.models.zoo import DEFAULT_ENCODER, known_names

    name = name or DEFAULT_ENCODER
    folder = export_model(name, settings=settings, precision=precision, say=say)
    encoder = OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)
    if name not in known_names() and Path(name).is_dir():
        name = str(Path(name).resolve())
    about = encoder.description
    return encoder, EncoderRecord(name, about.precision, about.fingerprint, about.dimension, about.max_tokens)


def _compile_search(path: Path) -> int:
    """Ask something, so that the search kernels are compiled and cached now and no search waits for the compiler.

    Returns how many documents the index holds.
    """
    from tiercel.index.lexical import LexicalRetriever

    index = open_index(path)
    LexicalRetriever(index.views, index.analyzer).retrieve([Query(QueryId(""), "falcon")], keep=1)
    return len(index)
