"""Parquet files as records, batch by batch: the only module that imports pyarrow for reading what users bring."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from tiercel.data.files import Source, is_stdio, source_name
from tiercel.data.records import Record
from tiercel.errors import InputError

_BATCH_ROWS = 1024


def row_of(name: str) -> Callable[[int], str]:
    """How messages name a row of this source."""
    return lambda number: f"{name} row {number}"


def parquet_objects(source: Source) -> Iterator[tuple[int, Record]]:
    """Rows numbered from 1 as JSON-like objects; a file without rows yields nothing.

    Dates, times and decimals become strings, timestamps with a zone in UTC (`2020-01-02 03:00:00Z`). Raises InputError
    for columns that have no JSON form, such as bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = source_name(source)
    if is_stdio(source) or not os.path.isfile(source) or str(source).endswith(".gz"):
        raise InputError(
            "Parquet from a pipe, a folder or a .gz file",
            expected="a plain file: its index is at the end",
            next_step="Write it to a file and name that",
            where=name,
        )
    number = 0
    try:
        with pq.ParquetFile(source) as file:
            schema = _json_schema(file.schema_arrow, name)
            in_utc = pa.schema([column.with_type(_utc_type(column)) for column in file.schema_arrow])
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for record in pa.Table.from_batches([batch]).cast(in_utc).cast(schema).to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"the Parquet file cannot be read ({first_line})",
            expected="a complete Parquet file with UTF-8 strings",
            next_step="Write or download it again",
            where=row_of(name)(number + 1) if number else name,
        ) from error


def _json_schema(schema: Any, name: str) -> Any:
    """The same columns with every type one that JSON knows."""
    import pyarrow as pa

    repeated = {column for column in schema.names if schema.names.count(column) > 1}
    if repeated:
        raise InputError(
            f"the column name {min(repeated)!r} more than once",
            expected="columns of different names",
            next_step="Rename one of them",
            where=name,
        )
    return pa.schema([pa.field(column.name, _json_type(column, name)) for column in schema])


def _json_type(column: Any, name: str) -> Any:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if _is_json(kind):
        return kind
    raise InputError(
        f"the column {column.name!r} is of type {column.type}",
        expected="text, numbers, booleans, dates, or lists and structures of text, numbers and booleans",
        next_step="Leave the column out of the file, or convert it",
        where=name,
    )


def _utc_type(column: Any) -> Any:
    """The same type, timestamps of any zone in UTC: as text, others have no colon (+0200) and lose odd seconds."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) and kind.tz else column.type


def _is_json(kind: Any) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(kind.field(place).type) for place in range(kind.num_fields))
    plain = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_string)
    return any(test(kind) for test in (*plain, types.is_large_string)) and not types.is_float16(kind)
