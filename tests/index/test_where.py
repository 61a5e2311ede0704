from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.errors import UsageError
from tiercel.index.columns import ColumnType, ColumnTypes, ColumnWriter, map_columns
from tiercel.index.where import parse_where
from tiercel.types import DocId, Document

TYPES: dict[str, ColumnType] = {
    "year": "number",
    "lang": "string",
    "day": "date",
    "open": "boolean",
    "tags": "list",
    "blob": "other",
    "odd name": "string",
    'a "b"': "number",
    "and": "number",
    "größe": "number",
}
ROWS: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "day": "2020-05-17", "open": True, "tags": ["a", "b"], "and": 1},
    {"year": 2021, "lang": "de", "day": "2020-05-17T00:00:00+02:00", "open": False, "tags": [], "größe": 2},
    {"year": -1, "lang": "", "day": "2020-05-17 12:00", "open": None, "tags": ["b"], "odd name": "it's"},
    {"year": None, "lang": None, "day": None, "tags": None, 'a "b"': 7},
]
Row = dict[str, Any]


def table(folder: Path, rows: list[Row], types: dict[str, ColumnType], batch: int = 1000) -> Any:
    writer = ColumnWriter(ColumnTypes(types))
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        writer.add([Document(DocId(f"{i}"), "", metadata=row) for i, row in enumerate(part)])
    writer.finish(folder)
    return map_columns(folder, len(rows))


def selected(folder: Path, text: str, rows: list[Row] = ROWS, types: dict[str, ColumnType] = TYPES) -> list[int]:
    mask = parse_where(text, types).mask(table(folder, rows, types), len(rows))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(rows),)
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year = 2020", [0]),
        ("year == 2020", [0]),
        ("year != 2020", [1, 2]),
        ("year <> 2020", [1, 2]),
        ("year < 2020", [2]),
        ("year <= 2020", [0, 2]),
        ("year > 2020", [1]),
        ("year >= 2020", [0, 1]),
        ("year>=-1", [0, 1, 2]),
        ("year = -1.0", [2]),
        ("year = 2.02e3", [0]),
        ("year in (2020, 7, -1)", [0, 2]),
        ("year not in (2020, 7)", [1, 2]),
        ("year between 2020 and 2021", [0, 1]),
        ("year not between 2020 and 2021", [2]),
        ("year between 2021 and 2020", []),
        ("year is null", [3]),
        ("year is not null", [0, 1, 2]),
        ("not year = 2020", [1, 2]),
        ("not (year = 2020)", [1, 2]),
        ("not not year = 2020", [0]),
        ("lang = 'en'", [0]),
        ("lang = ''", [2]),
        ("lang > 'dz'", [0]),
        ("lang in ('en', 'de')", [0, 1]),
        ("lang like 'd%'", [1]),
        ("lang like '_e'", [1]),
        ("lang like '%'", [0, 1, 2]),
        ("lang not like '%e%'", [2]),
        ("lang between 'a' and 'e'", [1]),
        ("day = '2020-05-17'", [0]),
        ("day = '2020-05-16T22:00'", [1]),
        ("day < date '2020-05-17'", [1]),
        ("day >= DATE '2020-05-17T00:00Z'", [0, 2]),
        ("day > '2020-05-17 00:00:00.000000001'", [2]),
        ("day in ('2020-05-17', '2020-05-17T12:00:00.000+00:00')", [0, 2]),
        ("day between '2020-05-17' and '2020-05-18'", [0, 2]),
        ("day is null", [3]),
        ("open", [0]),
        ("not open", [1]),
        ("open = true", [0]),
        ("open = FALSE", [1]),
        ("open != true", [1]),
        ("open in (true, false)", [0, 1]),
        ("open is null", [2, 3]),
        ("open or year = -1", [0, 2]),
        ("tags contains 'a'", [0]),
        ("tags contains 'b'", [0, 2]),
        ("'b' in tags", [0, 2]),
        ("'b' not in tags", [1]),
        ("tags not contains 'a'", [1, 2]),
        ("tags is null", [3]),
        ("\"odd name\" = 'it''s'", [2]),
        ('"a ""b""" = 7', [3]),
        ('"and" = 1', [0]),
        ("größe = 2", [1]),
        ("year = 2020 or year = 2021 and open", [0]),
        ("(year = 2020 or year = 2021) and not open", [1]),
        ("year IS NULL Or year = 2020", [0, 3]),
        ("not year = 2020 and open is null", [2]),
        ("\tyear\n=\r2020 ", [0]),
        ("year=2020and open", [0]),
    ],
)
def test_worked_out_by_hand(tmp_path: Path, text: str, expected: list[int]) -> None:
    assert selected(tmp_path, text) == expected
    assert str(parse_where(text, TYPES)) == text


