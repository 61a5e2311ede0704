"""A graph for a GPU: padding left out, attention in one kernel, numbers of 16 bits.

The network is traced with a placeholder in place of its attention. Then the tokens of a batch are put one after the
other without their padding (RemovePadding), every placeholder becomes onnxruntime's PackedMultiHeadAttention, which
knows where texts begin, and padding comes back before pooling or the head (RestorePadding). What stays fp32: what the
kernels of softmax and LayerNorm add up, and the arrays that go in and out.

torch and onnx are imported inside functions: the extra `tiercel[torch]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiercel.errors import ModelError
from tiercel.models.texts import MASK_INPUT

_ATTENTION = "tiercel"
_PLACEHOLDER = "FusedAttention"
_PACKED = "PackedMultiHeadAttention"
_DOMAIN = "com.microsoft"


@contextlib.contextmanager
def placeholder_attention(network: Any) -> Iterator[None]:
    """While it lasts, a transformers network is traced with placeholders in place of its attention.

    A network that does not take its attention from transformers' register is traced as it is.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(_ATTENTION, _traced_attention())
    AttentionMaskInterface.register(_ATTENTION, lambda *, attention_mask=None, **_: attention_mask)
    before = network.config._attn_implementation
    network.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


def pack_graph(source: Path, target: Path) -> int:
    """Write a traced `source` to `target` without padding and in fp16; how many attention kernels it has.

    Raises ModelError where the placeholders are not found as BERT and its kin have them.
    """
    import onnx

    from tiercel.models.runtime import in_half_precision

    model = onnx.load(source)
    attention = [node for node in model.graph.node if node.op_type == _PLACEHOLDER]
    if not attention:
        raise _unknown("no attention of transformers' own in it")
    _leave_padding_out(model.graph, attention)
    _prune(model.graph)
    _sort(model.graph)
    if all(opset.domain != _DOMAIN for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    for opset in [opset for opset in model.opset_import if opset.domain == _ATTENTION]:
        model.opset_import.remove(opset)
    onnx.save(in_half_precision(model), target)
    return len(attention)


def _traced_attention() -> Any:
    import torch

    class Placeholder(torch.autograd.Function):  # type: ignore[misc]
        """softmax(scale Q K^T) V; all of shape (texts, heads, tokens, size), the result with heads behind tokens."""

        @staticmethod
        def forward(_ctx: Any, query: Any, key: Any, value: Any, scale: float, _heads: int) -> Any:
            weights = torch.softmax(query @ key.transpose(2, 3) * scale, dim=-1)
            return (weights @ value).transpose(1, 2).contiguous()

        @staticmethod
        def symbolic(graph: Any, query: Any, key: Any, value: Any, scale: float, heads: int) -> Any:
            made = graph.op(f"{_ATTENTION}::{_PLACEHOLDER}", query, key, value, num_heads_i=heads, scale_f=scale)
            return made.setType(query.type().with_sizes([None] * 4))

    def attention(_module: Any, query: Any, key: Any, value: Any, _mask: Any, scaling: float, **_: Any) -> Any:
        return Placeholder.apply(query, key, value, scaling, int(query.shape[1])), None

    return attention


def _leave_padding_out(graph: Any, attention: list[Any]) -> None:
    from onnx import TensorProto, helper, numpy_helper

    made_by = {name: node for node in graph.node for name in node.output}
    first = _one_of(made_by, _before_heads(made_by, attention[0].input[0]), "MatMul")
    padded = first.input[0]
    last = [node for node in graph.node if node.op_type == "LayerNormalization"][-1]
    for node in graph.node:
        if node.op_type != "Shape":
            node.input[:] = [f"{padded}_packed" if name == padded else name for name in node.input]
    for number, node in enumerate(attention):
        sources = [_before_heads(made_by, name) for name in node.input]
        merged = [other for other in graph.node if other.op_type == "Reshape" and other.input[0] == node.output[0]]
        if len(merged) != 1:
            raise _unknown("the heads of its attention are not put together in one step")
        inputs = [*sources, "", "token_offset", "cumulated_tokens"]
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        packed = helper.make_node(_PACKED, inputs, list(merged[0].output), f"attention_{number}", domain=_DOMAIN)
        packed.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        graph.node.remove(merged[0])
        graph.node.remove(node)
        graph.node.append(packed)
    end = last.output[0]
    last.output[0] = f"{end}_packed"
    graph.initializer.append(numpy_helper.from_array(_axis(), "tokens_axis"))
    counts = ["sequence_tokens", "token_offset", "cumulated_tokens", "longest"]
    graph.node.extend(
        [
            helper.make_node("Cast", [MASK_INPUT], ["mask_of_tokens"], to=TensorProto.INT32),
            helper.make_node("ReduceSum", ["mask_of_tokens", "tokens_axis"], [counts[0]], keepdims=0),
            helper.make_node("RemovePadding", [padded, counts[0]], [f"{padded}_packed", *counts[1:]], domain=_DOMAIN),
            helper.make_node("RestorePadding", [f"{end}_packed", counts[1]], [end], domain=_DOMAIN),
        ]
    )


def _axis() -> Any:
    import numpy as np

    return np.array([1], np.int64)


def _before_heads(made_by: dict[str, Any], name: str) -> str:
    """What was cut into heads, shape (texts, tokens, heads times size), to make the array of this name."""
    turned = _one_of(made_by, name, "Transpose")
    cut: str = _one_of(made_by, turned.input[0], "Reshape").input[0]
    return cut


def _one_of(made_by: dict[str, Any], name: str, kind: str) -> Any:
    """The node of a kind that made an array, through an addition of a bias."""
    node = made_by.get(name)
    if node is not None and node.op_type == "Add" and kind != "Add":
        node = next((made_by[part] for part in node.input if part in made_by), None)
    if node is None or node.op_type != kind:
        raise _unknown(f"{'nothing' if node is None else node.op_type} where {kind} makes the heads of its attention")
    return node


def _prune(graph: Any) -> None:
    """Take out what nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        dead = [node for node in graph.node if not read & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for array in [array for array in graph.initializer if array.name not in read]:
        graph.initializer.remove(array)


def _sort(graph: Any) -> None:
    """Put every node behind those that it reads."""
    there = {"", *(array.name for array in graph.initializer), *(given.name for given in graph.input)}
    waiting, done = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if there.issuperset(node.input)]
        if not ready:
            raise _unknown("a circle where padding is left out")
        for node in ready:
            there.update(node.output)
        done += ready
        waiting = [node for node in waiting if not there.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(done)


def _unknown(found: str) -> ModelError:
    return ModelError(
        f"the graph cannot be packed for a GPU: {found}",
        expected="a network of the BERT family",
        next_step="Ask for precision fp32, which is run padded",
    )
