"""Records out of numbered lines: JSON objects, CSV rows, tab- and blank-separated columns, and the fields in them.

Corpora, queries, qrels and runs share this. What a record must hold is checked by functions that know nothing of files
and raise InputError without a place; `located` adds the place, so that a good record pays nothing for it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import orjson

from tiercel.data.files import Source, ending_of, raise_unless_utf8, source_name
from tiercel.errors import InputError
from tiercel.types import QueryId

Record = dict[str, Any]
Row = TypeVar("Row")
Value = TypeVar("Value")
Form = TypeVar("Form")

_EXCERPT_CHARS = 60
_KEYS_SHOWN = 8
_ONE_OBJECT = "one JSON object per line"
_CSV_FIELD_CHARS = 2**31 - 1  # the largest limit that every platform's C long holds


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Which key or column of a record holds what; None stands for the usual names.

    Forms without names (TSV, plain text, pages) do not look at it.
    """

    id: str | None = None
    text: str | None = None
    title: str | None = None


USUAL_NAMES = FieldNames()


class Field(NamedTuple):
    """A field that a record is asked for: its noun, the flag that renames it, and its names, preferred first."""

    noun: str
    flag: str
    names: tuple[str, ...]

    def named(self, name: str | None) -> Field:
        """The same field under one chosen name, or unchanged for None."""
        return self if name is None else self._replace(names=(name,))


def form_by_ending(source: Source, endings: Mapping[str, Form], flag: str) -> Form:
    """The form that the ending of a source's name stands for. Raises InputError naming the endings and the flag."""
    ending = ending_of(source)
    if ending in endings:
        return endings[ending]
    raise InputError(
        f"the ending {ending!r} says nothing about the form" if ending else "a name without ending",
        expected=f"{', '.join(endings)} (each also with .gz{', .parquet excepted' if '.parquet' in endings else ''})",
        next_step=f"Say what it is with {flag}",
        where=source_name(source),
    )


def each_query_once(rows: Iterable[tuple[int, Value]], id_of: Callable[[Value], QueryId], name: str) -> list[Value]:
    """The values of numbered lines. Raises InputError naming both lines where the id of a query comes twice."""
    lines: dict[QueryId, int] = {}
    kept: list[Value] = []
    for number, value in rows:
        first = lines.setdefault(id_of(value), number)
        if first != number:
            raise InputError(
                f"the query id {excerpt(id_of(value))} a second time; the first is at {name}:{first}",
                expected="each query once",
                next_step="Remove or rename one of the two",
                where=f"{name}:{number}",
            )
        kept.append(value)
    return kept


def located(
    rows: Iterable[tuple[int, Row]], convert: Callable[[Row], Value], where: Callable[[int], str]
) -> Iterator[tuple[int, Value]]:
    """Convert each row, keeping its number; an InputError of `convert` leaves with its place added."""
    for number, row in rows:
        try:
            value = convert(row)
        except InputError as error:
            raise _placed(error, where(number)) from None
        yield number, value


def merged_metadata(record: Record) -> Record:
    """What is left of a record, its own `metadata` object opened; a key that is in both keeps its outer value."""
    inner = record.get("metadata")
    if isinstance(inner, dict):
        del record["metadata"]
        return {**inner, **record}
    if inner is None:
        record.pop("metadata", None)
    return record


def line_of(name: str) -> Callable[[int], str]:
    """How messages name a line of this source."""
    return lambda number: f"{name}:{number}"


def json_objects(lines: Iterable[tuple[int, bytes]], name: str) -> Iterator[tuple[int, Record]]:
    """One JSON object per line; blank lines are passed over. Raises InputError for anything else."""
    for number, record in json_values(lines, name):
        if type(record) is not dict:
            raise InputError(
                f"a line that holds {described(record)}",
                expected=_ONE_OBJECT,
                next_step="`jq -c '.[]'` turns a JSON array into one object per line",
                where=f"{name}:{number}",
            )
        yield number, record


def json_values(
    lines: Iterable[tuple[int, bytes]], name: str, *, expected: str = _ONE_OBJECT
) -> Iterator[tuple[int, Any]]:
    """One JSON value per line; blank lines are passed over. Raises InputError for a line that is not JSON."""
    loads = orjson.loads
    for number, line in lines:
        try:
            value = loads(line)
        except orjson.JSONDecodeError as error:
            if not line or line.isspace():
                continue
            where = f"{name}:{number}"
            raise_unless_utf8(line, where)
            raise _placed(_not_json(line, error, expected), where) from None
        yield number, value


def csv_objects(lines: Iterator[tuple[int, str]], name: str) -> Iterator[tuple[int, Record]]:
    r"""Rows of a CSV file with a header, each under the number of its first line; no header yields nothing.

    Every value is a string. Line ends inside a quoted field become `\n`. Blank lines between rows are passed over.
    """
    # The limit is the csv module's own global; 131,072 characters, where it starts, is less than a long document.
    csv.field_size_limit(_CSV_FIELD_CHARS)
    if (first := next(lines, None)) is None:
        return
    reader = csv.reader((f"{line}\n" for _, line in chain([first], lines)), strict=True)
    header: list[str] = []
    while True:
        number = first[0] + reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"a row that is not CSV ({error})",
                expected='cells separated by commas, quoted with " where they hold a comma, a quote or a line end',
                where=f"{name}:{number}",
            ) from None
        if cells is None:
            return
        if not cells:
            continue
        if not header:
            header = _checked_header(cells, f"{name}:{number}")
            continue
        if len(cells) != len(header):
            raise InputError(
                f"a row of {len(cells)} cells: {excerpt(','.join(cells))}",
                expected=f"{len(header)} cells, as in the header",
                next_step='Quote cells that hold a comma with "',
                where=f"{name}:{number}",
            )
        yield number, dict(zip(header, cells, strict=True))


