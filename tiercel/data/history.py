"""Earlier turns of a conversation: as the field of a record, and as a file of their own."""

from __future__ import annotations

from typing import Any

from tiercel.data.files import Source, check_source, read_byte_lines, source_name
from tiercel.data.records import Record, described, json_values, line_of, located
from tiercel.errors import InputError

_TURN = 'a turn: a string, or an object with "text"'


def history_of(record: Record) -> tuple[str, ...]:
    """The earlier turns in a record's `history`, oldest first; none when it is not there or null."""
    turns = record.get("history")
    return () if turns is None else turns_in(turns, "history")


def turns_in(value: Any, key: str) -> tuple[str, ...]:
    """A list of turns, oldest first, that a record holds under `key`. Raises InputError for anything else."""
    if not isinstance(value, list):
        raise InputError(f"{described(value)} as {key!r}", expected="a list of strings, oldest first")
    for turn in value:
        if not isinstance(turn, str):
            raise InputError(f"{described(turn)} in {key!r}", expected="strings only")
    return tuple(value)


def read_history(source: Source) -> tuple[str, ...]:
    """The turns of a JSONL file or of standard input (`-`), one a line, oldest first; no lines: no turns.

    A line is a string, or an object with `text`, whose other keys are not kept. Raises InputError, with file and line,
    for anything else.
    """
    check_source(source)
    name = source_name(source)
    lines = json_values(read_byte_lines(source), name, expected=f"one JSON value per line, {_TURN}")
    return tuple(turn for _, turn in located(lines, _turn, line_of(name)))


def _turn(value: Any) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if isinstance(text, str):
        return text
    raise InputError(f"a line that holds {described(value)}", expected=_TURN)
