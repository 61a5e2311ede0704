"""A torch module into an ONNX graph: traced, fused where the architecture is known, quantised where asked.

torch is imported inside functions: the extra `tiercel[torch]`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiercel.errors import ModelError
from tiercel.models.description import GRAPH_FILE
from tiercel.models.quantize import Feeds

# The last opset that the TorchScript exporter writes LayerNormalization in and the fuser knows throughout.
_OPSET = 17

# Architectures whose GELU and LayerNorm subgraphs onnxruntime's fuser recognises.
_FUSABLE = frozenset({"bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"})

# Any sizes that differ from each other and from 1, which an exporter would take for a constant.
_EXAMPLE_SIZES = (2, 7, 5)

TEXT_AXES = ("texts", "tokens")
"""Axes of the inputs of a graph that reads texts or pairs, each of which varies."""


@dataclass(frozen=True, slots=True)
class TorchGraph:
    """What is to be traced.

    Attributes:
        module: a torch module in evaluation mode whose arguments are the arrays of `inputs`, in that order.
        inputs: int64 arrays, by name; for each the names of its axes, all of which vary. One name is one size.
        outputs: for each result of the module, in order, its axes that vary, by position.
        architecture: the model type as transformers names it.
    """

    module: Any
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Mapping[int, str]]
    architecture: str


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """What was written: the operators the fuser made, by name, and the whole of it in words."""

    fused: Mapping[str, int]
    summary: str


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow the warnings, log lines and progress bars of the libraries; their errors pass."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def write_graph(graph: TorchGraph, folder: Path, *, next_step: str) -> WrittenGraph:
    """Write model.onnx into `folder`; what was done is said, not assumed.

    Raises ModelError, with `next_step`, when neither of torch's exporters can write it.
    """
    plain = folder / "plain.onnx"
    exporter = _trace(graph, plain, next_step=next_step)
    fused: dict[str, int] = {}
    if graph.architecture in _FUSABLE:
        from tiercel.models import runtime

        with quiet():
            fused = runtime.fuse_graph(plain, folder / GRAPH_FILE)
    if fused:
        plain.unlink()
        made = ", ".join(f"{count} {name}" for name, count in sorted(fused.items()))
        return WrittenGraph(fused, f"{exporter} exporter, fused: {made}")
    plain.replace(folder / GRAPH_FILE)
    reason = (
        "nothing was recognised" if graph.architecture in _FUSABLE else f"unknown architecture {graph.architecture}"
    )
    return WrittenGraph(fused, f"{exporter} exporter, plain graph: {reason}")


def quantize(folder: Path, samples: Sequence[Feeds]) -> None:
    """Replace the fp32 model.onnx in `folder` by its int8 form; `samples` are inputs of runs, to set its scales by."""
    from tiercel.models.quantize import quantize_graph

    wide = folder / "fp32.onnx"
    (folder / GRAPH_FILE).replace(wide)
    with quiet():
        quantize_graph(wide, folder / GRAPH_FILE, samples)
    wide.unlink()


def _trace(graph: TorchGraph, path: Path, *, next_step: str) -> str:
    """Write the graph with the exporter whose output can be fused, else with torch's newer one; the one that did."""
    import torch

    # Ones are tokens of every vocabulary, a mask that hides nothing, and a type that every model with types has.
    names = dict.fromkeys(axis for axes in graph.inputs.values() for axis in axes)
    sizes = dict(zip(names, _EXAMPLE_SIZES, strict=False))
    arguments = tuple(torch.ones([sizes[axis] for axis in axes], dtype=torch.long) for axes in graph.inputs.values())
    common = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    varying = {name: dict(enumerate(axes)) for name, axes in graph.inputs.items()} | {
        name: dict(axes) for name, axes in graph.outputs.items()
    }
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                graph.module, arguments, str(path), **common, dynamic_axes=varying, opset_version=_OPSET, dynamo=False
            )
        return "TorchScript"
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return _trace_with_dynamo(graph.module, arguments, path, common, next_step=next_step)


def _trace_with_dynamo(
    module: Any, arguments: tuple[Any, ...], path: Path, common: Mapping[str, Any], *, next_step: str
) -> str:
    import torch

    shapes = tuple(dict.fromkeys(range(array.dim()), torch.export.Dim.DYNAMIC) for array in arguments)
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                arguments,
                str(path),
                **common,
                dynamic_shapes=shapes,
                external_data=False,
                dynamo=True,
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"torch cannot write it as ONNX ({str(error).strip().partition(chr(10))[0]})",
            expected="an architecture that torch.onnx.export supports",
            next_step=next_step,
        ) from error
    return "dynamo"
