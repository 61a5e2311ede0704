"""What runs the networks: the one module that imports onnxruntime.

A session names its provider, and a provider that does not run is an error, never a quiet fall to another one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from tiercel.errors import ModelError

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

# What "auto" tries, best first. TensorRT builds an engine for minutes at the first run, so it has to be asked for.
_AUTO = ("cuda", "cpu")

# y = x + x, as onnx would write it: what a provider must run to count as running.
_SMALLEST_GRAPH = bytes.fromhex(
    "08083a370a0e0a01780a017812017922034164641201675a100a0178120b0a0908"
    "0112050a0312016e62100a0179120b0a09080112050a0312016e42040a001011"
)

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")

# onnxruntime derives each of these straight from Exception; there is no common base to catch.
_ORT_ERRORS = (
    _state.EPFail,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoModel,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
)

# The CPU kernel of SkipLayerNormalization adds up each row one number at a time. Left apart, Add and
# LayerNormalization are vectorised: 1.1 ms against 2.7 to 5.5 ms of a 15 to 21 ms text (MiniLM-L6, 240 tokens).
_SLOW_ON_CPU = ["SkipLayerNormFusion"]

_LOG_ERRORS_ONLY = 3

_GPU_ARENA_BYTES = 4 * 1024**3

_EXPORT_AGAIN = "Export the model again"


class Session:
    """One loaded graph on one provider. `run` may be called from several threads at once.

    Args:
        path: an ONNX file.
        provider: "cpu", "cuda" or "tensorrt"; the memory arena of a GPU is bounded. On the CPU there is no arena: a
            run's memory is given back when it ends, so the runs in flight, bounded in tokens, are all that is held.
        threads: threads inside one run. With 1, a run gives the same bits whatever else the machine does.

    Raises:
        ModelError: the file is missing or no valid model, the provider is unknown, not installed, or does not start.
    """

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int = 1) -> None:
        check_provider(provider)
        if not path.is_file():
            raise ModelError("no such file", expected="an ONNX model", next_step=_EXPORT_AGAIN, where=str(path))
        try:
            self._session = _load(str(path), provider, threads=threads)
        except _ORT_ERRORS as error:
            raise ModelError(
                f"onnxruntime cannot load it ({_first_line(error)})",
                expected="a valid ONNX model",
                next_step=_EXPORT_AGAIN,
                where=str(path),
            ) from error
        self._session.disable_fallback()
        self._path = path
        self._device = "cpu" if provider == "cpu" else "cuda"
        self._inputs = tuple(node.name for node in self._session.get_inputs())
        require_provider(provider, self._session.get_providers())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` must be fed."""
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that `run` can give."""
        return tuple(node.name for node in self._session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """Feed the named arrays through the graph.

        Shapes and dtypes are the graph's own; one array per name in `outputs`, in that order.
        Raises ModelError when the graph refuses the feeds or a kernel fails.
        """
        try:
            if self._device != "cpu":
                return self.run_bound(feeds, outputs)
            return list(self._session.run(list(outputs), dict(feeds)))
        except (*_ORT_ERRORS, ValueError) as error:  # onnxruntime reports a missing feed as ValueError
            raise ModelError(
                f"the model did not run ({_first_line(error)})",
                expected=f"inputs {', '.join(self.inputs)}",
                next_step=_EXPORT_AGAIN,
                where=str(self._path),
            ) from error

    def run_bound(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The same with arrays that are put on the device once, and only the results brought back."""
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0))
        for name in outputs:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


def best_provider() -> tuple[str, str]:
    """The best provider that really runs a graph here, and why it and no better one."""
    passed: list[str] = []
    for name in _AUTO:
        reason = why_not(name)
        if not reason:
            return name, "; ".join(passed) or "it runs"
        passed.append(f"{name}: {reason}")
    raise ModelError(f"no provider runs ({'; '.join(passed)})", next_step="Check the machine with `tiercel doctor`")


@functools.cache
def why_not(provider: str) -> str:
    """In words, why a provider does not run the smallest graph here; "" where it does. Looked at once."""
    if provider not in available_providers():
        return "not in this installation of onnxruntime"
    try:
        session = _load(_SMALLEST_GRAPH, provider, threads=1)
        session.disable_fallback()
        require_provider(provider, session.get_providers())
        (doubled,) = session.run(None, {"x": np.ones(3, np.float32)})
    except (*_ORT_ERRORS, ModelError) as error:
        return f"it does not start ({_first_line(error)})"
    return "" if doubled.tolist() == [2.0, 2.0, 2.0] else f"it gives 1 + 1 = {doubled[0]}"


