"""An fp32 graph into an int8 one: products of whole numbers, with every scale fixed from sample texts.

A product X W keeps its value when a column of X is divided by a number and the row of W multiplied by it (SmoothQuant,
Xiao et al. 2023, section 4). That takes outliers out of the activations, which have one scale for all, into the
weights, which have one for each output. How far is searched for each array of activations, and so is the range of its
scale, by the error of the products. Written as QuantizeLinear and DequantizeLinear, which every runtime reads, and
with scales that do not depend on what is run: a text gives the same alone and beside others.

Needs the package `onnx`, of the extra `tiercel[torch]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rows of each array of activations that the search looks at; its largest values are taken over all.
_ROWS = 512

# How far outliers go into the weights, 0 not at all and 1 wholly; how much of the largest value has a code of its own.
_MIGRATIONS = (0.0, 0.5, 0.65, 0.8, 0.9, 1.0)
_COVERED = (1.0, 0.9, 0.8, 0.7, 0.6)

_TINY = 1e-5

# Smaller tables, as of positions, are not worth coding.
_LARGE = 1 << 20

Feeds = Mapping[str, NDArray[np.int64]]


class Scale(NamedTuple):
    """How an array of activations is coded: column c as round(x / divisors[c] / step) + zero, from 0 to 255."""

    divisors: NDArray[np.float32]
    step: np.float32
    zero: np.uint8


@dataclass(slots=True)
class Activations:
    """What sample texts give for one array of activations, and the weights that it is multiplied with.

    Attributes:
        weights: each float32 of shape (columns, outputs).
        largest: largest absolute value of each column, shape (columns,).
        rows: some of its rows, shape (rows, columns).
    """

    weights: list[NDArray[np.float32]]
    largest: NDArray[np.float32]
    rows: NDArray[np.float32]


def quantize_graph(source: Path, target: Path, samples: Sequence[Feeds]) -> int:
    """Write `source`, fp32, to `target` with every product with fixed weights in int8; how many there are.

    Weights have a step for each output, embeddings one for each token, which makes the file a fourth as large.
    `samples` are inputs of runs that show the usual size of activations.
    """
    import onnx

    model = onnx.load(source)
    weights = {array.name: array for array in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    for number, node in enumerate(products):
        node.name = f"product_{number}"
    seen = _calibrate(source, products, weights, samples)
    scales = {name: choose_scale(activations) for name, activations in seen.items()}
    _rewrite(model.graph, scales, {node.name for node in products}, weights)
    onnx.save(model, target)
    return len(products)


def choose_scale(seen: Activations) -> Scale:
    """The scale of least squared error of the products with all weights."""
    exact = [seen.rows @ weights for weights in seen.weights]
    migrations = [_divisors(seen, migration) for migration in _MIGRATIONS]
    divisors = min(migrations, key=lambda divisors: _error(seen, exact, _scale(seen, divisors, 1.0)))
    candidates = [_scale(seen, divisors, covered) for covered in _COVERED]
    return min(candidates, key=lambda scale: _error(seen, exact, scale))


def quantize_weights(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes from -127 to 127, int8 of the same shape (columns, outputs), and the step of each output, float32."""
    steps = (np.abs(weights).max(axis=0) / 127).astype(np.float32)
    steps[steps == 0] = 1
    return np.rint(weights / steps).astype(np.int8), steps


