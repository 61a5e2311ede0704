"""Graphs for a GPU, where there is none: their arithmetic by onnx's own reference, with the packed kernels in NumPy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.tiny import load_torch, make_encoder, quiet
from tiercel.errors import ModelError
from tiercel.models.checkpoint import network
from tiercel.models.export_encoder import EncoderExport
from tiercel.models.gpu_graph import pack_graph, placeholder_attention
from tiercel.models.tracing import write_graph

TOKENS = np.array([[2, 9, 14, 30, 3], [2, 11, 3, 0, 0], [2, 7, 8, 3, 0]])
MASK = (TOKENS > 0).astype(np.int64)


def _kernels() -> list[Any]:
    from onnx.reference.op_run import OpRun

    class RemovePadding(OpRun):  # type: ignore[misc]
        op_domain = "com.microsoft"

        def _run(self, padded: Any, counts: Any) -> tuple[Any, ...]:
            places = np.arange(padded.shape[0] * padded.shape[1]).reshape(padded.shape[:2])
            is_token = np.arange(padded.shape[1]) < counts[:, np.newaxis]
            offsets = np.concatenate([places[is_token], places[~is_token]]).reshape(places.shape).astype(np.int32)
            cumulated = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            return padded[is_token], offsets, cumulated, np.array([counts.max()], np.int32)

    class RestorePadding(OpRun):  # type: ignore[misc]
        op_domain = "com.microsoft"

        def _run(self, packed: Any, offsets: Any) -> tuple[Any]:
            padded = np.zeros((offsets.size, packed.shape[1]), packed.dtype)
            padded[offsets.reshape(-1)[: len(packed)]] = packed
            return (padded.reshape(*offsets.shape, -1),)

    class PackedMultiHeadAttention(OpRun):  # type: ignore[misc]
        op_domain = "com.microsoft"

        def _run(self, *arrays: Any, num_heads: int, scale: float) -> tuple[Any]:
            query, key, value, bias, _offsets, cumulated = arrays
            assert bias is None
            result = np.zeros(query.shape, np.float32)
            for start, end in pairwise(cumulated):
                heads = [
                    part[start:end].astype(np.float32).reshape(end - start, num_heads, -1).transpose(1, 0, 2)
                    for part in (query, key, value)
                ]
                weights = np.exp(scale * heads[0] @ heads[1].transpose(0, 2, 1))
                weights /= weights.sum(axis=-1, keepdims=True)
                result[start:end] = (weights @ heads[2]).transpose(1, 0, 2).reshape(end - start, -1)
            return (result.astype(query.dtype),)

    class Gelu(OpRun):  # type: ignore[misc]
        op_domain = "com.microsoft"

        def _run(self, values: Any, approximate: Any = None) -> tuple[Any]:
            from scipy.special import erf

            wide = values.astype(np.float32)
            return ((wide * 0.5 * (1 + erf(wide / np.sqrt(2)))).astype(values.dtype),)

    class GatherElements(OpRun):  # type: ignore[misc]
        """onnx's own, at 1.23, takes one index of each row only."""

        op_domain = ""

        def _run(self, values: Any, places: Any, axis: int = 0) -> tuple[Any]:
            return (np.take_along_axis(values, places, axis=axis),)

    return [RemovePadding, RestorePadding, PackedMultiHeadAttention, Gelu, GatherElements]


@pytest.fixture
def packed(bert_folder: Path, tmp_path: Path) -> Path:
    export = EncoderExport(bert_folder)
    model = export.load()
    with placeholder_attention(network(model)):
        write_graph(export.graph(model, masked=True), tmp_path, next_step="")
    assert network(model).config._attn_implementation == "eager"
    with quiet():
        assert pack_graph(tmp_path / "model.onnx", tmp_path / "packed.onnx") == 2
    return tmp_path / "packed.onnx"


def test_a_packed_graph_gives_what_torch_gives(packed: Path, bert_folder: Path) -> None:
    import onnx
    import torch
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(packed)
    with quiet():
        evaluator = ReferenceEvaluator(model, new_ops=_kernels())
        (vectors, _) = evaluator.run(None, {"input_ids": TOKENS, "attention_mask": MASK})
        features = {"input_ids": torch.tensor(TOKENS), "attention_mask": torch.tensor(MASK)}
        with torch.no_grad():
            expected = load_torch(bert_folder)(features)["sentence_embedding"].numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=4e-3)


def test_a_packed_graph_is_valid_and_in_half_precision(packed: Path) -> None:
    import onnx

    model = onnx.load(packed)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("PackedMultiHeadAttention"), kinds.count("RemovePadding"), kinds.count("Softmax")) == (2, 1, 0)
    wide = [array.name for array in model.graph.initializer if array.data_type == onnx.TensorProto.FLOAT]
    assert [name for name in wide if "layer" in name] == []
    assert {given.type.tensor_type.elem_type for given in model.graph.output} == {onnx.TensorProto.FLOAT}


def test_without_a_gpu_only_its_kernels_are_missing(packed: Path) -> None:
    from tiercel.models import runtime

    if "cuda" in runtime.available_providers():
        pytest.skip("this installation has the CUDA provider")
    # Types and shapes are checked before kernels are looked for: what is missing is one that only a GPU has.
    with pytest.raises(ModelError, match=r"Failed to find kernel for com\.microsoft\.RemovePadding"):
        runtime.Session(packed)


def test_an_attention_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "plain")
    export = EncoderExport(folder)
    write_graph(export.graph(export.load(), masked=True), tmp_path, next_step="")
    with pytest.raises(ModelError, match=r"cannot be packed for a GPU: no attention of transformers' own.*fp32"):
        pack_graph(tmp_path / "model.onnx", tmp_path / "packed.onnx")
