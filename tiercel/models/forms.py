"""Which backend runs which precision on which provider? One table, and what is taken where nothing is said."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError


@dataclass(frozen=True, slots=True)
class Form:
    """How a model is run.

    Attributes:
        backend: the library that runs it.
        provider: the hardware it runs on: "cpu", "cuda" or "tensorrt".
        precision: number format of its matrix products.
    """

    backend: Backend
    provider: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision} on {self.provider}"


FORMS = (
    Form("onnxruntime", "cpu", "int8"),
    Form("onnxruntime", "cpu", "fp32"),
    Form("openvino", "cpu", "int8"),
    Form("openvino", "cpu", "bf16"),
    Form("openvino", "cpu", "fp32"),
    Form("onnxruntime", "cuda", "fp16"),
    Form("onnxruntime", "cuda", "fp32"),
    Form("onnxruntime", "tensorrt", "fp32"),
)
"""All that can run. Of those that fit what is asked, the first is taken."""

MASKED: frozenset[Precision] = frozenset({"fp16", "fp32"})
"""Precisions whose graphs take an attention mask, so that texts can be padded to a batch. The others run one text at a
time, which a CPU does fastest."""

_EXTRAS: dict[Backend, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "openvino": ("openvino", "tiercel[openvino]"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for; None leaves the choice to `tiercel export --bench`, if it was run, else to the table.

    Attributes:
        precision: number format of the matrix products.
        backend: what is to run the model.
        provider: "cpu", "cuda" or "tensorrt"; None for any, where a model is only written.
    """

    precision: Precision | None = None
    backend: Backend | None = None
    provider: str | None = "cpu"

    @property
    def is_open(self) -> bool:
        """Whether neither backend nor precision was asked for."""
        return self.precision is None and self.backend is None


def find_form(wanted: Wanted, *, where: str = "") -> Form:
    """The first form of the table that fits. Raises ModelError where none does, naming those of the provider."""
    fitting = [
        form
        for form in FORMS
        if wanted.provider in (None, form.provider)
        and wanted.precision in (None, form.precision)
        and wanted.backend in (None, form.backend)
    ]
    if fitting:
        return fitting[0]
    asked = " ".join(part for part in (wanted.backend, wanted.precision) if part)
    here = [f"{form.backend} {form.precision}" for form in FORMS if wanted.provider in (None, form.provider)]
    if not here:
        raise ModelError(f"unknown provider {wanted.provider!r}", expected=" or ".join(providers()), where=where)
    raise ModelError(
        f"{asked} does not run on {f'the provider {wanted.provider!r}' if wanted.provider else 'any provider'}",
        expected=f"one of {', '.join(here)}",
        next_step="Ask for one of these, or for another provider with TIERCEL_PROVIDER",
        where=where,
    )


def has_backend(backend: Backend) -> bool:
    """Whether the package of a backend is installed; it is not loaded."""
    return importlib.util.find_spec(_EXTRAS[backend][0]) is not None


def require_backend(backend: Backend) -> None:
    """Raise ModelError where the package of a backend is not installed."""
    if not has_backend(backend):
        raise ModelError(
            f"the model runs on {backend}, which is not installed",
            expected=f"the package {_EXTRAS[backend][0]}",
            next_step=f"`pip install '{_EXTRAS[backend][1]}'`, or ask for `--backend onnxruntime`",
        )


def providers() -> list[str]:
    """Every provider of the table, in its order."""
    return list(dict.fromkeys(form.provider for form in FORMS))
