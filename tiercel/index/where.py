"""Which documents does an expression select? Filters over metadata columns, such as `year >= 2020 and lang = 'en'`.

    expression := test | "(" expression ")" | "not" expression | expression ("and" | "or") expression
    test       := column ("=" | "!=" | "<" | "<=" | ">" | ">=") literal | column "is" ["not"] "null"
                | column ["not"] "in" "(" literal ("," literal)* ")" | column ["not"] "between" literal "and" literal
                | column ["not"] "like" string                               column of strings
                | column ["not"] "contains" string | string ["not"] "in" column        of lists
                | column                                                               of booleans
    column     := a letter or "_", then letters, digits and "_" | any name in double quotes, a quote in it doubled
    literal    := string | number | "true" | "false" | ["date"] string
    string     := characters in single quotes, a quote among them doubled

Keywords may have any case; "not" binds closer than "and", which binds closer than "or"; == is =, and <> is !=. What is
compared with null is neither true nor false, as in SQL, and not of it neither. Strings are compared by code point.
Numbers are compared exactly: a literal without point and exponent as it is, any other as the nearest 64-bit float, as
JSON is read. In a pattern of `like`, % stands for any characters and _ for any one; no sign takes that away from them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiercel.data.records import excerpt
from tiercel.errors import UsageError
from tiercel.index.columns import NUMBER, ColumnType, number
from tiercel.index.dates import INSTANT, instants

# Quantifiers are possessive: a quote that nothing closes must not be found closed by half of a doubled one.
_TOKEN = re.compile(
    rf"""\s*(?:(?P<string>'(?:[^']|'')*+')|(?P<quoted>"(?:[^"]|"")*+")|(?P<number>{NUMBER})|(?P<word>[^\W\d]\w*)"""
    r"""|(?P<sign><=|>=|<>|!=|==|[=<>(),])|(?P<end>\Z)|(?P<odd>.))""",
    re.DOTALL,
)
_KEYWORDS = frozenset("and or not in between is null like contains true false".split())
_SPELLINGS = {"==": "=", "<>": "!="}
_BINDING = {"or": 1, "and": 2, "not": 3}
_COMPARED = ("=", "!=", "<", "<=", ">", ">=", "in", "between", "is")
_OPERATIONS: dict[ColumnType, tuple[str, ...]] = {
    "string": (*_COMPARED, "like"),
    "number": _COMPARED,
    "date": _COMPARED,
    "boolean": ("=", "!=", "in", "is"),
    "list": ("contains", "is"),
}
_AFTER_NOT = ("in", "between", "like", "contains")
_OPPOSITES = {"!=": "=", ">=": "<", ">": "<="}
_LITERALS: dict[ColumnType, str] = {
    "string": "a string in single quotes",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date in single quotes such as '2020-05-17' or '2020-05-17T10:00Z'",
    "list": "a string in single quotes",
}
_READ_AS = {"string": pa.string(), "number": pa.int64(), "boolean": pa.bool_(), "list": pa.list_(pa.string())}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ROWS = 65_536  # tested at once: enough to forget the cost of a call, few enough for the caches
_SHOWN_COLUMNS = 20
_SHOWN_AROUND = 40  # characters of the expression on either side of a mistake
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Test:
    """A question to one column: = < <= and contains a value, in several, like a regular expression; or null."""

    column: str
    type: ColumnType
    operation: str
    value: Any = None

    def answer(self, array: Any) -> Any:
        """True, false or null for each row of an array of this column, dates as `instants`."""
        if pa.types.is_struct(array.type) and self.operation != "null":  # a number is in one of its fields
            return pc.coalesce(*(self.answer(field) for field in array.flatten()))
        match self.operation:
            case "null":
                return pc.is_null(array)
            case "like":
                return pc.match_substring_regex(array, pattern=self.value)
            case "contains":
                return _contains(array, self.value)
            case "in":
                return _among(array, self.value)
        return _compared(array, self.operation, self.value)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed expression, to be had from `parse_where`; `str(filter)` is its text.

    `steps` are its tests and, after what they join, the words and, or, not.
    """

    text: str
    steps: tuple[_Test | str, ...]

    def __str__(self) -> str:
        return self.text

    def mask(self, columns: Any, documents: int) -> NDArray[np.bool_]:
        """Which rows of a segment's table of `map_columns` the expression is true for, of shape (documents,).

        A column that the table lacks is null in every row. Raises ValueError for a table of another number of rows.
        """
        if columns.num_columns and columns.num_rows != documents:
            raise ValueError(f"{columns.num_rows} rows for {documents} documents")
        asked = {step.column for step in self.steps if isinstance(step, _Test)}
        present = [name for name in columns.column_names if name in asked]
        if not present:
            return self._of({}, documents)
        chosen, masks = columns.select(present), [np.zeros(0, np.bool_)]
        for start in range(0, documents, _ROWS):
            for batch in chosen.slice(start, _ROWS).combine_chunks().to_batches():
                masks.append(self._of(dict(zip(present, batch.columns, strict=True)), batch.num_rows))
        return np.concatenate(masks)

    def _of(self, arrays: dict[str, Any], rows: int) -> NDArray[np.bool_]:
        read: dict[str, Any] = {}
        stack: list[Any] = []
        for step in self.steps:
            if isinstance(step, _Test):
                if step.column not in read:
                    read[step.column] = _readable(arrays.get(step.column), step.type, rows)
                stack.append(step.answer(read[step.column]))
            elif step == "not":
                stack.append(pc.invert(stack.pop()))
            else:
                right = stack.pop()
                stack.append((pc.and_kleene if step == "and" else pc.or_kleene)(stack.pop(), right))
        truth: NDArray[np.bool_] = stack[0].fill_null(False).to_numpy(zero_copy_only=False)
        return truth


def parse_where(text: str, columns: Mapping[str, ColumnType]) -> Filter:
    """Read an expression over columns of these types.

    Raises UsageError with the place, counted in characters from 1, what was found and what was expected there.
    """
    return Filter(text, _Parser(text, columns).expression())


class _Token(NamedTuple):
    kind: str  # the name of a group of _TOKEN
    raw: str
    at: int

    def __str__(self) -> str:
        kinds = {"string": "the string ", "quoted": "the name ", "number": "the number "}
        raw = _UNPRINTABLE.sub(" ", self.raw if len(self.raw) <= _SHOWN_AROUND else f"{self.raw[:_SHOWN_AROUND]}…")
        return "the end" if self.kind == "end" else kinds[self.kind] + raw if self.kind in kinds else f"'{raw}'"

    @property
    def keyword(self) -> str:
        """A word in lower case, a sign in its usual spelling; "" for anything else."""
        return _SPELLINGS.get(self.raw, self.raw.lower()) if self.kind in ("word", "sign") else ""

    @property
    def content(self) -> str:
        """What is in quotes, or what has none as it is: the value of a string, the name of a column."""
        quote = self.raw[:1]
        return self.raw[1:-1].replace(quote * 2, quote) if self.kind in ("string", "quoted") else self.raw


class _Column(NamedTuple):
    name: str
    type: ColumnType
    raw: str

    def __str__(self) -> str:
        return f"the column {excerpt(self.name)} is of type {self.type}"


class _Parser:
    """Reads from left to right; what is open waits on a list, so that only memory limits how deep things nest."""

    def __init__(self, text: str, columns: Mapping[str, ColumnType]) -> None:
        self._text = text
        self._columns = columns
        self._tokens = _tokens(text)
        self._next = next(self._tokens)
        self._steps: list[_Test | str] = []

    def expression(self) -> tuple[_Test | str, ...]:
        if half := re.search("[\ud800-\udfff]", self._text):
            self._fail(_Token("odd", half[0], half.start()), "text that UTF-8 can hold", found="half a surrogate pair")
        waiting: list[_Token] = []  # each "and", "or", "not" and "(" whose right side is not complete
        while True:
            while self._next.keyword in ("not", "("):
                if self._next.keyword == "not" and waiting and waiting[-1].keyword == "not":
                    waiting.pop()  # not not x is x, also where x is null
                    self._take()
                else:
                    waiting.append(self._take())
            self._test()
            while self._next.keyword == ")":
                self._settle(waiting, 0)
                if not waiting:
                    self._fail(self._next, "and, or, or the end: no parenthesis is open")
                waiting.pop()
                self._take()
            if self._next.keyword not in ("and", "or"):
                break
            self._settle(waiting, _BINDING[self._next.keyword])
            waiting.append(self._take())
        opened = [token.at + 1 for token in waiting if token.keyword == "("]
        if opened or self._next.kind != "end":
            self._fail(self._next, f"and, or, or {f') for the ( at character {opened[-1]}' if opened else 'the end'}")
        self._settle(waiting, 0)
        return tuple(self._steps)

    def _settle(self, waiting: list[_Token], binding: int) -> None:
        """Apply what waits since the last open parenthesis and binds at least so much."""
        while waiting and waiting[-1].keyword != "(" and _BINDING[waiting[-1].keyword] >= binding:
            self._steps.append(waiting.pop().keyword)

    def _test(self) -> None:
        if self._next.kind == "string":
            self._string_in_column(self._take())
            return
        column = self._column("a column, not or (")
        if column.type == "boolean" and self._next.keyword not in ("not", "between", *_COMPARED):
            self._add(column, "=", True)
            return
        negated = self._accept("not")
        allowed = [word for word in _OPERATIONS[column.type] if not negated or word in _AFTER_NOT]
        operation = self._next.keyword
        if operation not in allowed:
            hint = f"Write {column.raw} contains 'x'." if column.type == "list" else ""
            self._fail(self._next, f"{'one of ' * (len(allowed) > 1)}{', '.join(allowed)}: {column}", hint)
        self._take()
        if operation == "is":
            negated = self._accept("not")
            self._expect("null", "null" if negated else "null or not null")
            self._add(column, "null")
        elif operation == "between":
            self._add(column, ">=", self._literal(column))
            self._expect("and", "and, then the upper end of between")
            self._add(column, "<=", self._literal(column))
            self._steps.append("and")
        elif operation == "like":
            at = self._next
            self._add(column, "like", _pattern(self._literal(column)) or self._fail(at, "a shorter pattern"))
        else:
            self._add(column, operation, self._literals(column) if operation == "in" else self._literal(column))
        if negated:
            self._steps.append("not")

    def _string_in_column(self, string: _Token) -> None:
        negated = self._accept("not")
        if not self._accept("in"):
            self._fail(string, "a column, not or (", "The column comes first, except in 'x' in tags.")
        at = self._next
        column = self._column("a column of type list")
        if column.type != "list":
            self._fail(at, f"a column of type list: {column}")
        self._add(column, "contains", string.content)
        if negated:
            self._steps.append("not")

    def _add(self, column: _Column, operation: str, value: Any = None) -> None:
        """Add a test, or where the operation is the opposite of another one, that and a not."""
        self._steps.append(_Test(column.name, column.type, _OPPOSITES.get(operation, operation), value))
        if operation in _OPPOSITES:
            self._steps.append("not")

    def _column(self, expected: str) -> _Column:
        """The next token as a column that can be filtered by."""
        token = self._take()
        if token.kind not in ("word", "quoted") or token.keyword in _KEYWORDS:
            hint = "The column comes first, as in year >= 2020." if token.kind == "number" else ""
            if token.raw in self._columns:
                hint = f'As the name of a column it goes in double quotes: "{token.raw}".'
            self._fail(token, expected, hint)
        name = token.content
        if name not in self._columns:
            self._fail(token, self._known(), self._meant(token), f"there is no column {excerpt(name)}")
        column = _Column(name, self._columns[name], token.raw)
        if column.type == "other":
            self._fail(token, "a column of another type: what it holds cannot be filtered by", found=str(column))
        return column

    def _known(self) -> str:
        names = [f"{name} ({kind})" for name, kind in sorted(self._columns.items())]
        shown = names if len(names) <= _SHOWN_COLUMNS else [*names[:_SHOWN_COLUMNS], f"{len(names)} in all"]
        return f"one of {', '.join(shown)}" if names else "no filter: this index has no metadata columns"

    def _meant(self, token: _Token) -> str:
        """What may have been meant by the name of no column."""
        names = sorted(self._columns)
        begun = [name for name in names if name.startswith(token.raw) and self._text.startswith(name, token.at)]
        if begun:  # the name goes on with what is no letter, digit or _
            return f'Did you mean "{begun[-1]}", in double quotes?'
        by_folded = {name.casefold(): name for name in names}
        near = difflib.get_close_matches(token.content.casefold(), list(by_folded), n=1)
        return f"Did you mean {by_folded[near[0]]}?" if near else ""

    def _literals(self, column: _Column) -> tuple[Any, ...]:
        self._expect("(", "( and the values to look for")
        values = [self._literal(column)]
        while self._next.keyword == ",":
            self._take()
            values.append(self._literal(column))
        self._expect(")", "a comma or )")
        return tuple(values)

    def _literal(self, column: _Column) -> Any:
        """The next value, which must be one of the column's type."""
        token = self._take()
        if column.type == "date" and token.keyword == "date" and self._next.kind == "string":
            token = self._take()
        if token.kind == "string" and column.type in ("string", "list"):
            return token.content
        if token.kind == "string" and column.type == "date":
            moment = instants(pa.array([token.content]))[0]
            if moment.is_valid:
                return moment.as_py()
        if token.kind == "number" and column.type == "number":
            return number(token.raw)
        if token.keyword in ("true", "false") and column.type == "boolean":
            return token.keyword == "true"
        hint = ""
        if token.keyword == "null":
            hint = f"Write {column.raw} is null."
        elif token.kind in ("word", "quoted") and token.content in self._columns:
            hint = "Two columns cannot be compared."
        elif token.kind == "quoted" or (token.kind == "word" and column.type in ("string", "list")):
            hint = "Strings go in single quotes; double quotes are for names of columns."
        self._fail(token, f"{_LITERALS[column.type]}: {column}", hint)

    def _take(self) -> _Token:
        token = self._next
        self._next = next(self._tokens, token)  # nothing comes after the end
        return token

    def _accept(self, keyword: str) -> bool:
        found = self._next.keyword == keyword
        if found:
            self._take()
        return found

    def _expect(self, keyword: str, expected: str) -> None:
        if not self._accept(keyword):
            self._fail(self._next, expected)

    def _fail(self, token: _Token, expected: str, hint: str = "", found: str = "") -> NoReturn:
        if token.kind == "odd" and token.raw in "'\"":
            found, hint = f"a quote {token.raw} that nothing closes", ""
        elif token.kind == "odd" and not (hint or found):
            hint = "A column whose name has other characters than letters, digits and _ goes in double quotes."
        begin, end = max(token.at - _SHOWN_AROUND, 0), token.at + _SHOWN_AROUND
        before, after = self._text[begin : token.at], self._text[token.at : end]
        here = f"{'…' if begin else ''}{before}→{after}{'…' if end < len(self._text) else ''}"
        raise UsageError(
            found or f"found {token}",
            expected=expected,
            next_step=_UNPRINTABLE.sub(" ", f"{hint} Here: {here}" if hint else f"Here: {here}"),
            where=f"--where, character {token.at + 1}",
        )


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens of a text, one at a time; the last is the end."""
    for match in _TOKEN.finditer(text):  # which leaves out nothing: any character is a token at least
        kind = match.lastgroup or ""
        yield _Token(kind, match[kind], match.start(kind))


def _readable(array: Any, kind: ColumnType, rows: int) -> Any:
    """A column as it is compared: all null if a segment has none of it, dates as moments."""
    if kind == "date":
        return pa.nulls(rows, INSTANT) if array is None else instants(array)
    return pa.nulls(rows, _READ_AS[kind]) if array is None else array


def _pattern(like: str) -> str:
    """The regular expression that stands for a pattern of like; "" if it would be too large."""
    jokers = {"%": ".*", "_": "."}
    parts = re.split("(%+|_)", like)
    pattern = rf"(?s)\A{''.join(jokers.get(part[:1]) or re.escape(part) for part in parts)}\z"
    try:
        pc.match_substring_regex(pa.array([""]), pattern=pattern)
    except pa.ArrowInvalid:
        return ""
    return pattern


def _contains(lists: Any, text: str) -> Any:
    """Whether each list has this string among its own; null for null."""
    found = np.zeros(len(lists), np.bool_)
    rows = pc.list_parent_indices(lists).to_numpy()
    found[rows[pc.equal(lists.flatten(), text).to_numpy(zero_copy_only=False)]] = True
    return pa.array(found, mask=lists.is_null().to_numpy(zero_copy_only=False))


def _among(array: Any, values: Sequence[Any]) -> Any:
    bounds = [_bound(value, array.type) for value in values]
    wanted = pa.array([bound for bound, exact in bounds if exact], array.type)
    return pc.if_else(array.is_valid(), pc.is_in(array, value_set=wanted), None)


def _compared(array: Any, operation: str, value: Any) -> Any:
    """Whether each value is =, < or <= another one; null for null."""
    bound, exact = _bound(value, array.type)
    if bound is None or (operation == "=" and not exact):
        return pc.if_else(array.is_valid(), operation != "=", None)
    compare = {"=": pc.equal, "<": pc.less, "<=": pc.less_equal if exact else pc.less}[operation]
    return compare(array, pa.scalar(bound, array.type))


def _bound(value: Any, kind: Any) -> tuple[Any, bool]:
    """The least value of an Arrow type that is not below another value, None if there is none; whether it is that one.

    Both 64-bit types of numbers are compared with what may lie between two of their values, or beyond them.
    """
    if kind == pa.int64():
        if value > _INT64_MAX:
            return None, False
        whole = math.ceil(value) if value > _INT64_MIN else _INT64_MIN
        return whole, whole == value
    if kind == pa.float64():
        try:
            near = float(value)
        except OverflowError:
            near = math.copysign(math.inf, value)
        near = math.nextafter(near, math.inf) if near < value else near
        return near + 0.0, near == value  # + 0.0: of the two zeros the one that is stored
    return value, True
