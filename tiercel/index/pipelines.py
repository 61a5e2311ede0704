"""What an index knows of pipelines: names for some, and how their scores are calibrated. JSON beside the manifest.

A pipeline is chosen when one asks, so it is no part of a commit: naming one touches no segment, and readers of any
commit may use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tiercel.data.files import write_text
from tiercel.errors import IndexStoreError, UsageError

PIPELINES = "pipelines.json"
CALIBRATIONS = "calibrations.json"

_Kept = TypeVar("_Kept")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def read_pipelines(index: Path) -> dict[str, str]:
    """Every named pipeline of an index; none: an empty dict. Raises IndexStoreError for a file of another form."""
    return _read(index / PIPELINES, str)


def read_calibrations(index: Path) -> dict[str, dict[str, Any]]:
    """What is kept of the calibration of each pipeline, by its string; none: an empty dict. Raises IndexStoreError."""
    return _read(index / CALIBRATIONS, dict)


def check_pipeline_name(name: str, reserved: tuple[str, ...]) -> None:
    """Raise UsageError for what cannot be a pipeline's name, such as that of a leg."""
    if not _NAME.fullmatch(name) or name in reserved:
        raise UsageError(
            f"the pipeline name {name!r}",
            expected=f"a letter, then letters, digits, _ or -, and none of {', '.join(reserved)}",
        )


def name_pipeline(index: Path, name: str, pipeline: str) -> None:
    """Give a pipeline a name in an index; one of that name is replaced."""
    _write(index / PIPELINES, {**read_pipelines(index), name: pipeline})


def keep_calibration(index: Path, pipeline: str, record: Mapping[str, Any]) -> None:
    """Keep plain values under a pipeline's string; those of before are replaced."""
    _write(index / CALIBRATIONS, {**read_calibrations(index), pipeline: dict(record)})


def _read(path: Path, kind: type[_Kept]) -> dict[str, _Kept]:
    if not path.is_file():
        return {}
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(value, kind) for value in found.values()):
        raise _damaged(path, "it is of another form")
    return found


def _write(path: Path, kept: Mapping[str, Any]) -> None:
    with write_text(path) as stream:
        stream.write(orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n")


def _damaged(path: Path, problem: str) -> IndexStoreError:
    return IndexStoreError(
        f"what is kept of pipelines cannot be read: {problem}",
        where=str(path),
        expected="one JSON object, as tiercel tune and tiercel calibrate write it",
        next_step="Correct the file or remove it.",
    )
