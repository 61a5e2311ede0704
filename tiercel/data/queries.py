"""Queries: JSONL, TSV, CSV, one query a line, BEIR folders, sets by name and standard input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from tiercel.data.files import (
    Source,
    check_source,
    decode_lines,
    is_stdio,
    read_byte_lines,
    source_name,
    write_text,
)
from tiercel.data.history import history_of
from tiercel.data.irds import irds_records, is_irds, item_of
from tiercel.data.records import (
    USUAL_NAMES,
    Field,
    FieldNames,
    Record,
    checked_id,
    csv_objects,
    each_query_once,
    excerpt,
    form_by_ending,
    json_objects,
    line_of,
    located,
    peeked,
    tab_rows,
    take_id,
    take_text,
)
from tiercel.errors import InputError, UsageError
from tiercel.types import Query, QueryId

QueryFormat: TypeAlias = Literal["jsonl", "tsv", "csv", "text", "beir"]

QUERY_FORMATS: tuple[QueryFormat, ...] = get_args(QueryFormat)

_ENDINGS: dict[str, QueryFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".txt": "text",
}
_ID = Field("id", "--query-id-field", ("_id", "id", "qid", "query_id"))
_TEXT = Field("text", "--query-text-field", ("text", "query", "title", "question"))
_TSV_WIDTHS = {2: "qid, text"}
_BEIR_FILES = ("queries.jsonl", "queries.jsonl.gz")

_Lines: TypeAlias = Iterator[tuple[int, bytes]]


def read_queries(source: Source, *, fields: FieldNames = USUAL_NAMES, format: QueryFormat | None = None) -> list[Query]:
    """All queries of a source, in its order; no queries: an empty list. A query's text may be empty.

    A format that is not given follows from the name. Standard input is told by its first line that is not blank: `{`
    opens JSONL, a tab makes TSV, anything else is one query a line. One query a line takes the line number as id, so
    that ids agree with the file where a blank line is passed over. A source such as `irds:beir/scifact/test` is a set
    that ir_datasets knows. `history`, a list of strings, holds the earlier turns of a JSON query, oldest first; keys
    that a query has no place for are not kept.

    Raises UsageError (unknown format) and InputError (a source or line that cannot be read, an id that comes twice).
    """
    if format is not None and format not in QUERY_FORMATS:
        raise UsageError(f"the query format {format!r}", expected=f"one of {', '.join(QUERY_FORMATS)}")
    if is_irds(source):
        name = source_name(source)
        queries = located(irds_records(source, "queries"), _to_query(fields), item_of(name))
        return each_query_once(queries, lambda query: query.id, name)
    check_source(source)
    path = _beir_file(source) if format == "beir" or (format is None and os.path.isdir(source)) else source
    name = source_name(path)
    first, lines = peeked(read_byte_lines(path))
    form = format or _form_of(path, first)
    return each_query_once(_READERS[form](lines, name, fields), lambda query: query.id, name)


def write_queries(queries: Iterable[Query], target: Source) -> None:
    """Write queries as JSONL that `read_queries` reads, with their history where they have one."""
    with write_text(target) as stream:
        stream.writelines(f"{json.dumps(_record_of(query))}\n" for query in queries)


def _record_of(query: Query) -> Record:
    history: Record = {"history": list(query.history)} if query.history else {}
    return {"_id": query.id, "text": query.text, **history}


def _form_of(source: Source, first_line: bytes) -> QueryFormat:
    if is_stdio(source):
        if first_line.lstrip().startswith(b"{"):
            return "jsonl"
        return "tsv" if b"\t" in first_line else "text"
    return form_by_ending(source, _ENDINGS, f"--query-format ({', '.join(QUERY_FORMATS)})")


def _beir_file(folder: Source) -> Path:
    for name in _BEIR_FILES:
        if (path := Path(folder, name)).is_file():
            return path
    raise InputError("no queries", expected=f"a folder with {_BEIR_FILES[0]}", where=source_name(folder))


def _json_queries(lines: _Lines, name: str, fields: FieldNames) -> Iterator[tuple[int, Query]]:
    return located(json_objects(lines, name), _to_query(fields), line_of(name))


def _csv_queries(lines: _Lines, name: str, fields: FieldNames) -> Iterator[tuple[int, Query]]:
    return located(csv_objects(decode_lines(lines, name), name), _to_query(fields), line_of(name))


def _tsv_queries(lines: _Lines, name: str, fields: FieldNames) -> Iterator[tuple[int, Query]]:
    return located(tab_rows(decode_lines(lines, name), name, _TSV_WIDTHS), _query_of_cells, line_of(name))


def _text_queries(lines: _Lines, name: str, fields: FieldNames) -> Iterator[tuple[int, Query]]:
    for number, line in decode_lines(lines, name):
        if text := line.strip():
            yield number, Query(QueryId(str(number)), text)


_READERS: dict[QueryFormat, Callable[[_Lines, str, FieldNames], Iterator[tuple[int, Query]]]] = {
    "jsonl": _json_queries,
    "beir": _json_queries,
    "csv": _csv_queries,
    "tsv": _tsv_queries,
    "text": _text_queries,
}


def _to_query(fields: FieldNames) -> Callable[[Record], Query]:
    id_field, text_field = _ID.named(fields.id), _TEXT.named(fields.text)

    def convert(record: Record) -> Query:
        query_id = QueryId(take_id(record, id_field))
        return Query(query_id, take_text(record, text_field), history_of(record))

    return convert


def _query_of_cells(cells: list[str]) -> Query:
    if cells[0] in _ID.names and cells[1] in _TEXT.names:
        header = "\t".join(cells)
        raise InputError(
            f"a header: {excerpt(header)}",
            expected="queries from the first line on",
            next_step="Remove the header, or rewrite the file as CSV, which has one",
        )
    return Query(QueryId(checked_id(cells[0], "the id")), cells[1])
