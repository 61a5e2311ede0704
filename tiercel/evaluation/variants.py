"""What else could a pipeline be? Its neighbours, one thing changed at a time, in the order in which it is tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from tiercel.retrieve.fusion import FusionMethod
from tiercel.retrieve.spec import Leg, PipelineSpec, Recall, RerankStage

K1 = (0.6, 0.9, 1.2, 1.6)
B = (0.2, 0.4, 0.6, 0.8)
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
DEPTHS = (10, 20, 50, 100, 200)


def of_bm25(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    """The pipeline with k1 and b from a grid, where BM25 is among its legs and its own are not said."""
    for position, leg in enumerate(spec.recall.legs):
        if leg == Leg("bm25", weight=leg.weight):
            for k1, b in product(K1, B):
                yield _with_leg(spec, position, replace(leg, model=f"k1={k1:g}:b={b:g}"))


def of_legs(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    """The pipeline with one of its legs alone, where there are several."""
    if len(spec.recall.legs) > 1:
        for leg in spec.recall.legs:
            yield replace(spec, recall=Recall((replace(leg, weight=1.0),), keep=spec.recall.keep))


def of_fusion(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    """The pipeline with other weights of its last leg, the others' being 1, under min-max and reciprocal ranks."""
    legs = spec.recall.legs
    if len(legs) > 1:
        plain = tuple(replace(leg, weight=1.0) for leg in legs[:-1])
        for fusion, weight in product((FusionMethod.MINMAX, FusionMethod.RRF), WEIGHTS):
            recall = Recall((*plain, replace(legs[-1], weight=weight)), fusion, spec.recall.keep)
            yield replace(spec, recall=recall)


def of_stages(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    """The pipeline without one of the stages that rerank, and with one fused with what it reranks or not."""
    for position, stage in enumerate(spec.reranks):
        yield replace(spec, reranks=(*spec.reranks[:position], *spec.reranks[position + 1 :]))
        for fusion, weight in ((None, 1.0), (FusionMethod.MINMAX, 1.0), (FusionMethod.MINMAX, 2.0)):
            yield _with_stage(spec, position, replace(stage, fusion=fusion, weight=weight))


def of_depths(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    """The pipeline with more or fewer candidates for one of the stages that rerank, no stage widening the list."""
    for position in range(len(spec.reranks)):
        for depth in DEPTHS:
            keeps = list(spec.keeps)
            keeps[position] = depth
            after = [keep for keep in keeps[position + 1 :] if keep is not None]
            before = [keep for keep in keeps[:position] if keep is not None]
            if max(after, default=0) <= depth <= min(before, default=depth):
                yield _with_keep(spec, position, depth)


Propose = Callable[[PipelineSpec], Iterator[PipelineSpec]]

OF_RECALL: tuple[Propose, ...] = (of_bm25, of_fusion, of_legs)
OF_RERANKING: tuple[Propose, ...] = (of_depths, of_stages)
"""In this order; each starts from the best of the one before."""


def _with_leg(spec: PipelineSpec, position: int, leg: Leg) -> PipelineSpec:
    legs = spec.recall.legs
    return replace(spec, recall=replace(spec.recall, legs=(*legs[:position], leg, *legs[position + 1 :])))


def _with_stage(spec: PipelineSpec, position: int, stage: RerankStage) -> PipelineSpec:
    return replace(spec, reranks=(*spec.reranks[:position], stage, *spec.reranks[position + 1 :]))


def _with_keep(spec: PipelineSpec, position: int, keep: int) -> PipelineSpec:
    """Position 0 is recall."""
    if position == 0:
        return replace(spec, recall=replace(spec.recall, keep=keep))
    return _with_stage(spec, position - 1, replace(spec.reranks[position - 1], keep=keep))