def test_three_valued_logic(tmp_path: Path) -> None:
    truths = [True, False, None]
    rows: list[Row] = [{"a": a, "b": b} for a in truths for b in truths]
    types: dict[str, ColumnType] = {"a": "boolean", "b": "boolean"}
    by_hand = {  # a: T T T F F F N N N, b: T F N T F N T F N
        "a and b": "T F N F F F N F N",
        "a or b": "T T T T F N T N N",
        "not a": "F F F T T T N N N",
        "a = true and b != true": "F T N F F F F N N",
    }
    for text, expected in by_hand.items():
        values = expected.split()
        assert selected(tmp_path, text, rows, types) == [i for i, value in enumerate(values) if value == "T"]
        assert selected(tmp_path, f"not ({text})", rows, types) == [i for i, value in enumerate(values) if value == "F"]


def test_a_column_that_a_segment_lacks_is_null(tmp_path: Path) -> None:
    rows: list[Row] = [{"year": 1}, {"year": 2}]
    for text, expected in [
        ("lang = 'en'", []),
        ("lang != 'en'", []),
        ("lang like '%'", []),
        ("lang in ('en')", []),
        ("lang is null", [0, 1]),
        ("lang is not null", []),
        ("lang = 'en' or year = 2", [1]),
        ("not (lang = 'en' and year = 2)", [0]),
        ("day > '2020-01-01'", []),
        ("day is null and open is null and tags is null", [0, 1]),
        ("open or 'a' in tags", []),
    ]:
        assert selected(tmp_path, text, rows) == expected


def test_a_segment_without_columns_and_one_without_documents(tmp_path: Path) -> None:
    assert selected(tmp_path, "year is null", [{}, {}]) == [0, 1]
    assert selected(tmp_path, "year = 1", [{}, {}]) == []
    assert selected(tmp_path, "year = 1", []) == []
    assert parse_where("year is null", TYPES).mask(pa.table({}), 2).tolist() == [True, True]


def test_a_table_of_other_documents_is_refused(tmp_path: Path) -> None:
    columns = table(tmp_path, [{"year": 1}], TYPES)
    with pytest.raises(ValueError, match="1 rows for 2 documents"):
        parse_where("year = 1", TYPES).mask(columns, 2)


