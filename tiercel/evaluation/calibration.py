"""What is the chance that a hit of this score is relevant? Fitted on half of the queries, checked on the other half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tiercel.config import CalibrationMethod
from tiercel.errors import InputError
from tiercel.evaluation.halves import judged_halves
from tiercel.evaluation.observing import QUERIES_PER_BATCH
from tiercel.protocols import Retriever
from tiercel.types import Qrels, Query

_BINS = 10
_STEPS = 100

_Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a pipeline's scores to the chance of relevance, which never falls as the score rises.

    Attributes:
        method: "platt", a logistic curve; "isotonic", steps joined by lines.
        values: slope and intercept of the log odds, or scores in ascending order and the chance at each, in turn.
    """

    method: CalibrationMethod
    values: tuple[float, ...]

    def chances(self, scores: Sequence[float]) -> list[float]:
        """The chance of each score, from 0 to 1."""
        asked = np.asarray(scores, np.float64)
        if self.method == "platt":
            slope, intercept = self.values
            odds: list[float] = _logistic(slope * asked + intercept).tolist()
            return odds
        found: list[float] = np.interp(asked, self.values[::2], self.values[1::2]).tolist()
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        return {"method": self.method, "values": list(self.values)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """What `to_json` gave. Raises InputError for anything else."""
        method, values = record.get("method"), record.get("values")
        numbers = [float(x) for x in values if isinstance(x, int | float)] if isinstance(values, list) else []
        is_whole = values == numbers and (len(numbers) == 2 if method == "platt" else len(numbers) % 2 == 0)
        if method in ("platt", "isotonic") and numbers and is_whole:
            return cls(method, tuple(numbers))
        raise InputError("a calibration that cannot be read", expected="method and values, as tiercel calibrate writes")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration, and how far it is off on the queries that it was not fitted on.

    Attributes:
        error: expected calibration error on the held-out half: by how much the chance is off, from 0 to 1.
        brier: mean squared distance of the chance from what is true (1 or 0), on the same; G. W. Brier, 1950.
        usual_brier: the same where every hit has the share of relevant hits of the training half for a chance. A
            calibration that tells hits apart is below it.
        relevant: share of the held-out hits that are relevant.
    """

    calibration: Calibration
    error: float
    brier: float
    usual_brier: float
    relevant: float
    training_queries: int
    held_out_queries: int
    held_out_hits: int


def calibrate(
    pipeline: Retriever, queries: Sequence[Query], qrels: Qrels, *, method: CalibrationMethod, keep: int, seed: int
) -> Calibrated:
    """Fit on half of the judged queries and check on the rest. A hit that is not judged counts as not relevant.

    Raises InputError for too few judged queries, and for a half whose hits are all alike.
    """
    training, held_out = judged_halves(queries, qrels, seed)
    scores, labels = _labelled(pipeline, training, qrels, keep)
    if labels.all() or not labels.any():
        raise InputError(
            f"of {len(labels)} hits of {len(training)} queries {'all' if labels.any() else 'none'} are relevant",
            expected="hits of both kinds: there is nothing to tell apart",
        )
    found = (fit_platt if method == "platt" else fit_isotonic)(scores, labels)
    unseen, truth = _labelled(pipeline, held_out, qrels, keep)
    chances = np.array(found.chances(unseen.tolist()))
    return Calibrated(
        calibration=found,
        error=calibration_error(chances, truth),
        brier=_mean((chances - truth) ** 2),
        usual_brier=_mean((labels.mean() - truth) ** 2),
        relevant=_mean(truth),
        training_queries=len(training),
        held_out_queries=len(held_out),
        held_out_hits=len(truth),
    )


def fit_platt(scores: _Values, labels: NDArray[np.bool_]) -> Calibration:
    """A logistic curve of most likelihood, its slope not below 0; labels of both kinds.

    J. Platt: Probabilistic Outputs for Support Vector Machines. 1999, with the targets drawn in as there; by Newton's
    method with halved steps, as in H.-T. Lin, C.-J. Lin, R. C. Weng: A Note on Platt's Probabilistic Outputs. 2007.
    """
    ones, zeros = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    x = np.stack([(scores - centre) / spread, np.ones_like(scores)])
    at = np.array([0.0, np.log((ones + 1) / (zeros + 1))])
    for _ in range(_STEPS):
        chances = _logistic(at @ x)
        gradient = x @ (chances - targets)
        curvature = (x * (chances * (1 - chances))) @ x.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and _loss((at - size * step) @ x, targets) > _loss(at @ x, targets):
            size /= 2
        at = at - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    if at[0] < 0:  # scores that say the contrary say nothing: the usual share
        return Calibration("platt", (0.0, float(np.log(ones / zeros))))
    return Calibration("platt", (float(at[0] / spread), float(at[1] - at[0] * centre / spread)))


def fit_isotonic(scores: _Values, labels: NDArray[np.bool_]) -> Calibration:
    """The non-decreasing chances nearest to the labels, by pooling adjacent violators; at least one score.

    M. Ayer et al.: An Empirical Distribution Function for Sampling with Incomplete Information. 1955; B. Zadrozny,
    C. Elkan: Transforming Classifier Scores into Accurate Multiclass Probability Estimates. KDD 2002.
    """
    distinct, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, labels) / counts
    blocks: list[tuple[float, float, float, float]] = []  # first score, last score, mean, weight
    for score, mean, weight in zip(distinct.tolist(), means.tolist(), counts.tolist(), strict=True):
        block = (score, score, mean, float(weight))
        while blocks and blocks[-1][2] >= block[2]:
            first, _, above, heavier = blocks.pop()
            total = heavier + block[3]
            block = (first, score, (above * heavier + block[2] * block[3]) / total, total)
        blocks.append(block)
    values = [value for first, last, mean, _ in blocks for value in ((first, mean), (last, mean))[: 1 + (last > first)]]
    return Calibration("isotonic", tuple(number for pair in values for number in pair))


def calibration_error(chances: _Values, labels: NDArray[np.bool_]) -> float:
    """Mean over the hits of how far the mean chance of their tenth of [0, 1] is from the share relevant; 0 for none.

    M. P. Naeini, G. F. Cooper, M. Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning. AAAI
    2015.
    """
    if not len(chances):
        return 0.0
    bins = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    off = np.bincount(bins, chances - labels, minlength=_BINS)
    return float(np.abs(off).sum() / len(chances))


def _labelled(
    pipeline: Retriever, queries: Sequence[Query], qrels: Qrels, keep: int
) -> tuple[_Values, NDArray[np.bool_]]:
    rankings = [
        ranking
        for start in range(0, len(queries), QUERIES_PER_BATCH)
        for ranking in pipeline.retrieve(queries[start : start + QUERIES_PER_BATCH], keep=keep)
    ]
    pairs = [
        (hit.score, qrels[ranking.query.id].get(hit.doc_id, 0) >= 1) for ranking in rankings for hit in ranking.hits
    ]
    return np.array([score for score, _ in pairs], np.float64), np.array([label for _, label in pairs], np.bool_)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _logistic(x: _Values) -> _Values:
    values: _Values = np.exp(-np.logaddexp(0, -x))
    return values


def _loss(x: _Values, targets: _Values) -> float:
    return float((np.logaddexp(0, x) - targets * x).sum())
