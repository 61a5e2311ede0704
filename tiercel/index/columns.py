"""Which metadata can be filtered by, and of what type is it? The typed columns of a segment, as a mapped Arrow file."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiercel.data.records import described, excerpt
from tiercel.errors import InputError, UsageError
from tiercel.index.dates import instants
from tiercel.index.files import damaged
from tiercel.types import Document

COLUMNS = "columns.arrow"

ColumnType: TypeAlias = Literal["string", "number", "boolean", "date", "list", "other"]
COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
"""The numbers that `number` reads."""

_STORED = {"string": pa.string(), "date": pa.string(), "boolean": pa.bool_(), "list": pa.list_(pa.string())}
# Numbers are int64 if all are whole and of 64 bits, else float64 if that holds all exactly, else one or the other.
_WHOLE, _REAL = pa.int64(), pa.float64()
_EITHER = pa.struct([("whole", _WHOLE), ("real", _REAL)])
_NOUNS = {
    "string": "a string",
    "number": "a finite number, if whole of 64 bits",
    "boolean": "true or false",
    "date": "a date such as 2020-05-17 or 2020-05-17T10:00:00Z",
    "list": "a list of strings",
}
_PLAIN: dict[ColumnType, set[type]] = {
    "string": {str, NoneType},
    "number": {int, float, NoneType},
    "boolean": {bool, NoneType},
}
_ROWS = 8_192  # of a record batch, whose offsets of 32 bits then suffice for strings of 262,144 bytes on average
_EXACT = 2**53  # up to here a float holds every whole number
_INT_DIGITS = 400  # more than the largest float has; what is longer is infinite, and `int` has a limit further on


class ColumnTypes:
    """The types of the metadata columns, learnt from the documents of one build.

    The first value that is not null decides a column's type. A column of strings is a date column while all of them
    are ISO 8601 dates or timestamps. `known` are the types that earlier commits settled; `declared` are those that the
    user settles, and strings are converted to them. Neither changes any more. Raises UsageError where the two differ.
    """

    def __init__(self, known: Mapping[str, ColumnType] = {}, declared: Mapping[str, ColumnType] = {}) -> None:
        for name, kind in declared.items():
            if known.get(name, kind) != kind:
                raise UsageError(
                    f"--column {name}={kind}",
                    expected=f"{known[name]}, the column's type in this index",
                    next_step="Leave it out, or build a new index: there a column can have another type",
                )
        self._types = {**known, **declared}
        self._since = dict.fromkeys(known, "in this index") | dict.fromkeys(declared, "by --column")
        self._settled = frozenset(self._types)
        self._declared = frozenset(declared)

    def types(self) -> dict[str, ColumnType]:
        """Every column that was known, declared or had a value, sorted by name."""
        return dict(sorted(self._types.items()))

    def arrays(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Learn the types of new columns, and give those that can be filtered by: arrow arrays of len(documents) rows.

        A document without a value is null there; a column without any value among these documents is left out.
        Raises InputError naming the document where a value contradicts its column's type, is a number that neither an
        integer nor a float of 64 bits holds, or text that UTF-8 cannot hold.
        """
        found = ((name, self._array(name, values, documents)) for name, values in _gathered(documents).items())
        return {name: array for name, array in found if array is not None}

    def _array(self, name: str, values: list[Any], documents: Sequence[Document]) -> Any:
        if name in self._declared:
            values = [_converted(value, self._types[name]) for value in values]
        first = next((row for row, value in enumerate(values) if value is not None), None)
        if first is None:
            return None
        if name not in self._types:
            if _is_half(name):
                raise _half_a_pair(name, documents[first])
            kind = _kind(values[first])
            self._types[name] = "date" if kind == "string" else kind
            self._since[name] = f"since document {documents[first].id!r}"
        wanted = self._types[name]
        if wanted == "other":
            return None
        kind = "string" if wanted == "date" else wanted
        kinds = set(map(type, values))
        if not kinds <= _PLAIN.get(kind, set()):
            for row, value in enumerate(values):
                if value is not None and _kind(value) != kind:
                    raise self._contradiction(name, documents[row], value)
        if kind == "number":
            return self._numbers(name, values, documents)
        if kind == "string" and not kinds <= _PLAIN[kind]:
            values = [value.isoformat() if isinstance(value, datetime.date) else value for value in values]
        try:
            array = pa.array(values, _STORED[kind])
        except UnicodeEncodeError as error:
            row = next(row for row, value in enumerate(values) if value is not None and _is_half("".join(value)))
            raise _half_a_pair(name, documents[row]) from error
        if wanted == "date":
            self._check_dates(name, array, documents)
        return array

    def _check_dates(self, name: str, array: Any, documents: Sequence[Document]) -> None:
        dates = instants(array)
        if dates.null_count == array.null_count:
            return
        if name in self._settled:
            pairs = enumerate(zip(array, dates, strict=True))
            row = next(row for row, (text, date) in pairs if text.is_valid and not date.is_valid)
            raise self._contradiction(name, documents[row], array[row].as_py())
        self._types[name] = "string"

    def _numbers(self, name: str, values: list[Any], documents: Sequence[Document]) -> Any:
        if (array := _small_numbers(values)) is not None:
            return array
        whole: list[int | None] = [None] * len(values)
        real: list[float | None] = [None] * len(values)
        for row, value in enumerate(values):
            number = int(value) if isinstance(value, float) and value.is_integer() else value
            if isinstance(number, int) and -(2**63) <= number < 2**63:
                whole[row] = number
            elif number is not None:
                real[row] = _as_float(number)
                if real[row] is None:
                    raise self._contradiction(name, documents[row], value)
        return _joined([(pa.array(whole, _WHOLE), pa.array(real, _REAL))])[0]

    def _contradiction(self, name: str, document: Document, value: Any) -> InputError:
        kind, hint = self._types[name], ""
        converted = _converted(value, kind)
        if name not in self._declared and (converted is None or _kind(converted) == kind):
            hint = f"With --column {name}={kind} strings are converted. Otherwise: "
        return InputError(
            f"document {document.id!r}: {_described(value)} in the metadata column {name!r}",
            expected=f"{_NOUNS[kind]}, the column's type {self._since[name]}",
            next_step=hint + _next_step(name),
        )