@pytest.mark.parametrize(
    ("values", "text", "expected"),
    [
        ([2, 3], "n = 2.5", []),
        ([2, 3], "n < 2.5", [0]),
        ([2, 3], "n <= 2.5", [0]),
        ([2, 3], "n > 2.5", [1]),
        ([-3, -2], "n > -2.5", [1]),
        ([2**53, 2**53 + 1], "n = 9007199254740993", [1]),
        ([2**53, 2**53 + 1], "n < 9007199254740993", [0]),
        ([2**53, 0.5], "n = 9007199254740993", []),
        ([2**53, 0.5], "n < 9007199254740993", [0, 1]),
        ([2**53, 0.5], "n >= 9007199254740993", []),
        ([2**53 + 1, 0.5], "n > 9007199254740992", [0]),
        ([2**53 + 1, 0.5], "n != 9007199254740993", [1]),
        ([2**53 + 1, 0.5, None], "n in (0.5, 9007199254740992)", [1]),
        ([2**53 + 1, 0.5, None], "n is null", [2]),
        ([2**53 + 1, 0.5, None], "not n between 0 and 1", [0]),
        ([2**63 - 1, -(2**63)], f"n < {2**63}", [0, 1]),
        ([2**63 - 1, -(2**63)], f"n = {2**63}", []),
        ([2**63 - 1, -(2**63)], f"n != {2**70}", [0, 1]),
        ([2**63 - 1, -(2**63)], f"n >= -{2**63}", [0, 1]),
        ([2**63 - 1, -(2**63)], f"n < -{2**63}", []),
        ([2**63 - 1, -(2**63)], f"n <= -{2**70}", []),
        ([2**63 - 1, -(2**63)], "n < 9.3e18", [0, 1]),
        ([1e300, 0.5], f"n < {10**400}", [0, 1]),
        ([1e300, 0.5], f"n > -{10**400}", [0, 1]),
        ([1e300, 1], f"n = {int(1e300)}", [0]),
        ([1e300, 1], f"n > {int(1e300) - 1}", [0]),
        ([1e300, 1], "n < 1e999", [0, 1]),
        ([1, 2], "n > -1e999", [0, 1]),
        ([1, 2], f"n < {'9' * 5000}", [0, 1]),
        ([0.1, 1], "n = 0.1", [0]),
        ([0.5, -0.0], "n in (-0.0)", [1]),
        ([0, 1], "n in (-0.0, 1.0, 1.5)", [0, 1]),
        ([0.5, 2**70], f"n = {2**70}", [1]),
    ],
)
def test_numbers_compare_exactly(tmp_path: Path, values: list[Any], text: str, expected: list[int]) -> None:
    assert selected(tmp_path, text, [{"n": value} for value in values], {"n": "number"}) == expected


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("a%", ["a", "ab", "a\nb", "a%"]),
        ("%b", ["ab", "a\nb", "b", "é\\b"]),
        ("a_b", ["a\nb"]),
        ("_", ["a", "b", "😀", ".", "A"]),
        ("", [""]),
        ("%%", ["a", "ab", "a\nb", "b", "😀", "", "a%", ".", "é\\b", "A"]),
        (".", ["."]),
        ("%\\b", ["é\\b"]),
        ("A", ["A"]),
        ("a%%_%b", ["a\nb"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, matched: list[str]) -> None:
    texts = ["a", "ab", "a\nb", "b", "😀", "", "a%", ".", "é\\b", "A"]
    rows: list[Row] = [{"s": text} for text in texts]
    found = selected(tmp_path, f"s like '{pattern}'", rows, {"s": "string"})
    assert [texts[i] for i in found] == matched


def test_strings_compare_by_code_point(tmp_path: Path) -> None:
    texts = ["Z", "a", "é", "\ue000", "\U00010000", "a\0"]
    rows: list[Row] = [{"s": text} for text in texts]
    for text in texts:
        assert selected(tmp_path, f"s < '{text}'", rows, {"s": "string"}) == [
            i for i, other in enumerate(texts) if other < text
        ]


def refused(text: str, columns: dict[str, ColumnType] = TYPES) -> str:
    with pytest.raises(UsageError) as caught:
        parse_where(text, columns)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_error_points_at_its_place() -> None:
    assert refused("year >= 2020 adn lang = 'en'") == (
        "--where, character 14: found 'adn'; expected and, or, or the end. Here: year >= 2020 →adn lang = 'en'"
    )
    long = refused("year = 1 and " * 20 + "yeer\t= 1" + " or open" * 20)
    assert long.startswith(
        "--where, character 261: there is no column 'yeer'; expected one of a \"b\" (number), and (num"
    )
    assert long.endswith(
        "Did you mean year? Here: … year = 1 and year = 1 and year = 1 and →yeer = 1 or open or open or open or open…"
    )


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", 1, "found the end; expected a column, not or (. Here: →"),
        ("  ", 3, "found the end; expected a column"),
        ("yaer = 1", 1, "there is no column 'yaer'; expected one of"),
        ("YEAR = 1", 1, "Did you mean year?"),
        ("odd name = 'x'", 1, 'Did you mean "odd name", in double quotes?'),
        ("blob = 1", 1, "the column 'blob' is of type other; expected a column of another type"),
        ("blob is null", 1, "cannot be filtered by"),
        ("and = 1", 1, 'As the name of a column it goes in double quotes: "and".'),
        ("5 < year", 1, "found the number 5; expected a column, not or (. The column comes first"),
        ("'en' = lang", 1, "found the string 'en'; expected a column, not or (. The column comes first"),
        ("'en' in lang", 9, "found 'lang'; expected a column of type list: the column 'lang' is of type string"),
        ("year", 5, "found the end; expected one of =, !=, <, <=, >, >=, in, between, is: the column 'year' is"),
        ("year year", 6, "found 'year'; expected one of ="),
        ("year not = 1", 10, "found '='; expected one of in, between: the column"),
        ("year is 3", 9, "found the number 3; expected null or not null"),
        ("year is not 3", 13, "found the number 3; expected null"),
        ("year = null", 8, "found 'null'; expected a number: the column 'year' is of type number. Write year is null."),
        ("year = '2020'", 8, "found the string '2020'; expected a number: the column 'year' is of type number"),
        ("year = true", 8, "found 'true'; expected a number"),
        ("year in 1", 9, "found the number 1; expected ( and the values"),
        ("year in ()", 10, "found ')'; expected a number"),
        ("year in (1", 11, "found the end; expected a comma or )"),
        ("year in (1 2)", 12, "found the number 2; expected a comma or )"),
        ("year between 1 or 5", 16, "found 'or'; expected and, then the upper end"),
        ("year between 1", 15, "found the end; expected and, then"),
        ("year like 'a'", 6, "found 'like'; expected one of ="),
        ("lang = en", 8, "found 'en'; expected a string in single quotes: the column 'lang' is of type string. "),
        ('lang = "en"', 8, 'found the name "en"; expected a string in single quotes: the column'),
        ('day > "2020-01-01"', 7, "Strings go in single quotes; double quotes are for names of columns."),
        ('tags contains "a"', 15, "Strings go in single quotes"),
        ('lang = "odd name"', 8, "Two columns cannot be compared."),
        ("lang = 1", 8, "found the number 1; expected a string in single quotes"),
        ("lang like null", 11, "found 'null'; expected a string"),
        ("lang = 'en", 8, "a quote ' that nothing closes; expected a string"),
        ("lang = 'en''", 8, "a quote ' that nothing closes; expected a string"),
        ('"odd name = 1', 1, 'a quote " that nothing closes; expected a column'),
        ("lang = '\ud800'", 9, "half a surrogate pair; expected text that UTF-8 can hold"),
        ("day = '2020'", 7, "found the string '2020'; expected a date in single quotes such as '2020-05-17' or"),
        ("day = '2020-02-30'", 7, "expected a date"),
        ("day = 2020-05-17", 7, "found the number 2020; expected a date in single quotes"),
        ("day = date", 7, "found 'date'; expected a date"),
        ("day like '2020%'", 5, "found 'like'; expected one of ="),
        ("open < true", 6, "found '<'; expected one of =, !=, in, is: the column 'open' is of type boolean"),
        ("open = 1", 8, "found the number 1; expected true or false"),
        ("open = 'true'", 8, "found the string 'true'; expected true or false"),
        ("open not = true", 10, "found '='; expected in: the column"),
        ("tags = 'a'", 6, "found '='; expected one of contains, is: the column 'tags' is of type list. Write"),
        ("tags in ('a')", 6, "Write tags contains 'x'."),
        ("tags contains 1", 15, "found the number 1; expected a string in single quotes"),
        ("lang contains 'a'", 6, "found 'contains'; expected one of ="),
        ("(year = 1", 10, "found the end; expected and, or, or ) for the ( at character 1"),
        ("((year = 1)", 12, "found the end; expected and, or, or ) for the ( at character 1"),
        ("year = 1)", 9, "found ')'; expected and, or, or the end: no parenthesis is open"),
        ("()", 2, "found ')'; expected a column, not or ("),
        ("not", 4, "found the end; expected a column, not or ("),
        ("year = 1 and", 13, "found the end; expected a column, not or ("),
        ("year = 1 or or open", 13, "found 'or'; expected a column"),
        ("year = 1; x", 9, "found ';'; expected and, or, or the end. A column whose name has other characters"),
        ("year => 1", 7, "found '>'; expected a number"),
        ("year & 1", 6, "found '&'; expected one of ="),
        ("lang\0= 'a'", 5, "found ' '; expected one of ="),
        ("lang like '" + "%a" * 100_000 + "'", 11, "expected a shorter pattern"),
    ],
)  # fmt: skip
def test_what_is_no_expression(text: str, place: int, says: str) -> None:
    message = refused(text)
    assert message.startswith(f"--where, character {place}: ")
    assert says in message
    assert "Here: " in message
    assert len(message) < 600


