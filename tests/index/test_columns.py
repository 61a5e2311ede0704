from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.index.columns import (
    COLUMNS,
    ColumnType,
    ColumnTypes,
    ColumnWriter,
    map_columns,
    merge_columns,
    parse_declared,
)
from tiercel.index.dates import instants
from tiercel.types import DocId, Document

Metadata = dict[str, Any]


def documents(*metadata: Mapping[str, Any], first: int = 0) -> list[Document]:
    return [Document(DocId(f"d{first + i}"), "text", metadata=one) for i, one in enumerate(metadata)]


def write(
    folder: Path, batches: Iterable[Sequence[Mapping[str, Any]]], types: ColumnTypes | None = None
) -> ColumnTypes:
    types = types or ColumnTypes()
    writer = ColumnWriter(types)
    first = 0
    for batch in batches:
        writer.add(documents(*batch, first=first))
        first += len(batch)
    writer.finish(folder)
    return types


def stored(
    folder: Path, *batches: Sequence[Mapping[str, Any]], types: ColumnTypes | None = None
) -> dict[str, list[Any]]:
    write(folder, batches, types)
    columns: dict[str, list[Any]] = map_columns(folder, sum(map(len, batches))).to_pydict()
    return columns


def test_the_columns_of_a_segment(tmp_path: Path) -> None:
    types = ColumnTypes()
    columns = stored(
        tmp_path,
        [{"year": 2020, "lang": "en", "tags": ["a", "b"]}, {}, {"year": None, "open": True}],
        [{"when": "2020-05-17"}],
        [{"year": 1999, "tags": [], "info": {"deep": 1}}, {"open": False, "lang": ""}],
        types=types,
    )
    assert columns == {
        "lang": ["en", None, None, None, None, ""],
        "open": [None, None, True, None, None, False],
        "tags": [["a", "b"], None, None, None, [], None],
        "when": [None, None, None, "2020-05-17", None, None],
        "year": [2020, None, None, None, 1999, None],
    }
    assert list(columns) == sorted(columns)
    assert types.types() == {
        "info": "other", "lang": "string", "open": "boolean", "tags": "list", "when": "date", "year": "number",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("en", "string"),
        ("", "string"),
        ("2020-05-17", "date"),
        (datetime.date(2020, 5, 17), "date"),
        (datetime.datetime(2020, 5, 17, 10, 0, 0, 5), "date"),
        (datetime.datetime(2020, 5, 17, tzinfo=datetime.timezone(datetime.timedelta(hours=-2))), "date"),
        (0, "number"),
        (2.5, "number"),
        (True, "boolean"),
        ([], "list"),
        (["a"], "list"),
        (("a",), "list"),
        ([1], "other"),
        (["a", None], "other"),
        ({}, "other"),
        (datetime.time(1), "other"),
    ],
)
def test_the_first_value_decides(value: object, expected: ColumnType) -> None:
    types = ColumnTypes()
    types.arrays(documents({"x": None}, {}, {"x": value}))
    assert types.types() == {"x": expected}


def test_a_column_of_nulls_has_no_type_yet() -> None:
    types = ColumnTypes()
    types.arrays(documents({"x": None}))
    assert types.types() == {}