def available_providers() -> list[str]:
    """The provider names that this installation can be asked for, "cpu" first."""
    installed = set(onnxruntime.get_available_providers())
    return [name for name, full_name in _PROVIDERS.items() if full_name in installed]


def installed_distributions() -> dict[str, str]:
    """Name and version of each installed package that owns the module `onnxruntime`.

    More than one is a fault: they overwrite each other's files, and which one runs is chance.
    """
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def has_conflicting_distributions() -> bool:
    """Whether both onnxruntime and onnxruntime-gpu are installed."""
    return len(installed_distributions()) > 1


def require_provider(provider: str, running: Sequence[str]) -> None:
    """Raise ModelError unless `provider` is the first of the providers that a session says it runs on."""
    if not running or running[0] != _PROVIDERS[provider]:
        raise ModelError(
            f"the provider {provider!r} was asked for, but {', '.join(running) or 'none'} would run",
            expected=_PROVIDERS[provider],
            next_step="Check the driver and the CUDA libraries with `tiercel doctor`, or ask for provider 'cpu'",
        )


def fuse_graph(source: Path, target: Path) -> dict[str, int]:
    """Write `source` to `target` with its GELU and LayerNorm subgraphs fused; how many of each operator were made.

    Attention and SkipLayerNormalization are left unfused: on the CPU their fused kernels are the slower ones
    (MiniLM-L6 int8, 240 tokens: 98 texts/s fused, 150 unfused). An empty result means that nothing was recognised.
    Needs the package `onnx`.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.enable_attention = False
    options.enable_embed_layer_norm = False
    options.enable_skip_layer_norm = False
    options.enable_bias_skip_layer_norm = False
    options.enable_bias_gelu = False  # the int8 product adds the bias itself
    fused = optimizer.optimize_model(
        str(source), model_type="bert", num_heads=0, hidden_size=0, opt_level=0, optimization_options=options
    )
    fused.save_model_to_file(str(target))
    statistics: Mapping[str, int] = fused.get_fused_operator_statistics()
    return {name: count for name, count in statistics.items() if count}


def in_half_precision(model: Any) -> Any:
    """An onnx model with its fp32 numbers in fp16, but for what goes in and out. Needs the package `onnx`."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Types are not inferred: onnx does not know the operators of onnxruntime.
    return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)


def open_inside(path: Path, names: Sequence[str]) -> Session:
    """The graph of a file, giving these of its inner arrays, float32, beside its outputs. Needs the package `onnx`."""
    import onnx

    model = onnx.load(path)
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    inside = path.with_name(f"{path.stem}.inside.onnx")
    onnx.save(model, inside)
    try:
        return Session(inside)
    finally:
        inside.unlink()


def check_provider(provider: str) -> None:
    """Raise ModelError for a provider that is not known or not in this installation."""
    if provider not in _PROVIDERS:
        raise ModelError(f"unknown provider {provider!r}", expected=" or ".join(_PROVIDERS))
    if provider not in available_providers():
        raise ModelError(
            f"the provider {provider!r} is not in this installation of onnxruntime",
            expected=f"one of {', '.join(available_providers())}",
            next_step="Replace onnxruntime by onnxruntime-gpu (`tiercel[gpu]`), or ask for provider 'cpu'",
        )


def _load(graph: str | bytes, provider: str, *, threads: int) -> Any:
    if provider != "cpu":
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
    # TensorRT leaves to CUDA what it has no kernel for; neither leaves anything to the CPU.
    names = ["tensorrt", "cuda"] if provider == "tensorrt" else [provider]
    return onnxruntime.InferenceSession(
        graph,
        _session_options(threads),
        providers=[(_PROVIDERS[name], _provider_options(name)) for name in names],
        disabled_optimizers=_SLOW_ON_CPU if provider == "cpu" else None,
    )


def _provider_options(provider: str) -> dict[str, str]:
    if provider == "cuda":
        return {"gpu_mem_limit": str(_GPU_ARENA_BYTES), "arena_extend_strategy": "kSameAsRequested"}
    if provider == "tensorrt":
        return {"trt_max_workspace_size": str(_GPU_ARENA_BYTES), "trt_engine_cache_enable": "0"}
    return {}


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    # An arena would keep its largest extent for good, and is slower when two runs share it: 291 against 324 texts/s
    # (MiniLM-L6 int8, 128 tokens, two runs at a time). Memory plans are kept per input shape: one per text length.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Where a processor has no VNNI, sums of two int8 products overflow their 16 bits and are cut off, in silence. This
    # takes wider ones there, and changes nothing elsewhere.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
