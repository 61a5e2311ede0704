"""Pipelines that an index has a name for: one JSON object beside the manifest, from name to pipeline string.

A pipeline is chosen when one asks, so it is no part of a commit: naming one touches no segment, and readers of any
commit may use it.
"""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from tiercel.data.files import write_text
from tiercel.errors import IndexStoreError, UsageError

PIPELINES = "pipelines.json"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def read_pipelines(index: Path) -> dict[str, str]:
    """Every named pipeline of an index; none: an empty dict. Raises IndexStoreError for a file of another form."""
    path = index / PIPELINES
    if not path.is_file():
        return {}
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _damaged(path, "not an object of strings")
    return found


def check_pipeline_name(name: str, reserved: tuple[str, ...]) -> None:
    """Raise UsageError for what cannot be a pipeline's name, such as that of a leg."""
    if not _NAME.fullmatch(name) or name in reserved:
        raise UsageError(
            f"the pipeline name {name!r}",
            expected=f"a letter, then letters, digits, _ or -, and none of {', '.join(reserved)}",
        )


def name_pipeline(index: Path, name: str, pipeline: str) -> None:
    """Give a pipeline a name in an index; one of that name is replaced."""
    kept = {**read_pipelines(index), name: pipeline}
    with write_text(index / PIPELINES) as stream:
        stream.write(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n")


def _damaged(path: Path, problem: str) -> IndexStoreError:
    return IndexStoreError(
        f"the named pipelines cannot be read: {problem}",
        where=str(path),
        expected="one JSON object, from name to pipeline string",
        next_step="Correct the file or remove it; tiercel tune writes it.",
    )