@pytest.mark.parametrize(
    ("first", "value", "says"),
    [
        (1, "2", "the string '2' in the metadata column 'x'; expected a finite number, if whole of 64 bits, the"),
        (1, True, "true in the metadata column"),
        (1, [], "a list of 0 in"),
        (1, {}, "an object with keys: none in"),
        (1, math.nan, "the number nan in"),
        (1, -math.inf, "the number -inf in"),
        (1, 2**63 + 1, "the number 9223372036854775809 in"),
        (1, 2**1023 + 1, "a whole number of 1024 bits in"),
        ("a", 1, "the number 1 in the metadata column 'x'; expected a string, the column's"),
        ("a", ["a"], "a list of 1 in"),
        ("2020-01-01", 1, "the number 1 in the metadata column 'x'; expected a date such as 2020-05-17 or"),
        (True, 1, "the number 1 in the metadata column 'x'; expected true or false, the column's"),
        (["a"], "a", "the string 'a' in the metadata column 'x'; expected a list of strings, the column's"),
        (["a"], ["a", 1], "a list of 2 in"),
        (["a"], datetime.date(2020, 1, 1), "'2020-01-01' in"),
    ],
)  # fmt: skip
def test_a_contradiction_names_the_document_and_since_when(first: object, value: object, says: str) -> None:
    types = ColumnTypes()
    types.arrays(documents({"x": first}))
    with pytest.raises(InputError, match=rf"^document 'd7': {re.escape(says)}") as caught:
        types.arrays(documents({}, {"x": value}, first=6))
    assert "the column's type since document 'd0'. " in str(caught.value)
    assert "build a new index with --column x=TYPE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_first_number_that_is_none_is_refused_too() -> None:
    with pytest.raises(InputError, match=r"the number nan in the metadata column 'x'; expected a finite number"):
        ColumnTypes().arrays(documents({"x": math.nan}))


def test_a_column_of_other_things_takes_everything(tmp_path: Path) -> None:
    values: list[object] = [{"a": 1}, "a", 1, True, [], math.nan, "2020-01-01"]
    assert stored(tmp_path, [{"x": value} for value in values]) == {}
    assert not (tmp_path / COLUMNS).exists()


@pytest.mark.parametrize("value", ["spring 2020", "", "2020-02-31", "2020"])
def test_a_column_of_dates_becomes_one_of_strings(tmp_path: Path, value: str) -> None:
    types = ColumnTypes()
    columns = stored(tmp_path, [{"x": "2020-01-01"}, {"x": "1999-12-31T23:59:59Z"}], [{"x": value}], types=types)
    assert types.types() == {"x": "string"}
    assert columns == {"x": ["2020-01-01", "1999-12-31T23:59:59Z", value]}
    types.arrays(documents({"x": "2020-01-01"}))
    assert types.types() == {"x": "string"}


@pytest.mark.parametrize(
    ("types", "since"),
    [
        (ColumnTypes({"x": "date"}), "in this index"),
        (ColumnTypes(declared={"x": "date"}), "by --column"),
        (ColumnTypes({"x": "date"}, {"x": "date"}), "by --column"),
    ],
)
def test_a_settled_column_of_dates_stays_one(types: ColumnTypes, since: str) -> None:
    types.arrays(documents({"x": "2020-01-01"}, {"x": None}))
    with pytest.raises(InputError, match=rf"^document 'd1': the string 'spring' in .*, the column's type {since}\. "):
        types.arrays(documents({"x": "2020-01-01"}, {"x": "spring"}))
    assert types.types() == {"x": "date"}


def test_a_known_column_of_strings_takes_dates_and_stays_one() -> None:
    types = ColumnTypes({"x": "string"})
    types.arrays(documents({"x": "2020-01-01"}))
    assert types.types() == {"x": "string"}


def test_checking_twice_changes_nothing(tmp_path: Path) -> None:
    batch: list[Metadata] = [{"x": "2020-01-01"}, {"x": "a", "n": 2.5}, {"n": 1, "l": ["a"]}]
    types = ColumnTypes()
    types.arrays(documents(*batch))
    assert stored(tmp_path, batch, types=types)["x"] == ["2020-01-01", "a", None]
    assert types.types() == {"l": "list", "n": "number", "x": "string"}