def _calibrate(
    source: Path, products: Sequence[Any], weights: Mapping[str, Any], samples: Sequence[Feeds]
) -> dict[str, Activations]:
    """By name, every array of activations that is multiplied with fixed weights."""
    from onnx import numpy_helper

    from tiercel.models.runtime import open_inside

    seen: dict[str, Activations] = {}
    for node in products:
        matrix = numpy_helper.to_array(weights[node.input[1]])
        empty = np.zeros((0, len(matrix)), np.float32)
        found = seen.setdefault(node.input[0], Activations([], np.zeros(len(matrix), np.float32), empty))
        found.weights.append(matrix)
    session = open_inside(source, list(seen))
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in seen}
    share = -(-_ROWS // len(samples))
    for feeds in samples:
        for name, array in zip(seen, session.run(feeds, list(seen)), strict=True):
            flat = array.reshape(-1, array.shape[-1])
            seen[name].largest = np.maximum(seen[name].largest, np.abs(flat).max(axis=0))
            rows[name].append(flat[np.linspace(0, len(flat) - 1, min(share, len(flat))).astype(int)])
    for name, parts in rows.items():
        seen[name].rows = np.concatenate(parts)
    return seen


def _divisors(seen: Activations, migration: float) -> NDArray[np.float32]:
    """The columns' divisors, geometric mean 1: |X|^migration / |W|^(1 - migration), by largest values."""
    if migration == 0.0:
        return np.ones_like(seen.largest)
    rows = np.max([np.abs(weights).max(axis=1) for weights in seen.weights], axis=0)
    logs = migration * np.log(np.maximum(seen.largest, _TINY)) - (1 - migration) * np.log(np.maximum(rows, _TINY))
    divisors: NDArray[np.float32] = np.exp(logs - logs.mean()).astype(np.float32)
    return divisors


def _scale(seen: Activations, divisors: NDArray[np.float32], covered: float) -> Scale:
    # The largest value of a column may be of either sign; the sampled rows tell which signs there are.
    divided = seen.rows / divisors
    reach = float((seen.largest / divisors).max())
    low, high = min(0.0, float(divided.min())), max(0.0, float(divided.max()))
    if high >= -low:
        high = reach
    else:
        low = -reach
    step = np.float32(max(covered * (high - low) / 255, _TINY))
    return Scale(divisors, step, np.uint8(np.clip(np.rint(-covered * low / step), 0, 255)))


def _error(seen: Activations, exact: Sequence[NDArray[np.float32]], scale: Scale) -> float:
    """Squared error of the products, all weights together."""
    codes = np.clip(np.rint(seen.rows / scale.divisors / scale.step) + scale.zero, 0, 255)
    decoded = (codes - np.float32(scale.zero)) * scale.step
    total = 0.0
    for weights, product in zip(seen.weights, exact, strict=True):
        codes_of_weights, steps = quantize_weights(weights * scale.divisors[:, np.newaxis])
        total += float(np.sum((decoded @ (codes_of_weights * steps) - product) ** 2, dtype=np.float64))
    return total


def _rewrite(graph: Any, scales: Mapping[str, Scale], products: set[str], weights: Mapping[str, Any]) -> None:
    """Replace the operands of the products by coded ones; activations are coded once for all that read them."""
    nodes = list(graph.node)
    del graph.node[:]
    coded: set[str] = set()
    for node in nodes:
        if node.name in products:
            name, matrix = node.input[0], node.input[1]
            if name not in coded:
                coded.add(name)
                _code_activations(graph, name, scales[name])
            _code_weights(graph, weights[matrix], node.name, scales[name].divisors)
            node.input[0], node.input[1] = f"{name}_decoded", f"{node.name}_weights"
        elif node.op_type == "Gather" and _is_embedding(weights.get(node.input[0])):
            _code_embeddings(graph, weights[node.input[0]], node)
            continue
        graph.node.append(node)
    left = {name for node in graph.node for name in node.input}
    for array in list(graph.initializer):
        if array.name in weights and array.name not in left:
            graph.initializer.remove(array)


def _is_embedding(array: Any) -> bool:
    return array is not None and len(array.dims) == 2 and array.dims[0] * array.dims[1] >= _LARGE


def _code_activations(graph: Any, name: str, scale: Scale) -> None:
    from onnx import helper, numpy_helper

    source = name
    if not np.all(scale.divisors == 1):
        graph.initializer.append(numpy_helper.from_array(1 / scale.divisors, f"{name}_factors"))
        graph.node.append(helper.make_node("Mul", [name, f"{name}_factors"], [f"{name}_smooth"]))
        source = f"{name}_smooth"
    step, zero = f"{name}_step", f"{name}_zero"
    graph.initializer.append(numpy_helper.from_array(np.array(scale.step), step))
    graph.initializer.append(numpy_helper.from_array(np.array(scale.zero), zero))
    graph.node.append(helper.make_node("QuantizeLinear", [source, step, zero], [f"{name}_codes"]))
    graph.node.append(helper.make_node("DequantizeLinear", [f"{name}_codes", step, zero], [f"{name}_decoded"]))


def _code_weights(graph: Any, array: Any, node: str, divisors: NDArray[np.float32]) -> None:
    from onnx import helper, numpy_helper

    codes, steps = quantize_weights(numpy_helper.to_array(array) * divisors[:, np.newaxis])
    names = [f"{node}_codes", f"{node}_steps", f"{node}_zeros"]
    for values, name in zip((codes, steps, np.zeros(len(steps), np.int8)), names, strict=True):
        graph.initializer.append(numpy_helper.from_array(values, name))
    graph.node.append(helper.make_node("DequantizeLinear", names, [f"{node}_weights"], axis=1))


def _code_embeddings(graph: Any, array: Any, node: Any) -> None:
    """Look up codes and steps in place of the embeddings that `node`, a Gather, looks up."""
    from onnx import TensorProto, helper, numpy_helper

    codes, steps = quantize_weights(numpy_helper.to_array(array).T)
    names = [f"{array.name}_codes", f"{array.name}_steps"]
    for values, name in zip((np.ascontiguousarray(codes.T), steps[:, np.newaxis]), names, strict=True):
        graph.initializer.append(numpy_helper.from_array(values, name))
    found = [f"{node.output[0]}_looked_up_{part}" for part in ("codes", "steps", "values")]
    for name, output in zip(names, found, strict=False):
        graph.node.append(helper.make_node("Gather", [name, node.input[1]], [output]))
    graph.node.append(helper.make_node("Cast", [found[0]], [found[2]], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Mul", [found[2], found[1]], [node.output[0]]))
