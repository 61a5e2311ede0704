"""A graph that is loaded and can be run, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiercel.models.description import GRAPH_FILE, ModelDescription
from tiercel.models.forms import Form, Wanted, find_form, require_backend


class LoadedGraph(Protocol):
    """One graph. `run` may be called from several threads at once."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` must be fed."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` can give."""

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """One array per name in `outputs`, in that order. Raises ModelError when the graph refuses the feeds."""


def resolved_provider(provider: str, tell: Callable[[str], None] | None = None) -> str:
    """The provider that "auto" means on this machine, told in a line; any other name as it is."""
    if provider != "auto":
        return provider
    from tiercel.models.runtime import best_provider

    name, reason = best_provider()
    if tell is not None:
        tell(f"provider auto: {name} ({reason})")
    return name


def require_form(form: Form) -> None:
    """Raise ModelError where the package or the provider of a form is not there."""
    require_backend(form.backend)
    if form.provider != "cpu":
        from tiercel.models.runtime import check_provider

        check_provider(form.provider)


def open_graph(folder: Path, form: Form, *, workers: int = 1) -> LoadedGraph:
    """Load the graph of a folder for `workers` runs at a time, each of one thread on the CPU.

    Raises ModelError where the graph is none, or the package or the provider of the form is not there.
    """
    require_backend(form.backend)
    if form.backend == "openvino":
        from tiercel.models.openvino_runtime import OpenVinoSession

        return OpenVinoSession(folder / GRAPH_FILE, precision=form.precision, workers=workers)
    from tiercel.models.runtime import Session

    return Session(folder / GRAPH_FILE, provider=form.provider)


def open_exported(folder: Path, about: ModelDescription, *, provider: str, workers: int) -> LoadedGraph:
    """The same of an exported model, on a provider. Raises ModelError also where its precision does not run there."""
    form = find_form(Wanted(about.precision, about.backend, provider), where=str(folder))
    return open_graph(folder, form, workers=workers)