def test_dates_are_stored_as_text(tmp_path: Path) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    moments = [
        datetime.date(2020, 5, 17),
        "2020-05-17 10:00",
        datetime.datetime(2020, 5, 17, 10),
        datetime.datetime(2020, 5, 17, 10, 0, 0, 120, zone),
    ]
    assert stored(tmp_path, [{"x": moment} for moment in moments]) == {
        "x": ["2020-05-17", "2020-05-17 10:00", "2020-05-17T10:00:00", "2020-05-17T10:00:00.000120+02:00"]
    }


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, -(2**63), 2**63 - 1], pa.int64()),
        ([1, 2.0, -0.0, 1e18], pa.int64()),
        ([2**53 + 1, 2.0], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2**60, 2.5], pa.float64()),
        ([2**63], pa.float64()),
        ([1e300, -(2**63)], pa.float64()),
        ([2**53 + 1, 2.5], pa.struct([("whole", pa.int64()), ("real", pa.float64())])),
        ([2**63 - 1, 2**63], pa.struct([("whole", pa.int64()), ("real", pa.float64())])),
    ],
)
def test_numbers_are_stored_exactly(tmp_path: Path, values: list[Any], kind: Any) -> None:
    for number, batches in enumerate([[values], [values[:1], values[1:]], [[value] for value in values]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        columns = stored(folder, *([{"x": value} for value in [None, *batch]] for batch in batches))
        assert map_columns(folder, len(columns["x"])).schema.field("x").type == kind
        found = [value for value in columns["x"] if value is not None]
        parts = [one if isinstance(one, dict) else {"whole": one, "real": None} for one in found]
        assert [part["real"] if part["whole"] is None else part["whole"] for part in parts] == values


def test_text_that_utf8_cannot_hold_is_refused_with_the_document() -> None:
    wrong: list[Metadata] = [{"x": "\ud800"}, {"x": ["a", "\udfff"]}, {"\ud800": 1}]
    for metadata in wrong:
        with pytest.raises(InputError, match=r"^document 'd1': half a surrogate pair in the metadata column '"):
            ColumnTypes().arrays(documents({}, metadata))


@pytest.mark.parametrize(
    ("kind", "values", "kept"),
    [
        ("number", ["2020", " -2.50 ", "1e3", "+7", "", "  ", 5, None], [2020, -2.5, 1000, 7, None, None, 5, None]),
        ("boolean", ["true", "False", "TRUE", "", False], [True, False, True, None, False]),
        ("date", ["2020-05-17", " 2020-05-17T10:00 ", ""], ["2020-05-17", "2020-05-17T10:00", None]),
        ("list", ["a, b", ["c", "d"], "", []], [["a, b"], ["c", "d"], None, []]),
        ("string", ["", "2020-05-17", " a "], ["", "2020-05-17", " a "]),
    ],
)
def test_a_declared_column_converts_strings(
    tmp_path: Path, kind: ColumnType, values: list[object], kept: list[object]
) -> None:
    types = ColumnTypes(declared={"x": kind})
    assert stored(tmp_path, [{"x": value} for value in values], types=types) == {"x": kept}
    assert types.types() == {"x": kind}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", "two"),
        ("number", "2_000"),
        ("number", "٣"),
        ("number", "nan"),
        ("number", "1e999"),
        ("number", "9" * 5000),
        ("number", "99999999999999999999"),
        ("number", True),
        ("boolean", "yes"),
        ("boolean", 1),
        ("date", "17.05.2020"),
        ("date", 2020),
        ("list", 1),
        ("list", ["a", 1]),
        ("string", 1),
    ],
)
def test_what_a_declared_column_cannot_convert_is_a_contradiction(kind: ColumnType, value: object) -> None:
    types = ColumnTypes(declared={"x": kind})
    with pytest.raises(
        InputError, match=r"^document 'd0': .* in the metadata column 'x'; .*type by --column\. Correct"
    ):
        types.arrays(documents({"x": value}))


def test_a_column_declared_as_other_cannot_be_filtered_by(tmp_path: Path) -> None:
    types = ColumnTypes(declared={"x": "other"})
    assert stored(tmp_path, [{"x": 1}, {"x": "a"}], types=types) == {}
    assert types.types() == {"x": "other"}


def test_a_string_that_a_declaration_would_convert_is_refused_with_that_advice() -> None:
    for value in ("2020", ""):
        with pytest.raises(
            InputError, match=r"in this index\. With --column x=number strings are converted\. Otherwise"
        ):
            ColumnTypes({"x": "number"}).arrays(documents({"x": value}))


