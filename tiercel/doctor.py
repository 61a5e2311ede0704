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
    "filelock", "platformdirs", "beautifulsoup4", "orjson", "huggingface-hub", "sentencex", "scipy",
)  # fmt: skip
_OPTIONAL = {
    **dict.fromkeys(("torch", "sentence-transformers", "onnx", "onnxscript"), ("exporting models", "torch")),
    "openvino": ("running models with OpenVINO", "openvino"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `ok`, worth a `note`, or it `fails` and something will not work."""

    name: str
    status: Status
    found: str


def examine(settings: Settings) -> list[Check]:
    """Every check, in reading order."""
    return [*_machine(settings), *_packages(), *_runtime(settings), *_models(settings), *_cache(settings)]


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
    for name, (purpose, extra) in _OPTIONAL.items():
        version = _version(name)
        missing = f"not installed; needed for {purpose}: pip install 'tiercel[{extra}]'"
        yield Check(name, "note" if version is None else "ok", version or missing)


def _runtime(settings: Settings) -> Iterator[Check]:
    try:
        from tiercel.models.runtime import has_conflicting_distributions
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
    yield from _providers(settings)
    yield from _openvino()


def _providers(settings: Settings) -> Iterator[Check]:
    """Which providers run a graph here, and which cannot be tried."""
    from tiercel.models.forms import FORMS, providers
    from tiercel.models.runtime import available_providers, best_provider, check_provider, why_not

    there = available_providers()
    yield Check("providers", "ok", ", ".join(there))
    for name in providers():
        precisions = [form.precision for form in FORMS if (form.backend, form.provider) == ("onnxruntime", name)]
        reason = why_not(name)
        if not reason:
            yield Check(f"onnxruntime on {name}", "ok", f"runs {', '.join(precisions)}")
        elif name in there:
            yield Check(f"onnxruntime on {name}", "fails", reason)
        else:
            yield Check(f"onnxruntime on {name}", "note", f"could not be tried: {reason}; see tiercel[gpu]")
    try:
        if settings.provider == "auto":
            yield Check("provider asked for", "ok", "auto: {} ({})".format(*best_provider()))
        else:
            check_provider(settings.provider)
            yield Check("provider asked for", "ok", settings.provider)
    except ModelError as error:
        yield Check("provider asked for", "fails", str(error))


def _openvino() -> Iterator[Check]:
    if _version("openvino") is None:
        return
    try:
        from tiercel.models.openvino_runtime import has_bf16
    except ImportError as error:
        yield Check("openvino on cpu", "fails", f"openvino cannot be loaded ({error})")
        return
    if has_bf16():
        yield Check("openvino on cpu", "ok", "runs int8, bf16, fp32")
    else:
        yield Check("openvino on cpu", "note", "runs int8, fp32; this processor does not compute in bf16")


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
    yield Check("exported models", "ok", ", ".join(exported) or "none yet")


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
