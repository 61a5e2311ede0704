"""What runs the networks where it is asked for: the one module that imports openvino."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from tiercel.config import Precision
from tiercel.errors import ModelError

# What is left of an int8 graph in floating point is bf16 where the processor has it: attention takes half the time.
_HINTS: dict[Precision, str] = {"int8": "bf16", "bf16": "bf16", "fp32": "f32"}

_DEVICE = "CPU"

_EXPORT_AGAIN = "Export the model again"


class OpenVinoSession:
    """One loaded graph on the CPU. `run` may be called from several threads at once, of which `workers` run.

    Each run has one thread, so it gives the same bits whatever else runs.

    Args:
        path: an ONNX file.
        precision: "fp32"; "bf16", which rounds the operands of an fp32 graph's products; "int8" for a quantised graph.
        workers: most runs at a time.

    Raises:
        ModelError: the file is missing or no valid model, or this processor does not compute in this precision.
    """

    def __init__(self, path: Path, *, precision: Precision, workers: int = 1) -> None:
        if not path.is_file():
            raise ModelError("no such file", expected="an ONNX model", next_step=_EXPORT_AGAIN, where=str(path))
        self._path = path
        core = openvino.Core()
        if precision == "bf16" and not has_bf16():
            raise ModelError(
                "this processor does not compute in bf16",
                expected="one with AVX512-BF16 or AMX",
                next_step="Ask for precision int8 or fp32",
            )
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision] if has_bf16() else "f32",
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": workers,
            "INFERENCE_NUM_THREADS": workers,
            "ENABLE_CPU_PINNING": False,  # other work shares the processors
        }
        try:
            self._model = core.compile_model(str(path), _DEVICE, settings)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot load it ({_last_line(error)})",
                expected="a valid ONNX model",
                next_step=_EXPORT_AGAIN,
                where=str(path),
            ) from error
        self._inputs = tuple(port.get_any_name() for port in self._model.inputs)
        self._outputs = tuple(port.get_any_name() for port in self._model.outputs)
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            self._requests.put(self._model.create_infer_request())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` must be fed."""
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` can give."""
        return self._outputs

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """Feed the named arrays through the graph.

        Shapes and dtypes are the graph's own; one array per name in `outputs`, in that order.
        Raises ModelError when the graph refuses the feeds or a kernel fails.
        """
        # OpenVINO would take what is missing from the run before.
        if set(feeds) != set(self._inputs):
            raise self._refusal(f"it was fed {', '.join(sorted(feeds))}")
        request = self._requests.get()
        try:
            request.infer(dict(feeds), share_inputs=True)
            return [np.array(request.get_tensor(name).data) for name in outputs]
        except RuntimeError as error:
            raise self._refusal(_last_line(error)) from error
        finally:
            self._requests.put(request)

    def _refusal(self, reason: str) -> ModelError:
        return ModelError(
            f"the model did not run ({reason})",
            expected=f"inputs {', '.join(self.inputs)}",
            next_step=_EXPORT_AGAIN,
            where=str(self._path),
        )


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 numbers."""
    return "BF16" in openvino.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