def test_a_declaration_against_the_index_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^--column x=string; expected number, the column's type in this index\. Leave"
    ):
        ColumnTypes({"x": "number"}, {"x": "string"})
    assert ColumnTypes({"x": "number"}, {"x": "number", "y": "date"}).types() == {"x": "number", "y": "date"}


def test_declarations() -> None:
    assert parse_declared([]) == {}
    assert parse_declared(["year=number", "a=b=list", "odd name=other"]) == {
        "year": "number", "a=b": "list", "odd name": "other",
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"^--column for 'a' a second time; expected each column once$"):
        parse_declared(["a=string", "a=string"])


@pytest.mark.parametrize(
    "text", ["", "year", "=number", "year=", "year=Number", "year=int", "year = number", "\ud800=list"]
)
def test_what_is_no_declaration(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--column .*; expected NAME=TYPE, where TYPE is one of string, number, bool"
    ):
        parse_declared([text])


@pytest.mark.parametrize(
    ("text", "seconds", "nanoseconds"),
    [
        ("1970-01-01", 0, 0),
        ("2020-05-17", 1589673600, 0),
        ("2020-05-17T10:00", 1589709600, 0),
        ("2020-05-17 10:00:01.123", 1589709601, 123_000_000),
        ("2020-05-17T10:00:00.123456789Z", 1589709600, 123_456_789),
        ("2020-05-17T10:00+02:00", 1589702400, 0),
        ("2020-05-17T10:00:00.5-05:30", 1589729400, 500_000_000),
        ("1969-12-31T23:59:59.999999999", -1, 999_999_999),
        ("2020-02-29", 1582934400, 0),
        ("0001-01-01T00:00+00:01", -62135596860, 0),
        ("9999-12-31T23:59:59", 253402300799, 0),
    ],
)
def test_moments_worked_out_by_hand(text: str, seconds: int, nanoseconds: int) -> None:
    assert instants(pa.array([None, text])).to_pylist() == [None, seconds * 2**64 + nanoseconds]


@pytest.mark.parametrize(
    "text",
    [
        "", "2020", "2020-05", "2020-5-17", "20200517", "2020-02-30", "2021-02-29", "1900-02-29", "2020-13-01",
        "2020-00-01", "2020-01-00", "0000-01-01", "2020-05-17T", "2020-05-17T10", "2020-05-17T24:00",
        "2020-05-17T10:60", "2020-05-17Z", "2020-05-17T10:00:60", "2020-05-17T10:00:00.",
        "2020-05-17T10:00:00.1234567890", "2020-05-17T10:00.5", "2020-05-17T10:00+0200", "2020-05-17T10:00+02",
        "2020-05-17T10:00+24:00", "2020-05-17T10:00+02:60", "2020-05-17+02:00", "2020-05-17T10:00ZZ",
        "2020-05-17T10:00z", "2020-05-17t10:00", "2020-05-17  10:00", " 2020-05-17", "2020-05-17\n",
        "２０２０-05-17", "2020/05/17", "12020-05-17", "-2020-05-17", "2020-W20-1",
    ],
)  # fmt: skip
def test_what_names_no_moment(text: str) -> None:
    assert instants(pa.array([text, "2020-05-17"])).is_valid().to_pylist() == [False, True]


def reference_moment(text: str) -> int | None:
    """The rule once more, in the words of Python's datetime."""
    found = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
        r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?",
        text,
    )
    if found is None:
        return None
    day, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime.datetime.strptime(f"{day} {minute or '00:00'}:{second or '00'}", "%Y-%m-%d %H:%M:%S")
        shift = (
            datetime.datetime.strptime(zone[1:], "%H:%M") if zone not in (None, "Z") else datetime.datetime(1900, 1, 1)
        )
    except ValueError:
        return None
    if second == "60" or second == "61":
        return None
    seconds = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1)
    seconds -= (-1 if zone and zone[0] == "-" else 1) * (shift.hour * 3600 + shift.minute * 60)
    return seconds * 2**64 + int((fraction or "").ljust(9, "0"))