def test_an_index_without_columns_says_so() -> None:
    assert "expected no filter: this index has no metadata columns. Here: →year" in refused("year = 1", {})


def test_many_columns_are_not_all_listed() -> None:
    columns: dict[str, ColumnType] = {f"c{i:04}": "number" for i in range(1000)}
    assert "c0019 (number), 1000 in all. Here: " in refused("zzz = 1", columns)


def test_what_nests_deeply_and_what_is_long(tmp_path: Path) -> None:
    deep = 10_000
    for text, expected in [
        ("(" * deep + "open" + ")" * deep, [0]),
        ("not " * 100_000 + "open", [0]),
        ("not " * 100_001 + "open", [1]),
        ("not (" * deep + "open" + ")" * deep, [0]),
        ("(open or " * deep + "open" + ")" * deep, [0]),
        (" or ".join(["year = 2021"] * 5000), [1]),
        (" and ".join(["year = 2021 or open"] * 5000), [0, 1]),
        (f"year in ({', '.join(map(str, range(20_000)))})", [0, 1]),
        (f"lang = '{'x' * 1_000_000}' or open", [0]),
    ]:
        assert selected(tmp_path, text) == expected
    assert "character 10001: found the end" in refused("(" * deep)
    assert "no parenthesis is open" in refused("open" + ")" * deep)