class ColumnWriter:
    """Collects the metadata of one segment's documents, in the order they come, and writes it at the end."""

    def __init__(self, types: ColumnTypes) -> None:
        self._types = types
        self._columns = _Columns()

    def add(self, documents: Sequence[Document]) -> None:
        """Append a batch, which `types` checks and learns from. Raises what `ColumnTypes.arrays` does."""
        self._columns.append(self._types.arrays(documents), len(documents))

    def finish(self, folder: Path) -> None:
        """Write the columns; nothing is written if no document has a value that can be filtered by."""
        self._columns.write(folder)


def map_columns(folder: Path, documents: int) -> Any:
    """Map the columns of a segment of so many documents: a pyarrow.Table of that many rows.

    A segment without columns gives a table without any, whose `num_rows` is right all the same. Raises IndexStoreError
    for a file that is damaged or of another number of rows.
    """
    path = folder / COLUMNS
    if not path.exists():
        return pa.table({"none": pa.nulls(documents)}).select([])
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # reads all of it, at gigabytes a second: wrong offsets would crash the process
        names = table.column_names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error
    if table.num_rows != documents:
        raise damaged(path, f"it holds {table.num_rows} rows for {documents} documents")
    if odd := set(table.schema.types) - {*_STORED.values(), _WHOLE, _REAL, _EITHER}:
        raise damaged(path, f"it holds columns of type {', '.join(sorted(map(str, odd)))}")
    if names != sorted(set(names)):
        raise damaged(path, "its columns are not in the order of their names, each once")
    return table