NEARLY_DATES = st.from_regex(
    r"(0000|0001|19[0-9]{2}|20[0-9]{2}|9999)-[01][0-9]-[0-3][0-9]"
    r"([T x][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{0,10})?)?(Z|[+-][0-2][0-9]:[0-6][0-9])?)?[Z ]?",
    fullmatch=True,
)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.none() | NEARLY_DATES | st.text(max_size=24), max_size=8), st.integers(0, 3))
def test_moments_are_those_of_python(texts: list[str | None], first: int) -> None:
    expected = [None if text is None else reference_moment(text) for text in texts]
    assert instants(pa.array(texts, pa.string())).to_pylist() == expected
    assert instants(pa.array(texts, pa.string()).slice(first)).to_pylist() == expected[first:]


def test_no_columns_no_file(tmp_path: Path) -> None:
    assert stored(tmp_path, [{}, {"x": None}]) == {}
    assert list(tmp_path.iterdir()) == []
    table = map_columns(tmp_path, 7)
    assert (table.num_rows, table.column_names) == (7, [])


def test_no_documents(tmp_path: Path) -> None:
    assert stored(tmp_path) == {}
    assert map_columns(tmp_path, 0).num_rows == 0


def test_a_value_after_many_documents_without(tmp_path: Path) -> None:
    count = 40_000
    batches: list[list[Metadata]] = [
        [{"even": i} if i % 2 == 0 else {} for i in range(count)],
        [{"late": "x"}],
        [{}] * count,
    ]
    columns = stored(tmp_path, *batches)
    assert columns["even"][:count] == [i if i % 2 == 0 else None for i in range(count)]
    assert columns["even"][count:] == [None] * (count + 1)
    assert columns["late"] == [None] * count + ["x"] + [None] * count


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "rows"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, damage: str) -> None:
    write(tmp_path, [[{"x": 1}, {"x": 2}]])
    path = tmp_path / COLUMNS
    content = path.read_bytes()
    rows = 3 if damage == "rows" else 2
    path.write_bytes({"empty": b"", "text": b"not arrow", "cut": content[:-20], "rows": content}[damage])
    with pytest.raises(IndexStoreError, match=rf"^{re.escape(str(path))}: .*Build the index again"):
        map_columns(tmp_path, rows)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.table({"x": pa.array([1], pa.int32())}), "it holds columns of type int32"),
        (pa.table({"b": [1], "a": [1]}), "not in the order of their names"),
        (pa.table([pa.array([1]), pa.array([1])], names=["a", "a"]), "each once"),
    ],
)
def test_a_file_of_other_columns_is_refused(tmp_path: Path, table: Any, says: str) -> None:
    with pa.OSFile(str(tmp_path / COLUMNS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    with pytest.raises(IndexStoreError, match=says):
        map_columns(tmp_path, 1)


def test_any_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    write(tmp_path, [[{"n": i / 2, "s": f"x{i}", "l": ["a"] * (i % 3), "b": True} for i in range(20)]])
    content = (tmp_path / COLUMNS).read_bytes()
    for place in range(0, len(content), 3):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / COLUMNS).write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            table = map_columns(folder, 20)
        except IndexStoreError:
            continue
        assert table.num_rows == 20
        assert set(map(len, table.to_pydict().values())) <= {20}


TEXTS = st.text(max_size=5)
NUMBERS = st.sampled_from([0, 1, -1, 2.0, -0.0, 2.5, 2**53, 2**53 + 1, 2**60, 2**63 - 1, 2**63, -(2**63), 1e18, 1e300])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": NUMBERS,
    "w": st.integers(-3, 3),
    "s": TEXTS,
    "d": st.sampled_from(["2020-01-01", "2021-01-01T10:00Z"]),
    "b": st.booleans(),
    "l": st.lists(TEXTS, max_size=3),
    "o": st.just({}),
}
METADATA = st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()})


