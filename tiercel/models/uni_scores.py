"""Scores through the graph of a Uni-Encoder: which candidates are read together, and what a run is fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.models.batching import pad_batch, plan_batches
from tiercel.models.pairs import SCORE_OUTPUT
from tiercel.models.uni_inputs import UniSettings
from tiercel.workers import map_in_order

if TYPE_CHECKING:
    from tiercel.models.quantize import Feeds
    from tiercel.models.sessions import LoadedGraph

CONTEXT_INPUT = "context_ids"
CANDIDATES_INPUT = "candidate_ids"
CANDIDATES_MASK_INPUT = "candidate_mask"

# Every pass reads the context again, but arrays that outgrow the cache cost more: 9.5 ms a candidate of 32 tokens in
# passes of 10, 7.9 of 30, 8.6 of 100 and 14.5 of 200 (MiniLM-L6 int8, a context of 256 tokens, one thread).
CPU_PASS_TOKENS = 1024


class UniGroup(NamedTuple):
    """A context with its candidates, each as token ids, int64 of shape (tokens,)."""

    context: NDArray[np.int64]
    candidates: Sequence[NDArray[np.int64]]


class Pass(NamedTuple):
    """Candidates that are read together.

    Attributes:
        read: their positions.
        first: the place in `read` from which on they get their scores here; those before have them from another pass.
    """

    read: list[int]
    first: int = 0


def plan_passes(lengths: Sequence[int], settings: UniSettings, *, pass_tokens: int) -> list[Pass]:
    """Passes that give each candidate one score; `lengths` are their tokens, in the order of the stage before.

    `arrow`: groups of `group_size` in that order, as scores depend on who is read together. The last group is filled up
    with the candidates before it, so that it is as large as the others; only fewer candidates than that make a smaller
    group. `one-way`: those of like length together, padded to at most `pass_tokens`. No candidates: no passes.
    """
    if settings.mask == "one-way":
        return [Pass(batch) for batch in plan_batches(lengths, max_batch_tokens=pass_tokens)]
    count, size = len(lengths), settings.group_size
    passes = []
    for start in range(0, count, size):
        begin = max(0, min(start, count - size))
        passes.append(Pass(list(range(begin, min(start + size, count))), start - begin))
    return passes


def pass_feeds(context: NDArray[np.int64], candidates: Sequence[NDArray[np.int64]]) -> Feeds:
    """What a run is fed: a context, shape (tokens,), and at least one candidate, shape (candidates, longest)."""
    batch = pad_batch(candidates)
    return {
        CONTEXT_INPUT: context,
        CANDIDATES_INPUT: batch.input_ids,
        CANDIDATES_MASK_INPUT: batch.attention_mask,
    }


class Scored(NamedTuple):
    """Logits of each group's candidates, shape (candidates,), float32, in input order; and how many tokens were read.

    A context counts once for every pass that reads it; padding does not count.
    """

    logits: list[NDArray[np.float32]]
    tokens: int


def score_groups(
    graph: LoadedGraph, groups: Sequence[UniGroup], settings: UniSettings, *, pass_tokens: int, workers: int
) -> Scored:
    """Read every group in the passes that `plan_passes` makes of it, `workers` of them at a time."""
    logits = [np.empty(len(group.candidates), dtype=np.float32) for group in groups]
    passes = [
        (number, one)
        for number, group in enumerate(groups)
        for one in plan_passes([ids.size for ids in group.candidates], settings, pass_tokens=pass_tokens)
    ]

    def run(item: tuple[int, Pass]) -> tuple[NDArray[np.float32], int]:
        context, candidates = groups[item[0]]
        read = [candidates[place] for place in item[1].read]
        (scores,) = graph.run(pass_feeds(context, read), [SCORE_OUTPUT])
        return scores, context.size + sum(ids.size for ids in read)

    results = map_in_order(run, passes, workers=workers)
    for (number, one), (scores, _) in zip(passes, results, strict=True):
        logits[number][one.read[one.first :]] = scores[one.first :]
    return Scored(logits, sum(tokens for _, tokens in results))