def merge_columns(folder: Path, parts: Sequence[tuple[Any, NDArray[np.bool_] | None]]) -> None:
    """Write the rows of several tables of `map_columns`, in order, as `ColumnWriter` would write their documents.

    A mask of shape (rows,) says which rows of a part are kept; None keeps all. A column that a part lacks is null in
    its rows.
    """
    columns = _Columns()
    for table, mask in parts:
        if not table.num_columns:
            columns.append({}, table.num_rows if mask is None else int(mask.sum()))
            continue
        start = 0
        for batch in table.to_batches():
            end = start + batch.num_rows
            kept = batch if mask is None else batch.filter(pa.array(mask[start:end]))
            columns.append(dict(zip(table.column_names, kept.columns, strict=True)), kept.num_rows)
            start = end
    columns.write(folder)


def parse_declared(texts: Sequence[str]) -> dict[str, ColumnType]:
    """The types that `--column NAME=TYPE` declares, each text one of them. Raises UsageError for another form."""
    declared: dict[str, ColumnType] = {}
    for text in texts:
        name, _, kind = text.rpartition("=")
        known = next((known for known in COLUMN_TYPES if known == kind), None)
        if not name or known is None or _is_half(name):
            raise UsageError(
                f"--column {text!r}",
                expected=f"NAME=TYPE, where TYPE is one of {', '.join(COLUMN_TYPES)}",
                next_step="Write --column year=number, for instance",
            )
        if name in declared:
            raise UsageError(f"--column for {name!r} a second time", expected="each column once")
        declared[name] = known
    return declared


def number(text: str) -> int | float:
    """The value of a text of the form NUMBER: without point and exponent exactly, else as JSON is read, rounded."""
    whole = text.lstrip("+-").isdigit() and len(text) <= _INT_DIGITS
    return int(text) if whole else float(text)


