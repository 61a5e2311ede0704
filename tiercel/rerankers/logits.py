"""What holds for the logits of every model that scores: they are those of the export, finite, and given as asked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Precision, ScoreKind
from tiercel.errors import ModelError, UsageError
from tiercel.models.description import ModelDescription, ModelFamily, read_intact
from tiercel.protocols import CandidateGroup

# Largest difference of a stored score, in standard deviations of the model's scores. Another processor may round
# int8 products otherwise, and a GPU fp32 ones; kernels that overflow are off by much more.
_PROBE_ROUNDING = 1e-5  # scores are stored with six decimals
_PROBE_TOLERANCE: dict[Precision, float] = {"fp32": 0.05, "fp16": 0.1, "bf16": 0.2, "int8": 0.3}


class LogitModel:
    """What rerankers that give an exported model's logits have in common: its description, and counts of what it read.

    Args:
        folder: what `tiercel export` wrote.
        family: of the model.
        score: "logit" or "sigmoid".

    Raises:
        UsageError: `score` is neither.
        ModelError: the folder is incomplete, changed since export or of another family.
    """

    def __init__(self, folder: Path, *, family: ModelFamily, score: ScoreKind) -> None:
        check_kind(score)
        self._description = read_intact(folder, family=family)
        self._kind = score
        self._tokens_read = 0
        self._truncated = 0
        self._truncated_queries = 0
        self._lock = threading.Lock()

    @property
    def description(self) -> ModelDescription:
        """What the export wrote down about the model."""
        return self._description

    @property
    def fingerprint(self) -> str:
        """Changes whenever the scores would: weights, precision, tokenizer, how texts are read, kind of score."""
        return self._description.fingerprint + ("" if self._kind == "logit" else f"-{self._kind}")

    @property
    def max_tokens(self) -> int:
        """Most tokens of a query, or context, and a document together, special ones included; the rest is cut."""
        return self._description.max_tokens

    @property
    def tokens_read(self) -> int:
        """How many tokens the model has read so far, special ones and queries included, padding not."""
        return self._tokens_read

    @property
    def truncated(self) -> int:
        """How many documents have been cut so far, once for every query they were scored against."""
        return self._truncated

    @property
    def truncated_queries(self) -> int:
        """How many queries, or contexts, have been cut so far, once for every group."""
        return self._truncated_queries


def check_kind(score: ScoreKind) -> None:
    """Raise UsageError for a kind of score that is none."""
    if score not in get_args(ScoreKind):
        raise UsageError(f"score {score!r}", expected=" or ".join(get_args(ScoreKind)))


def as_asked(logits: NDArray[np.float32], score: ScoreKind) -> NDArray[np.float32]:
    """The logits themselves, or their sigmoid: the same shape, float32."""
    if score == "logit":
        return logits
    # 1 / (1 + exp(-x)) overflows far below zero; its logarithm does not.
    values: NDArray[np.float32] = np.exp(-np.logaddexp(np.float32(0), -logits))
    return values


def check_probe(about: ModelDescription, logits: NDArray[np.float32], folder: Path) -> None:
    """Raise ModelError where the logits of the probe's documents, shape (documents,), are not those of the export."""
    difference = float(np.max(np.abs(logits - np.array(about.probe.values, dtype=np.float32))))
    tolerance = _PROBE_ROUNDING + _PROBE_TOLERANCE[about.precision] * about.parity["score_deviation"]
    if not difference <= tolerance:  # also when it is not a number
        raise ModelError(
            f"on this machine the model gives other scores than where it was exported (by {difference:.2g})",
            expected=f"a difference of at most {tolerance:.2g}",
            next_step="Export the model again on this machine, or use precision fp32",
            where=str(folder),
        )


def check_finite(groups: Sequence[CandidateGroup], logits: Sequence[NDArray[np.float32]], *, model: str) -> None:
    """Raise ModelError, naming query and document, for a score that is no number; arrays are aligned with groups."""
    for group, array in zip(groups, logits, strict=True):
        for row in np.flatnonzero(~np.isfinite(array)).tolist():
            query, document = group.query.id, group.documents[row].id
            raise ModelError(
                f"the model gave the score {array[row]} to the pair of query {query!r} and document {document!r}",
                expected="a finite score",
                next_step="Export the model again, or use precision fp32",
                where=model,
            )