WORDS = [
    *"and or not in between is null like contains true false date year lang day open tags blob x".split(),
    *"= == != <> < <= > >= ( ) , ' '' \" \"\" - + . ; 1 2.5 -3 1e9 'a' 'a%' '2020-05-17' \"odd name\" \"and\"".split(),
]


@settings(deadline=None, max_examples=500)
@given(
    st.text(max_size=40)
    | st.text(alphabet=st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=5)
    | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
    | st.lists(st.sampled_from(WORDS), max_size=12).map("".join)
)
def test_any_text_is_an_expression_or_refused_with_its_place(text: str) -> None:
    try:
        found = parse_where(text, TYPES)
    except UsageError as error:
        place = re.match(r"--where, character ([0-9]+): .*; expected .*Here: .*→", str(error))
        assert place
        assert 1 <= int(place[1]) <= len(text) + 1
        str(error).encode()
    else:
        assert str(found) == text
        assert found.mask(pa.table({}), 3).shape == (3,)


# The property: random expressions over random documents, against an evaluator of single values.

PROPERTY_TYPES: dict[str, ColumnType] = {
    "n": "number", "s": "string", "odd name": "string", "d": "date", "b": "boolean", "l": "list",
}  # fmt: skip
LETTERS = st.text(alphabet="aéb%_'😀\n", max_size=3)
WHOLE = st.sampled_from([0, 1, 2, -1, 2**53, 2**53 + 1, 2**60, 2**63 - 1, -(2**63), 2**63])
REAL = st.sampled_from([0.5, 1.5, -0.0, 1.0, 0.1, 1e18, 9007199254740992.0, 1e300])
MOMENTS = st.sampled_from(
    [
        "2020-05-17",
        "2020-05-17T00:00",
        "2020-05-17 02:00+02:00",
        "2020-05-16T23:59:59.999999Z",
        "1969-12-31T23:00:00.5-01:00",
    ]
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": WHOLE | REAL,
    "s": LETTERS,
    "odd name": LETTERS,
    "d": MOMENTS,
    "b": st.booleans(),
    "l": st.lists(LETTERS, max_size=3),
}
DOCUMENTS = st.lists(
    st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()}), max_size=12
)
Expression = tuple[Any, ...]


