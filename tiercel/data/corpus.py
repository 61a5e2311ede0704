"""Corpora: JSONL, TSV, CSV, Parquet, BEIR folders, sets by name, pages, standard input; as a stream of documents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tiercel.data.files import Source, check_source, ending_of, is_stdio, read_byte_lines, read_lines, source_name
from tiercel.data.irds import irds_records, is_irds, item_of
from tiercel.data.pages import PAGE_ENDINGS, PageFormat, page_files, read_page
from tiercel.data.records import (
    USUAL_NAMES,
    Field,
    FieldNames,
    Record,
    checked_id,
    csv_objects,
    excerpt,
    form_by_ending,
    json_objects,
    line_of,
    located,
    merged_metadata,
    tab_rows,
    take_id,
    take_optional_text,
    take_text,
)
from tiercel.data.tables import parquet_objects, row_of
from tiercel.errors import InputError, UsageError
from tiercel.types import DocId, Document

CorpusFormat: TypeAlias = Literal["jsonl", "tsv", "csv", "parquet", "text", "markdown", "html", "beir", "folder"]

_Form: TypeAlias = CorpusFormat | Literal["irds"]  # which a name tells, and never a flag

CORPUS_FORMATS: tuple[CorpusFormat, ...] = get_args(CorpusFormat)

_ENDINGS: dict[str, CorpusFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    **PAGE_ENDINGS,
}
_ID = Field("id", "--id-field", ("_id", "id", "docid", "doc_id"))
_TEXT = Field("text", "--text-field", ("text", "contents", "body"))
_TITLE = Field("title", "--title-field", ("title",))
_TSV_WIDTHS = {2: "id, text", 3: "id, title, text", 4: "id, url, title, body"}
_BEIR_FILES = ("corpus.jsonl", "corpus.jsonl.gz")


def read_documents(
    sources: Sequence[Source], *, fields: FieldNames = USUAL_NAMES, format: CorpusFormat | None = None
) -> Iterator[Document]:
    """The documents of all sources, in the order of the sources and of each source's lines, rows or sorted paths.

    A format that is not given follows from each source's name; standard input is then JSONL. A source such as
    `irds:beir/scifact` is a set that ir_datasets knows, whatever the format. Memory does not grow with
    the collection. A source without documents yields none, and an id that comes twice is not noticed here.

    Raises UsageError (unknown format, standard input named twice) and InputError (a source that is missing or of no
    known form or name) at the call, and InputError at the first line that holds no document.
    """
    planned = _planned(sources, format)
    return (document for source, form in planned for part in _parts(source, form) for _, document in part.read(fields))


def as_document(record: Mapping[str, Any]) -> Document:
    """A document of one record with the usual field names; what else it holds is metadata.

    Raises InputError, without a place, where it has no id or no text.
    """
    return _to_document(USUAL_NAMES)(dict(record))


def locate_document(
    sources: Sequence[Source], doc_id: str, *, fields: FieldNames = USUAL_NAMES, format: CorpusFormat | None = None
) -> list[str]:
    """Where an id occurs: `file:line`, `file row N` (Parquet) or `file` (a page), in reading order; reads all sources.

    What can be read only once, a pipe or standard input, is not read: it is listed by its bare name.
    """
    places: list[str] = []
    for source, form in _planned(sources, format):
        if is_stdio(source) or not (os.path.isfile(source) or os.path.isdir(source) or is_irds(source)):
            places.append(source_name(source))
            continue
        for part in _parts(source, form):
            places += [part.where(number) for number, document in part.read(fields) if document.id == doc_id]
    return places


@dataclass(frozen=True, slots=True)
class _Part:
    """One file of a source: how to read its numbered documents, and how messages name one of them."""

    read: Callable[[FieldNames], Iterator[tuple[int, Document]]]
    where: Callable[[int], str]


def _planned(sources: Sequence[Source], format: CorpusFormat | None) -> list[tuple[Source, _Form]]:
    if format is not None and format not in CORPUS_FORMATS:
        raise UsageError(f"the corpus format {format!r}", expected=f"one of {', '.join(CORPUS_FORMATS)}")
    if sum(map(is_stdio, sources)) > 1:
        raise UsageError("standard input (-) named twice as a source", expected="it once: it can be read only once")
    if repeated := [source for source, count in Counter(map(str, sources)).items() if count > 1]:
        raise UsageError(f"the source {repeated[0]} named twice", expected="each source once")
    return [(source, _form_of(source, format)) for source in sources]


def _form_of(source: Source, format: CorpusFormat | None) -> _Form:
    if is_irds(source):
        return "irds"
    check_source(source)
    if format is not None:
        return format
    if is_stdio(source):
        return "jsonl"
    if os.path.isdir(source):
        return "folder" if _beir_file(source) is None else "beir"
    return form_by_ending(source, _ENDINGS, f"--format ({', '.join(CORPUS_FORMATS)})")


def _beir_file(folder: Source) -> Path | None:
    return next((path for name in _BEIR_FILES if (path := Path(folder, name)).is_file()), None)


def _parts(source: Source, form: _Form) -> Iterator[_Part]:
    if form == "folder":
        if is_stdio(source) or not os.path.isdir(source):
            raise InputError("this is no folder", expected="a folder of pages", where=source_name(source))
        for doc_id, path in page_files(Path(source)):
            yield _page_part(path, doc_id, PAGE_ENDINGS[ending_of(path)])
    elif form == "beir":
        corpus = None if is_stdio(source) else _beir_file(source)
        if corpus is None:
            raise InputError("no corpus", expected=f"a folder with {_BEIR_FILES[0]}", where=source_name(source))
        yield _line_part(corpus, _json_documents)
    elif form == "jsonl":
        yield _line_part(source, _json_documents)
    elif form == "tsv":
        yield _line_part(source, _tsv_documents)
    elif form == "csv":
        yield _line_part(source, _csv_documents)
    elif form == "irds":
        yield _Part(partial(_irds_documents, source), item_of(source_name(source)))
    elif form == "parquet":
        yield _Part(partial(_parquet_documents, source), row_of(source_name(source)))
    else:
        yield _page_part(source, "stdin" if is_stdio(source) else os.path.basename(source), form)


def _line_part(source: Source, read: Callable[[Source, FieldNames], Iterator[tuple[int, Document]]]) -> _Part:
    return _Part(partial(read, source), line_of(source_name(source)))


def _page_part(source: Source, doc_id: str, form: PageFormat) -> _Part:
    def read(fields: FieldNames) -> Iterator[tuple[int, Document]]:
        yield 1, read_page(source, doc_id, form)

    return _Part(read, lambda number: source_name(source))


def _json_documents(source: Source, fields: FieldNames) -> Iterator[tuple[int, Document]]:
    name = source_name(source)
    return located(json_objects(read_byte_lines(source), name), _to_document(fields), line_of(name))


def _csv_documents(source: Source, fields: FieldNames) -> Iterator[tuple[int, Document]]:
    name = source_name(source)
    return located(csv_objects(read_lines(source), name), _to_document(fields), line_of(name))


def _parquet_documents(source: Source, fields: FieldNames) -> Iterator[tuple[int, Document]]:
    return located(parquet_objects(source), _to_document(fields), row_of(source_name(source)))


def _tsv_documents(source: Source, fields: FieldNames) -> Iterator[tuple[int, Document]]:
    name = source_name(source)
    return located(tab_rows(read_lines(source), name, _TSV_WIDTHS), _document_of_cells, line_of(name))


def _irds_documents(source: Source, fields: FieldNames) -> Iterator[tuple[int, Document]]:
    return located(irds_records(source, "docs"), _to_document(fields), item_of(source_name(source)))


def _to_document(fields: FieldNames) -> Callable[[Record], Document]:
    """A function that makes a document of a record, which it empties."""
    id_field, text_field, title_field = _ID.named(fields.id), _TEXT.named(fields.text), _TITLE.named(fields.title)

    def convert(record: Record) -> Document:
        doc_id = DocId(take_id(record, id_field))
        text = take_text(record, text_field)
        title = take_optional_text(record, title_field)
        if not record:
            return Document(doc_id, text, title)
        return Document(doc_id, text, title, merged_metadata(record))

    return convert


def _document_of_cells(cells: list[str]) -> Document:
    if cells[0] in _ID.names and cells[-1] in _TEXT.names:
        header = "\t".join(cells)
        raise InputError(
            f"a header: {excerpt(header)}",
            expected="documents from the first line on",
            next_step="Remove the header, or rewrite the file as CSV, which has one",
        )
    doc_id = DocId(checked_id(cells[0], "the id"))
    match cells:
        case [_, text]:
            return Document(doc_id, text)
        case [_, title, text]:
            return Document(doc_id, text, title)
        case _:
            return Document(doc_id, cells[3], cells[2], {"url": cells[1]})
