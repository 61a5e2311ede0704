from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import Write
from tiercel.data.tables import parquet_objects
from tiercel.errors import InputError


def table(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_become_objects_with_json_values(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.parquet",
        {
            "id": pa.array([1, 2], pa.uint64()),
            "text": pa.array(["a", None], pa.large_string()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "when": pa.array([datetime.datetime(2020, 1, 2, 3), None], pa.timestamp("ns")),
            "price": [decimal.Decimal("1.50"), None],
            "tags": [["p"], []],
            "inner": [{"n": 1}, None],
            "half": pa.array([0.5, None], pa.float32()).cast(pa.float16()),
        },
    )
    assert list(parquet_objects(path)) == [
        (
            1,
            {
                "id": 1,
                "text": "a",
                "kind": "x",
                "when": "2020-01-02 03:00:00.000000000",
                "price": "1.50",
                "tags": ["p"],
                "inner": {"n": 1},
                "half": 0.5,
            },
        ),
        (
            2,
            dict.fromkeys(["kind"], "y")
            | {"id": 2, "text": None, "when": None, "price": None, "tags": []}
            | {"inner": None, "half": None},
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.timestamp("us", "Europe/Berlin"), 1_600_000_000_123_456, "2020-09-13 12:26:40.123456Z"),
        (pa.timestamp("ms", "+05:30"), 0, "1970-01-01 00:00:00.000Z"),
        (pa.timestamp("ns", "UTC"), 1, "1970-01-01 00:00:00.000000001Z"),
        # Local time was off by 4:56:02 then: an offset of whole minutes would name another moment.
        (pa.timestamp("ms", "America/New_York"), -3_153_600_000_000, "1870-01-25 00:00:00.000Z"),
        (pa.timestamp("ms"), 1, "1970-01-01 00:00:00.001"),
        (pa.date32(), 1, "1970-01-02"),
        (pa.date64(), 86_400_000, "1970-01-02"),
    ],
)
def test_dates_and_timestamps_become_strings_that_name_the_same_moment(
    tmp_path: Path, kind: Any, value: int, text: str
) -> None:
    moments = pa.array([value, None], kind)
    path = table(tmp_path / "a.parquet", {"when": moments, "coded": moments.dictionary_encode()})
    assert [record for _, record in parquet_objects(path)] == [
        {"when": text, "coded": text},
        {"when": None, "coded": None},
    ]


def test_rows_are_numbered_over_batches(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"n": list(range(3000))})
    assert all(number == record["n"] + 1 for number, record in parquet_objects(path))


def test_no_rows(tmp_path: Path) -> None:
    assert list(parquet_objects(table(tmp_path / "a.parquet", {"id": pa.array([], pa.string())}))) == []


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([b"x"]), "binary"),
        (pa.array([[datetime.date(2020, 1, 1)]]), "list<"),
        (pa.array([{"b": b""}]), "struct"),
    ],
)
def test_a_column_without_json_form(tmp_path: Path, column: Any, kind: str) -> None:
    path = table(tmp_path / "a.parquet", {"id": ["1"], "odd": column})
    with pytest.raises(InputError, match=rf"the column 'odd' is of type {kind}.*Leave the column out") as caught:
        list(parquet_objects(path))
    assert caught.value.where == str(path)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], names=["id", "id"]), path)
    with pytest.raises(InputError, match="the column name 'id' more than once"):
        list(parquet_objects(path))


def test_what_is_no_parquet_file(write: Write) -> None:
    with pytest.raises(InputError, match=r"the Parquet file cannot be read .*; expected a complete Parquet file"):
        list(parquet_objects(write("a.parquet", "no parquet")))


def test_strings_that_are_not_utf8(tmp_path: Path) -> None:
    odd = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    path = table(tmp_path / "a.parquet", {"id": odd})
    with pytest.raises(InputError, match="expected a complete Parquet file with UTF-8 strings"):
        list(parquet_objects(path))


@pytest.mark.parametrize("source", ["-", "folder", "a.parquet.gz"])
def test_what_parquet_cannot_be_read_from(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    write("a.parquet.gz", "")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Parquet from a pipe, a folder or a \.gz file; expected a plain file"):
        list(parquet_objects(source))
