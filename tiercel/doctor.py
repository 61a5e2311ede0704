"""Is this machine fit to run Tiercel, and what will it run on? Checks that change nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tiercel.config import Settings
from tiercel.errors import ModelError

Status = Literal["ok", "note", "fails"]

_NEEDED = (
    "numpy", "pyarrow", "faiss-cpu", "onnxruntime", "tokenizers", "numba", "PyStemmer", "typer", "rich", "ir-measures",
    "filelock", "platformdirs", "beautifulsoup4", "orjson", "huggingface-hub", "sentencex",
)  # fmt: skip
_OPTIONAL = dict.fromkeys(("torch", "sentence-transformers", "onnx", "onnxscript"), "exporting models")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `ok`, worth a `note`, or it `fails` and something will not work."""

    name: str
    status: Status
    found: str


def examine(settings: Settings) -> list[Check]:
    """Every check, in reading order."""
    return [*_machine(settings), *_packages(), *_runtime(), *_models(settings), *_cache(settings)]


def _machine(settings: Settings) -> Iterator[Check]:
    found = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {settings.threads} threads"
    yield Check("machine", "ok", found)
    yield Check("network", "ok", "offline: no hub is asked" if settings.offline else "a model hub may be asked by name")


def _packages() -> Iterator[Check]:
    from tiercel import __version__

    yield Check("tiercel", "ok", __version__)
    for name in _NEEDED:
        version = _version(name)
        if version is None and name == "onnxruntime" and _version("onnxruntime-gpu"):
            continue
        if version is None:
            yield Check(name, "fails", f"not installed: pip install {name}")
        else:
            yield Check(name, "ok", version)
    for name, purpose in _OPTIONAL.items():
        version = _version(name)
        missing = f"not installed; needed for {purpose}: pip install 'tiercel[torch]'"
        yield Check(name, "note" if version is None else "ok", version or missing)


def _runtime() -> Iterator[Check]:
    try:
        from tiercel.models.runtime import available_providers, has_conflicting_distributions
    except ImportError as error:  # not installed, or not for this machine: the very thing that is asked here
        yield Check("providers", "fails", f"onnxruntime cannot be loaded ({error})")
        return
    if has_conflicting_distributions():
        yield Check(
            "onnxruntime twice",
            "fails",
            "onnxruntime and onnxruntime-gpu are both installed and own the same module: pip uninstall both, then "
            "install the one you want",
        )
    yield Check("providers", "ok", ", ".join(available_providers()))


def _models(settings: Settings) -> Iterator[Check]:
    from tiercel.models.zoo import find_source, known_names

    for name in known_names():
        try:
            source = find_source(name, offline=True)
        except ModelError as error:
            yield Check(f"encoder {name}", "note", str(error))
        else:
            yield Check(f"encoder {name}", "ok", source.origin)
    folder = settings.cache_dir / "models"
    exported = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    yield Check("exported models", "ok", ", ".join(exported) or "none yet: the first index makes one")


def _cache(settings: Settings) -> Iterator[Check]:
    folder = settings.cache_dir
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        yield Check("cache", "ok", str(folder))
    else:
        problem = "cannot be written" if nearest.is_dir() else "is a file"
        yield Check("cache", "fails", f"{nearest} {problem}: set TIERCEL_CACHE_DIR to a folder that can be written")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