def tab_rows(lines: Iterable[tuple[int, str]], name: str, widths: dict[int, str]) -> Iterator[tuple[int, list[str]]]:
    """Tab-separated cells; blank lines are passed over.

    `widths` says which numbers of columns are known and what they mean; the first line decides which one it is.
    """
    width = 0
    for number, line in lines:
        if not line or line.isspace():
            continue
        cells = line.split("\t")
        if len(cells) != width:
            if width or len(cells) not in widths:
                known = widths[width] if width else " or ".join(widths.values())
                raise InputError(
                    f"{columns(len(cells))} separated by tabs: {excerpt(line)}",
                    expected=f"{known}{', as in the lines before' if width else ''}",
                    next_step="A text must hold no tab: replace it by a space, or use JSONL",
                    where=f"{name}:{number}",
                )
            width = len(cells)
        yield number, cells


def blank_rows(
    lines: Iterable[tuple[int, str]], name: str, *, width: int, meaning: str, next_step: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """Cells separated by white space, `width` of them in every line; blank lines are passed over."""
    for number, line in lines:
        cells = line.split()
        if len(cells) == width:
            yield number, cells
        elif cells:
            raise InputError(
                f"{columns(len(cells))}: {excerpt(line)}",
                expected=f"{width}: {meaning}",
                next_step=next_step,
                where=f"{name}:{number}",
            )


def peeked(lines: Iterator[tuple[int, bytes]]) -> tuple[bytes, Iterator[tuple[int, bytes]]]:
    """The first line that is not blank (b"" if there is none), and all lines from it on."""
    for number, line in lines:
        if line.strip():
            return line, chain([(number, line)], lines)
    return b"", iter(())


def take_id(record: Record, field: Field) -> str:
    """Remove and return an id: a string as it is, a whole number as its digits."""
    for name in field.names:
        if name in record:
            value = record.pop(name)
            if type(value) is str:
                return checked_id(value, f"the {field.noun} in {name!r}")
            if type(value) is int:
                return str(value)
            raise InputError(
                f"{described(value)} as the {field.noun} in {name!r}",
                expected="a string or a whole number",
                next_step=f"Correct it, or name another field with {field.flag}",
            )
    raise _missing(record, field)


def take_text(record: Record, field: Field) -> str:
    """Remove and return a text, which may be empty but must be there."""
    for name in field.names:
        if name in record:
            value = record.pop(name)
            if type(value) is str:
                return value
            raise InputError(
                f"{described(value)} as the {field.noun} in {name!r}",
                expected='a string, "" if there is none',
                next_step=f"Correct it, or name another field with {field.flag}",
            )
    raise _missing(record, field)


def take_optional_text(record: Record, field: Field) -> str:
    """Remove and return a text; "" when it is not there or null."""
    for name in field.names:
        if name in record:
            if record[name] is None:
                del record[name]
                return ""
            return take_text(record, field)
    return ""


def checked_id(value: str, noun: str) -> str:
    """The id itself. Raises InputError for an empty one, or one with a NUL, which not every store can tell apart."""
    if value and "\0" not in value:
        return value
    raise InputError(
        f"{noun} is {'empty' if not value else f'{excerpt(value)}, with a NUL in it'}",
        expected="an id of at least one character, without NUL",
    )


def described(value: object) -> str:
    """A JSON value in a few words."""
    if isinstance(value, str):
        return f"the string {excerpt(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {_keys(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"the number {value}"


def excerpt(text: str) -> str:
    """The start of a text, quoted, with control characters escaped: fit for one line of a terminal."""
    return repr(text) if len(text) <= _EXCERPT_CHARS else f"{text[:_EXCERPT_CHARS]!r}…"


def columns(count: int) -> str:
    """A number of columns in words."""
    return "1 column" if count == 1 else f"{count} columns"


def _checked_header(cells: list[str], where: str) -> list[str]:
    if len(set(cells)) != len(cells):
        repeated = next(cell for cell in cells if cells.count(cell) > 1)
        raise InputError(
            f"the column name {repeated!r} more than once in the header",
            expected="a header of different names",
            next_step="Rename one of the columns",
            where=where,
        )
    return cells


def _not_json(line: bytes, error: orjson.JSONDecodeError, expected: str) -> InputError:
    shown = excerpt(line.decode("utf-8"))
    if "surrogate" in error.msg:
        return InputError(
            f"half a surrogate pair at column {error.colno}: {shown}",
            expected="characters that UTF-8 can carry",
            next_step="Write the whole pair, or U+FFFD in its place",
        )
    next_step = ""
    if line.strip() in {b"[", b"{"}:
        next_step = (
            "This looks like JSON over several lines: `jq -c '.[]'` (an array) or `jq -c .` puts it on single lines"
        )
    return InputError(
        f"this is not JSON ({error.msg} at column {error.colno}): {shown}",
        expected=expected,
        next_step=next_step,
    )


def _missing(record: Record, field: Field) -> InputError:
    names = " or ".join(repr(name) for name in field.names)
    return InputError(
        f"no {field.noun} field; the other {_keys(record)}",
        expected=names,
        next_step=f"Name the field with {field.flag}",
    )


def _keys(record: Record) -> str:
    if not record:
        return "keys: none"
    shown = ", ".join(excerpt(key) for key in list(record)[:_KEYS_SHOWN])
    return f"keys: {shown}{', …' if len(record) > _KEYS_SHOWN else ''}"


def _placed(error: InputError, where: str) -> InputError:
    return InputError(error.found, expected=error.expected, next_step=error.next_step, where=where)
