from __future__ import annotations

import pytest

from tiercel.data.records import Field, described, excerpt, json_objects, peeked, tab_rows, take_optional_text
from tiercel.errors import InputError


def test_excerpts_are_short_and_printable() -> None:
    assert excerpt("a\x1b[31m\n") == "'a\\x1b[31m\\n'"
    assert excerpt("x" * 100) == f"'{'x' * 60}'…"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (3, "the number 3"),
        (2.5, "the number 2.5"),
        ("a", "the string 'a'"),
        ([1, 2], "a list of 2"),
        ({}, "an object with keys: none"),
        ({str(n): n for n in range(9)}, "an object with keys: '0', '1', '2', '3', '4', '5', '6', '7', …"),
    ],
)
def test_values_in_words(value: object, words: str) -> None:
    assert described(value) == words


def test_peeking_keeps_every_line_from_the_first_that_is_not_blank() -> None:
    first, lines = peeked(iter([(1, b""), (2, b" \t"), (3, b"a"), (4, b""), (5, b"b")]))
    assert first == b"a"
    assert list(lines) == [(3, b"a"), (4, b""), (5, b"b")]
    assert peeked(iter([(1, b" ")]))[0] == b""


def test_the_first_line_sets_the_number_of_columns() -> None:
    lines = [(1, "a\tb"), (2, ""), (3, "a\tb\tc")]
    rows = tab_rows(lines, "x.tsv", {2: "id, text", 3: "id, title, text"})
    assert next(rows) == (1, ["a", "b"])
    with pytest.raises(
        InputError, match=r"^x.tsv:3: 3 columns separated by tabs: 'a\\tb\\tc'; expected id, text, as in"
    ):
        next(rows)


def test_an_optional_text_may_be_absent_or_null() -> None:
    field = Field("title", "--title-field", ("title", "name"))
    assert take_optional_text({}, field) == ""
    record = {"title": None, "name": "kept"}
    assert take_optional_text(record, field) == ""
    assert record == {"name": "kept"}


def test_nesting_deeper_than_any_stack_is_refused() -> None:
    with pytest.raises(InputError, match="this is not JSON"):
        list(json_objects([(1, b"[" * 100_000)], "x"))