@st.composite
def leaves(draw: st.DrawFn) -> Expression:
    """(kind, column, operand …): one test, of a kind that the column's type allows."""
    name = draw(st.sampled_from(sorted(VALUES)))
    values = (WHOLE | st.integers(-(2**70), 2**70) | REAL) if name == "n" else VALUES[name]
    signs = ["=", "==", "!=", "<>"] if name == "b" else ["=", "==", "!=", "<>", "<", "<=", ">", ">="]
    compared = [
        st.tuples(st.sampled_from(signs), st.just(name), values),
        st.tuples(st.just("in"), st.just(name), st.lists(values, min_size=1, max_size=4)),
    ]
    kinds: dict[str, list[st.SearchStrategy[Expression]]] = {
        "b": [*compared, st.just(("bare", name))],
        "l": [st.tuples(st.just("contains"), st.just(name), LETTERS)],
        "s": [*compared, st.tuples(st.just("like"), st.just(name), LETTERS)],
    }
    ordered = [*compared, st.tuples(st.just("between"), st.just(name), values, values)]
    return draw(st.one_of(*kinds.get(name, ordered), st.just(("null", name))))


EXPRESSIONS = st.recursive(
    leaves(),
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner) | st.tuples(st.just("not"), inner),
    max_leaves=8,
)


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"({', '.join(map(literal, value))})" if isinstance(value, list) else repr(value)


def rendered(expression: Expression, choose: Callable[[list[str]], str]) -> str:
    """The expression as text, with and without what may be left out."""
    kind, *parts = expression

    def inner(part: Expression, unbound: str) -> str:
        text = rendered(part, choose)
        bare = part[0] not in ("and", "or", "not") or part[0] in unbound.split()
        return choose([text, f"( {text})"]) if bare else f"({text})"

    word = choose([kind, kind.upper(), kind.title()])
    if kind == "not":
        return f"{word} {inner(parts[0], 'not')}"
    if kind in ("and", "or"):
        unbound = "not and" if kind == "and" else "not and or"
        return f"{inner(parts[0], unbound)} {word} {inner(parts[1], unbound)}"
    name, *operands = parts
    column = choose([name, f'"{name}"']) if name.isalpha() else f'"{name}"'
    texts = list(map(literal, operands))
    if kind == "contains":
        return choose([f"{texts[0]} in {column}", f"{column} {word} {texts[0]}"])
    special = {"bare": column, "null": f"{column} is {word}", "between": f"{column} {word} {' and '.join(texts)}"}
    return special.get(kind, "") or f"{column} {word} {texts[0]}"


def moment(text: str) -> datetime.datetime:
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def matches(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(matches(text[i:], pattern[1:]) for i in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and matches(text[1:], pattern[1:])


COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, several: value in several,
    "contains": lambda value, text: text in value,
    "like": matches,
}


def truth(expression: Expression, row: Row) -> bool | None:
    """True, false or neither, for one document."""
    kind, *parts = expression
    if kind in ("and", "or", "not"):
        inner = [truth(part, row) for part in parts]
        if kind == "not":
            return None if inner[0] is None else not inner[0]
        deciding = kind == "or"
        return deciding if deciding in inner else None if None in inner else not deciding
    name, *operands = parts
    if kind == "null" or row.get(name) is None:
        return row.get(name) is None if kind == "null" else None
    value = row[name]
    if name == "d":
        value = moment(value)
        operands = [[moment(one) for one in part] if isinstance(part, list) else moment(part) for part in operands]
    if kind == "between":
        return bool(operands[0] <= value <= operands[1])
    return bool(value) if kind == "bare" else COMPARED[kind](value, operands[0])


@settings(deadline=None, max_examples=600)
@given(DOCUMENTS, EXPRESSIONS, st.integers(1, 5), st.data())
def test_masks_are_what_a_plain_evaluator_says(
    rows: list[Row], expression: Expression, batch: int, data: st.DataObject
) -> None:
    text = rendered(expression, lambda texts: data.draw(st.sampled_from(texts)))
    with TemporaryDirectory() as folder:
        mask = parse_where(text, PROPERTY_TYPES).mask(table(Path(folder), rows, PROPERTY_TYPES, batch), len(rows))
    assert mask.tolist() == [truth(expression, row) is True for row in rows], text
