"""Scores of pairs through the graph of a cross-encoder: runs of pairs of one length, or padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiercel.models.batching import pad_batch, plan_batches, plan_runs
from tiercel.models.texts import MASK_INPUT
from tiercel.models.tokenize import TokenPair
from tiercel.workers import map_in_order

if TYPE_CHECKING:
    from tiercel.models.sessions import LoadedGraph

SCORE_OUTPUT = "score"
TYPES_INPUT = "token_type_ids"


def pair_feeds(session: LoadedGraph, pairs: Sequence[TokenPair]) -> dict[str, NDArray[np.int64]]:
    """What a run of at least one pair is fed: arrays of shape (pairs, longest pair).

    A graph without a mask takes pairs of one length only.
    """
    batch = pad_batch([pair.ids for pair in pairs])
    feeds = {"input_ids": batch.input_ids}
    if MASK_INPUT in session.inputs:
        feeds[MASK_INPUT] = batch.attention_mask
    if TYPES_INPUT in session.inputs:
        feeds[TYPES_INPUT] = pad_batch([pair.types for pair in pairs]).input_ids
    return feeds


def score_pairs(
    session: LoadedGraph, pairs: Sequence[TokenPair], *, batch_tokens: int | None, workers: int
) -> NDArray[np.float32]:
    """Logits of pairs: shape (pairs,), float32, in input order.

    `batch_tokens` None: pairs of one length share a run, `workers` runs at a time, longest first; else padded batches,
    which use all that the device has.
    """
    logits = np.empty(len(pairs), dtype=np.float32)
    lengths = [pair.ids.size for pair in pairs]
    runs = plan_runs(lengths) if batch_tokens is None else plan_batches(lengths, max_batch_tokens=batch_tokens)

    def run(positions: Sequence[int]) -> NDArray[np.float32]:
        return session.run(pair_feeds(session, [pairs[position] for position in positions]), [SCORE_OUTPUT])[0]

    results = map_in_order(run, runs, workers=workers if batch_tokens is None else 1)
    for positions, result in zip(runs, results, strict=True):
        logits[positions] = result
    return logits