class _Columns:
    """Columns that grow batch by batch, on their way to a file. A column that a batch lacks is null in its rows."""

    def __init__(self) -> None:
        self._rows = 0
        self._chunks: dict[str, list[Any]] = {}
        self._filled: dict[str, int] = {}  # how many rows the chunks of a column hold

    def append(self, arrays: Mapping[str, Any], rows: int) -> None:
        """Add so many rows, all arrays of that length."""
        for name, array in arrays.items():
            self._fill(name, self._rows, array.type)
            self._chunks[name].append(array)
            self._filled[name] += rows
        self._rows += rows

    def write(self, folder: Path) -> None:
        """Write the columns that have a value, sorted by name, in record batches of a fixed size."""
        named = {}
        for name, chunks in sorted(self._chunks.items()):
            if any(chunk.null_count < len(chunk) for chunk in chunks):
                self._fill(name, self._rows, chunks[0].type)
                named[name] = pa.chunked_array(_of_one_type(chunks))
        if not named:
            return
        table = pa.table(named)
        with pa.OSFile(str(folder / COLUMNS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
            for start in range(0, self._rows, _ROWS):
                rows = table.slice(start, _ROWS)
                # Copied even where it is one chunk: a slice would bring bits of its neighbours into the file.
                arrays = [pa.concat_arrays(column.chunks) for column in rows.columns]
                file.write_batch(pa.record_batch(arrays, schema=table.schema))

    def _fill(self, name: str, rows: int, kind: Any) -> None:
        chunks = self._chunks.setdefault(name, [])
        if (gap := rows - self._filled.setdefault(name, 0)) > 0:
            block = pa.nulls(min(gap, _ROWS), kind)  # shared by all chunks of a long gap
            chunks += [block.slice(0, gap - start) for start in range(0, gap, _ROWS)]
            self._filled[name] = rows


def _of_one_type(chunks: list[Any]) -> list[Any]:
    """The same chunks; numbers all of the first type that holds them all."""
    return (
        _joined([_split(chunk) for chunk in chunks]) if {_REAL, _EITHER} & {chunk.type for chunk in chunks} else chunks
    )


def _split(numbers: Any) -> tuple[Any, Any]:
    """Numbers as two arrays: what int64 holds, and the others as float64; each null where the other has the number."""
    if numbers.type == _EITHER:
        return numbers.field("whole"), numbers.field("real")
    if numbers.type == _WHOLE:
        return numbers, pa.nulls(len(numbers), _REAL)
    known, values = ~_nulls(numbers), numbers.fill_null(0).to_numpy()
    whole = known & (values == np.floor(values)) & (values >= -(2.0**63)) & (values < 2.0**63)
    real = known & ~whole
    return (
        pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole),
        pa.array(np.where(real, values, 0), mask=~real),
    )


def _joined(chunks: Sequence[tuple[Any, Any]]) -> list[Any]:
    """What `_split` made, put together: by their values alone, not by how they were written or stored before."""
    if all(real.null_count == len(real) for _, real in chunks):
        return [whole for whole, _ in chunks]
    nulls = [_nulls(whole) & _nulls(real) for whole, real in chunks]
    if all(map(_floats_hold, (whole for whole, _ in chunks))):
        sums = (whole.fill_null(0).to_numpy() + real.fill_null(0).to_numpy() for whole, real in chunks)  # one is 0
        return [pa.array(values, mask=mask) for values, mask in zip(sums, nulls, strict=True)]
    return [
        pa.StructArray.from_arrays(list(pair), fields=list(_EITHER), mask=pa.array(mask))
        for pair, mask in zip(chunks, nulls, strict=True)
    ]


def _floats_hold(whole: Any) -> bool:
    """Whether float64 holds each of these integers exactly."""
    values = whole.drop_null().to_numpy()
    return all(_as_float(value) is not None for value in values[np.abs(values) > _EXACT].tolist())


def _nulls(array: Any) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _as_float(number: int | float) -> float | None:
    """The float that is this very number; None if there is none."""
    try:
        near = float(number)
    except OverflowError:
        return None
    return near if math.isfinite(near) and near == number else None


def _small_numbers(values: list[Any]) -> Any:
    """Numbers of at most 2**53 at once, as int64 or float64; None if there are others."""
    try:
        array = pa.array(values, _REAL)
    except (pa.ArrowInvalid, OverflowError):  # a whole number beyond 2**53
        return None
    numbers, nulls = array.fill_null(0).to_numpy(), _nulls(array)
    if not (np.abs(numbers) <= _EXACT).all():
        return None
    if (numbers == np.floor(numbers)).all():
        return pa.array(numbers.astype(np.int64), mask=nulls)
    return pa.array(numbers + 0.0, mask=nulls)  # + 0.0: there is one zero only


def _gathered(documents: Sequence[Document]) -> dict[str, list[Any]]:
    """The metadata by column, a value for each document; None where it has none."""
    columns: dict[str, list[Any]] = {}
    for row, document in enumerate(documents):
        for name, value in document.metadata.items():
            column = columns.setdefault(name, [])
            if len(column) < row:
                column += [None] * (row - len(column))
            column.append(value)
    return {str(name): column + [None] * (len(documents) - len(column)) for name, column in columns.items()}


def _kind(value: Any) -> ColumnType:
    """The type of the column that a value alone makes; a date is a string here."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str | datetime.date):
        return "string"
    is_list = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return "list" if is_list else "other"


def _converted(value: Any, kind: ColumnType) -> Any:
    """A value as its declared column wants it; unchanged if it is no string or cannot be read as that."""
    if not isinstance(value, str) or kind in ("string", "other"):
        return value
    text = value.strip()
    if not text:
        return None
    if kind == "number":
        return number(text) if re.fullmatch(NUMBER, text) else value
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), value)
    return [value] if kind == "list" else text


def _described(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, int) and value.bit_length() > 1000:  # Python writes no number of thousands of digits
        return f"a whole number of {value.bit_length()} bits"
    return described(value) if isinstance(value, str | int | float | list | dict) else excerpt(str(value))


def _next_step(name: str) -> str:
    return (
        f"Correct it, or build a new index with --column {name}=TYPE: a column of type other takes every value and "
        "cannot be filtered by. Nothing was indexed."
    )


def _is_half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _half_a_pair(name: str, document: Document) -> InputError:
    return InputError(
        f"document {document.id!r}: half a surrogate pair in the metadata column {name!r}",
        expected="text that UTF-8 can hold",
        next_step="Correct its source. Nothing was indexed.",
    )
