from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tiercel.models.quantize import Activations, choose_scale, quantize_graph, quantize_weights
from tiercel.models.runtime import Session

DRAW = np.random.default_rng(3)
WEIGHTS = DRAW.normal(size=(8, 5)).astype(np.float32)
ROWS = DRAW.normal(size=(64, 8)).astype(np.float32)


def test_weights_have_a_step_for_each_output() -> None:
    codes, steps = quantize_weights(np.array([[127, 0.5, 0], [-64, -1, 0]], np.float32))
    assert codes.tolist() == [[127, 64, 0], [-64, -127, 0]]
    np.testing.assert_allclose(steps, [1, 1 / 127, 1])


def test_a_scale_covers_the_values_and_codes_zero_exactly() -> None:
    seen = Activations([WEIGHTS], np.abs(ROWS).max(axis=0), ROWS)
    scale = choose_scale(seen)
    codes = np.clip(np.rint(ROWS / scale.divisors / scale.step) + scale.zero, 0, 255)
    decoded = (codes - np.float32(scale.zero)) * scale.step * scale.divisors
    assert 0 < scale.zero < 255
    assert np.abs(decoded - ROWS).mean() < 0.02


def test_an_outlying_column_is_moved_into_the_weights() -> None:
    rows = ROWS * np.array([100, 1, 1, 1, 1, 1, 1, 1], np.float32)
    seen = Activations([WEIGHTS], np.abs(rows).max(axis=0), rows)
    scale = choose_scale(seen)
    assert scale.divisors[0] > 5 * scale.divisors[1:].max()
    assert np.prod(scale.divisors.astype(np.float64)) == pytest.approx(1, rel=1e-3)


def test_values_of_one_sign_use_all_codes() -> None:
    rows = np.abs(ROWS)
    assert choose_scale(Activations([WEIGHTS], rows.max(axis=0), rows)).zero == 0


def _graph(path: Path) -> Path:
    """y = (e[ids] W + b) W', with an embedding that is large enough to be coded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    arrays: dict[str, NDArray[Any]] = {
        "e": DRAW.normal(size=(1 << 17, 8)),
        "w": WEIGHTS,
        "b": DRAW.normal(size=5),
        "v": DRAW.normal(size=(5, 5)),
    }
    nodes = [
        helper.make_node("Gather", ["e", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    given = helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["texts", "tokens", 5])
    initial = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in arrays.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [made], initial),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def _run_literally(path: Path, ids: NDArray[np.int64]) -> Any:
    """Codes made numbers and multiplied as such, as the graph's nodes say: what int8 kernels are to give."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(["y"], {"ids": ids})[0]


def test_a_graph_in_int8_gives_nearly_the_same_and_is_a_fourth_as_large(tmp_path: Path) -> None:
    source = _graph(tmp_path / "wide.onnx")
    target = tmp_path / "int8.onnx"
    samples = [{"ids": DRAW.integers(0, 1 << 17, size=(1, 9))} for _ in range(20)]
    assert quantize_graph(source, target, samples) == 2
    assert target.stat().st_size < 0.4 * source.stat().st_size
    ids = DRAW.integers(0, 1 << 17, size=(2, 6))
    (expected,), (found,) = (Session(path).run({"ids": ids}, ["y"]) for path in (source, target))
    np.testing.assert_allclose(found, _run_literally(target, ids), atol=1e-4)  # no product overflows
    assert 0 < np.abs(found - expected).max() < 0.05 * expected.std() + 0.1
    (alone,) = Session(target).run({"ids": ids[:1]}, ["y"])
    np.testing.assert_array_equal(alone[0], found[0])  # no scale depends on what else is in the run
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.onnx", "wide.onnx"]
