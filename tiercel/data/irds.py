"""Collections by name: what of them does ir_datasets give? Its documents, queries and judgments, as records.

`irds:beir/scifact/test` names the set `beir/scifact/test`. The package finds its files, and fetches those that it does
not have. A path that is there is never taken for a name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from tiercel.data.files import Source, source_name
from tiercel.data.records import Record
from tiercel.errors import InputError

PREFIX = "irds:"

Part: TypeAlias = Literal["docs", "queries", "qrels"]

_TEXTS = ("text", "body", "contents")
_PLAIN = (str, int, float, bool, type(None))


def is_irds(source: Source) -> bool:
    """Whether a source is the name of a set, and no path."""
    return isinstance(source, str) and source.startswith(PREFIX) and not os.path.exists(source)


def item_of(name: str) -> Callable[[int], str]:
    """How messages call an item of a set."""
    return lambda number: f"{name} item {number}"


def irds_records(source: Source, part: Part) -> Iterator[tuple[int, Record]]:
    """The items of one part of a set as records, numbered from 1, with the field names that the set gives them.

    Fields that JSON has no form for, as bytes and nested tuples, are left out. An item without a field
    of text has as `text` what the set takes for its text, and as the rest its id alone.

    Raises InputError at the call where the package is missing, where it knows no such set, and where the set has no
    such part; and later for files that the package can neither find nor fetch.
    """
    name = source_name(source)
    items = getattr(_loaded(name, part), f"{part}_iter")
    return _read(items, name, part)


def _loaded(name: str, part: Part) -> Any:
    try:
        import ir_datasets
    except ImportError:
        raise InputError(
            "the package ir_datasets is not installed",
            where=name,
            next_step="Install it with: pip install 'tiercel[irds]'",
        ) from None
    try:
        found = ir_datasets.load(name.removeprefix(PREFIX))
    except KeyError:
        raise InputError(
            "ir_datasets knows no set of this name",
            where=name,
            expected="one as its catalogue spells it, such as irds:beir/scifact/test",
            next_step="List them with: ir_datasets list",
        ) from None
    if not found.has(part):
        has = [known for known in ("docs", "queries", "qrels") if found.has(known)]
        raise InputError(f"the set has no {part}", where=name, expected=f"a set with {part}; it has {', '.join(has)}")
    return found


def _read(items: Any, name: str, part: Part) -> Iterator[tuple[int, Record]]:
    with _reading(name):
        for number, item in enumerate(items(), 1):
            yield number, item._asdict() if part == "qrels" else _record_of(item)


def _record_of(item: Any) -> Record:
    record = {key: value for key, value in item._asdict().items() if _is_json(value)}
    if any(key in record for key in _TEXTS):
        return record
    return {key: record[key] for key in ("doc_id", "query_id") if key in record} | {"text": item.default_text()}


def _is_json(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    return isinstance(value, _PLAIN)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Raise InputError where the package cannot find, fetch or unpack a file of the set."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"ir_datasets cannot read it: {error}",
            where=name,
            next_step="Fetch the set where there is a network, or give local files",
        ) from error
