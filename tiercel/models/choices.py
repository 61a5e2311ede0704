"""In which form is a model run when none is asked for? What `tiercel export --bench` found, kept beside the exports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tiercel.errors import ModelError
from tiercel.models.description import ModelFamily, ModelSource, cache_stem
from tiercel.models.forms import FORMS, Form

_FORMAT = 1


def choice_file(source: ModelSource, cache_dir: Path, *, family: ModelFamily, provider: str) -> Path:
    """Where the choice for a model on a provider is kept; other weights of the same name have a choice of their own."""
    return cache_dir / "models" / f"{cache_stem(source, family)}.{provider}.best.json"


def write_choice(path: Path, form: Form, measured: list[dict[str, Any]]) -> None:
    """Keep a form, with the figures that speak for it; the file is replaced in one step."""
    content = {"format": _FORMAT, "backend": form.backend, "precision": form.precision, "measured": measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)


def read_choice(source: ModelSource, cache_dir: Path, *, family: ModelFamily, provider: str) -> Form | None:
    """The form that is kept for a model; None where none was measured. Raises ModelError for one that says nothing."""
    path = choice_file(source, cache_dir, family=family, provider=provider)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        form = Form(content["backend"], provider, content["precision"])
        known = content["format"] == _FORMAT and form in FORMS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    if not known:
        raise _damaged(path, f"format {content['format']!r}, {form}")
    return form


def _damaged(path: Path, found: str) -> ModelError:
    return ModelError(
        found,
        expected=f"the choice of an export, format {_FORMAT}",
        next_step="Remove the file, or run `tiercel export --bench` again",
        where=str(path),
    )