def cut(items: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    """The same items in pieces of these sizes, again and again."""
    pieces: list[Sequence[Any]] = []
    start = 0
    while start < len(items):
        end = start + sizes[len(pieces) % len(sizes)]
        pieces.append(items[start:end])
        start = end
    return pieces


@st.composite
def segments(draw: st.DrawFn) -> list[tuple[list[Metadata], list[bool] | None]]:
    parts = []
    for rows in draw(st.lists(st.lists(METADATA, max_size=20), max_size=4)):
        mask = draw(st.none() | st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        parts.append((rows, mask))
    return parts


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


@settings(deadline=None, max_examples=300)
@given(segments(), SIZES, SIZES)
@example([([{"n": 2.5}, {"n": 1}], [False, True]), ([{"n": 2}], None)], [1], [2])
@example([([{"n": 2**53 + 1}], None), ([{"n": 2.5}], None), ([{"n": 1}], [False])], [1], [2])
def test_merging_is_writing_what_was_kept(
    parts: list[tuple[list[Metadata], list[bool] | None]], sizes: list[int], other_sizes: list[int]
) -> None:
    with TemporaryDirectory() as name:
        types: dict[str, ColumnType] = {}
        tables, kept = [], []
        for number, (rows, mask) in enumerate(parts):
            folder = Path(name, str(number))
            folder.mkdir()
            types = write(folder, cut(rows, sizes), ColumnTypes(types)).types()
            array = None if mask is None else np.array(mask, dtype=np.bool_)
            tables.append((map_columns(folder, len(rows)), array))
            kept += [row for i, row in enumerate(rows) if mask is None or mask[i]]
        merged, again, written = (Path(name, folder) for folder in ("merged", "again", "written"))
        for folder in (merged, again, written):
            folder.mkdir()
        merge_columns(merged, tables)
        write(written, cut(kept, other_sizes), ColumnTypes(types))
        assert [path.read_bytes() for path in merged.iterdir()] == [path.read_bytes() for path in written.iterdir()]
        merge_columns(again, [(map_columns(merged, len(kept)), None)])
        assert [path.read_bytes() for path in again.iterdir()] == [path.read_bytes() for path in written.iterdir()]


def test_merging_many_rows_is_writing_them(tmp_path: Path) -> None:
    rows: list[Metadata] = [
        {"n": i / (1 + i % 2), "s": None if i % 7 == 0 else f"text {i}", "l": ["a"] * (i % 3), "b": i % 5 == 0}
        for i in range(50_000)
    ]
    first, second, merged, written = (tmp_path / name for name in ("first", "second", "merged", "written"))
    for folder in (first, second, merged, written):
        folder.mkdir()
    write(first, cut(rows[:30_000], [1000]))
    write(second, cut(rows[30_000:], [999]))
    mask = np.arange(30_000) % 3 != 0
    merge_columns(merged, [(map_columns(first, 30_000), mask), (map_columns(second, 20_000), None)])
    write(written, cut([row for i, row in enumerate(rows) if i >= 30_000 or i % 3], [777]))
    assert (merged / COLUMNS).read_bytes() == (written / COLUMNS).read_bytes()
    assert map_columns(merged, 40_000).column("n").num_chunks == 5


def test_the_file_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    sparse: list[Metadata] = [{}] * 20_000
    for row in (0, 8191, 8192, 8200, 19_999):
        sparse[row] = {"s": f"text {row}", "n": row / 3, "b": True, "l": ["a"], "w": row}
    contents = []
    for size in (1, 7, 1000, 8192, 8193, 20_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        write(folder, cut(sparse, [size]))
        contents.append((folder / COLUMNS).read_bytes())
    assert len(set(contents)) == 1


def test_merging_segments_without_columns_writes_nothing(tmp_path: Path) -> None:
    merge_columns(tmp_path, [(map_columns(tmp_path, 3), None), (map_columns(tmp_path, 2), np.array([True, False]))])
    assert list(tmp_path.iterdir()) == []


def test_a_merge_counts_the_rows_of_segments_without_columns(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    write(folders[0], [[{"x": 1}]])
    empty = map_columns(tmp_path / "none", 3)
    merge_columns(
        folders[1], [(empty, np.array([True, False, True])), (map_columns(folders[0], 1), None), (empty, None)]
    )
    assert map_columns(folders[1], 6).to_pydict() == {"x": [None, None, 1, None, None, None]}
