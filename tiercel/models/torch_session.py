"""A network run by torch itself, as a graph is: the baseline that an export has to beat on a GPU.

torch is imported inside functions: the extra `tiercel[torch]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models.tracing import TorchGraph


class TorchSession:
    """What would be traced, run by torch. Satisfies `tiercel.models.sessions.LoadedGraph`.

    Args:
        graph: its module is moved to the device and, on a GPU, to fp16.
        device: "cpu" or "cuda".

    Raises:
        ModelError: torch finds no such device.
    """

    def __init__(self, graph: TorchGraph, *, device: str) -> None:
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise ModelError("torch finds no CUDA device", next_step="Check the driver, and that torch is built for it")
        self._graph = graph
        self._device = device
        module = graph.module.to(device)
        self._module = module.half() if device == "cuda" else module

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` must be fed."""
        return tuple(self._graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` can give."""
        return tuple(self._graph.outputs)

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """One array per name in `outputs`, in that order."""
        import torch

        with torch.inference_mode():
            arguments = [torch.from_numpy(feeds[name]).to(self._device) for name in self.inputs]
            made = self._module(*arguments)
            by_name = dict(zip(self.outputs, made if isinstance(made, tuple) else (made,), strict=True))
            return [by_name[name].float().cpu().numpy() for name in outputs]
