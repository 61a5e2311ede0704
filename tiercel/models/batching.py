"""Which texts share a run: batches of like length, bounded by tokens. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError

# On a GPU a run must be large to pay; the figure bounds the padded tokens of one run.
GPU_BATCH_TOKENS = 32_768

# On a CPU pairs of exactly one length share a run of so many tokens: nothing is padded, each has the bits that it has
# alone, and short ones share what a run costs whatever its size. Longer runs fall out of the cache.
CPU_RUN_TOKENS = 320


def batch_budget(batch_tokens: int | None, *, provider: str, is_masked: bool, takes: str, where: str) -> int | None:
    """Most padded tokens of one run; None for runs without padding, which is what the CPU does unless told.

    Raises ModelError for batches of a graph without a mask, as int8 exports are; `takes` says what it takes instead.
    """
    budget = GPU_BATCH_TOKENS if batch_tokens is None and provider != "cpu" else batch_tokens
    if budget is not None and not is_masked:
        raise ModelError(
            f"this {takes} per run, but batches were asked for",
            expected="provider 'cpu' without batch_tokens",
            next_step="Export the model with precision fp32",
            where=where,
        )
    return budget


class PaddedBatch(NamedTuple):
    """Token ids of one run, both arrays int64 of shape (texts, longest text).

    Attributes:
        input_ids: the ids, each row filled up with the padding id.
        attention_mask: 1 where a token is, 0 where padding is.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


def plan_batches(lengths: Sequence[int], *, max_batch_tokens: int) -> list[list[int]]:
    """Positions into `lengths`, grouped so that texts of like length share a batch.

    Each position appears once. A batch costs its number of texts times its longest text, padding included, and
    stays within `max_batch_tokens`; a single text above that is a batch of its own. Longest first, so that memory
    runs out at once or not at all; equal lengths keep their order. No lengths: no batches.
    Raises ValueError when `max_batch_tokens` is not positive.
    """
    if max_batch_tokens < 1:
        raise ValueError(f"max_batch_tokens is {max_batch_tokens}, expected at least 1")
    batches: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if batches and (len(batches[-1]) + 1) * longest <= max_batch_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
            longest = lengths[position]
    return batches


def plan_runs(lengths: Sequence[int], *, max_run_tokens: int = CPU_RUN_TOKENS) -> list[list[int]]:
    """Positions into `lengths`, longest first, grouped so that texts of one and the same length share a run.

    Each position appears once; a run has at most `max_run_tokens`, or one text. No lengths: no runs.
    """
    runs: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        length = lengths[position]
        if runs and lengths[runs[-1][0]] == length and (len(runs[-1]) + 1) * length <= max_run_tokens:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs


def pad_batch(ids: Sequence[NDArray[np.int64]], *, pad_id: int = 0) -> PaddedBatch:
    """Stack arrays of shape (tokens,), at least one, into a PaddedBatch; rows keep their order."""
    longest = max(row.size for row in ids)
    input_ids = np.full((len(ids), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, row_ids in enumerate(ids):
        input_ids[row, : row_ids.size] = row_ids
        attention_mask[row, : row_ids.size] = 1
    return PaddedBatch(input_ids, attention_mask)
