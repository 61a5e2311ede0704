"""Scores of pairs through the graph of a cross-encoder: one pair per run, or several of them padded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiercel.models.batching import pad_batch, plan_batches
from tiercel.models.texts import MASK_INPUT
from tiercel.models.tokenize import TokenPair
from tiercel.models.workers import map_in_order

if TYPE_CHECKING:
    from tiercel.models.sessions import LoadedGraph

SCORE_OUTPUT = "score"
TYPES_INPUT = "token_type_ids"


def pair_feeds(session: LoadedGraph, pair: TokenPair) -> dict[str, NDArray[np.int64]]:
    """What a run of one pair is fed: arrays of shape (1, tokens)."""
    feeds = {"input_ids": pair.ids[np.newaxis, :]}
    if MASK_INPUT in session.inputs:
        feeds[MASK_INPUT] = np.ones_like(feeds["input_ids"])
    if TYPES_INPUT in session.inputs:
        feeds[TYPES_INPUT] = pair.types[np.newaxis, :]
    return feeds


def score_one(session: LoadedGraph, pair: TokenPair) -> float:
    """Logit of one pair."""
    return float(session.run(pair_feeds(session, pair), [SCORE_OUTPUT])[0][0])


def score_padded(session: LoadedGraph, pairs: Sequence[TokenPair]) -> NDArray[np.float32]:
    """Logits of at least one pair in one run of a graph with a mask: shape (pairs,), float32, in input order."""
    batch = pad_batch([pair.ids for pair in pairs])
    feeds = {"input_ids": batch.input_ids, MASK_INPUT: batch.attention_mask}
    if TYPES_INPUT in session.inputs:
        feeds[TYPES_INPUT] = pad_batch([pair.types for pair in pairs]).input_ids
    return session.run(feeds, [SCORE_OUTPUT])[0]


def score_pairs(
    session: LoadedGraph, pairs: Sequence[TokenPair], *, batch_tokens: int | None, workers: int
) -> NDArray[np.float32]:
    """Logits of pairs: shape (pairs,), float32, in input order.

    `batch_tokens` None: each pair a run of its own, `workers` at a time, longest first; else padded batches.
    """
    logits = np.empty(len(pairs), dtype=np.float32)
    lengths = [pair.ids.size for pair in pairs]
    if batch_tokens is None:
        order = sorted(range(len(pairs)), key=lambda position: -lengths[position])
        run = partial(score_one, session)
        logits[order] = map_in_order(run, [pairs[position] for position in order], workers=workers)
        return logits
    for positions in plan_batches(lengths, max_batch_tokens=batch_tokens):
        logits[positions] = score_padded(session, [pairs[position] for position in positions])
    return logits
