"""Whether two runs differ by more than chance: paired tests over the same queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tiercel.errors import InputError

SAMPLES = 100_000
"""Sign flips that are drawn where there are too many to try them all: p is then known to 1 in 100,001."""

EXACT_QUERIES = 20
"""Queries that differ up to which all sign flips are tried: 2^19 sums, half of them by symmetry."""

LEVEL = 0.95
"""Of confidence intervals; what is below 1 - LEVEL is called significant."""

SEED = 7
_TIED = 1e-9  # measures are sums of rounded terms: what differs by less is the same value
_BYTE_SIGNS = (np.arange(256)[:, None] >> np.arange(8) & 1) * 2.0 - 1

_Values: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Randomisation:
    """A two-sided p of the sign-flip test; `samples` flips were drawn, 0 when every flip was tried.

    A drawn p is never below 1 / (samples + 1): that is its resolution.
    """

    p: float
    samples: int


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two one-sided tests against a margin in the measure's unit: p that the difference is really beyond it.

    Attributes:
        margin: above 0; differences smaller than this do not matter.
        p_worse: a small one says that the mean difference is above -margin ("no worse").
        p_better: a small one says that the mean difference is below +margin.
    """

    margin: float
    p_worse: float
    p_better: float

    @property
    def p(self) -> float:
        """A small one says that the two are equivalent: the larger of the two."""
        return max(self.p_worse, self.p_better)


def paired_differences(values: Sequence[float], baseline: Sequence[float]) -> _Values:
    """float64 `values - baseline`, aligned; one of rounding alone is 0. Raises InputError for fewer than two."""
    differences: _Values = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    if len(differences) < 2:
        raise InputError(
            f"{len(differences)} judged quer{'y' if len(differences) == 1 else 'ies'}",
            expected="at least two: how much a difference varies cannot be told from one",
        )
    differences[np.abs(differences) < _TIED] = 0
    return differences


def wins_ties_losses(differences: _Values) -> tuple[int, int, int]:
    """How many differences are above, at and below 0."""
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    return above, len(differences) - above - below, below


def paired_t_test(differences: _Values) -> float:
    """Two-sided p of Student's paired t-test.

    Differences that are all the same have no spread: p is 1 where they are 0, else 0.
    """
    return min(1.0, 2 * _upper_tail(differences, abs(float(differences.mean()))))


def confidence_interval(differences: _Values, *, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of the mean difference: low and high."""
    from scipy.special import stdtrit

    mean = float(differences.mean())
    half = float(stdtrit(len(differences) - 1, (1 + level) / 2)) * _standard_error(differences)
    return mean - half, mean + half


def randomisation_test(differences: _Values, *, samples: int = SAMPLES, seed: int = SEED) -> Randomisation:
    """Fisher's test: how often is the mean as far from 0 if every difference might as well have had the other sign?

    All flips are tried where at most EXACT_QUERIES differences are not 0; else `samples` are drawn, and the flips that
    happened count as one more, so that p is valid and never 0.

    M. D. Smucker, J. Allan, B. Carterette: A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation. CIKM 2007. B. Phipson, G. K. Smyth: Permutation P-values Should Never Be Zero. 2010.
    """
    sizes = np.abs(differences[differences != 0])
    # Sums that are equal on paper differ in their last digits by the order of their terms.
    observed = abs(float(differences.sum())) - 1e-12 * float(sizes.sum())
    if len(sizes) <= EXACT_QUERIES:
        sums = np.zeros(1)
        for number, size in enumerate(sizes):
            # The first sign stays: with all signs turned a sum is as far from 0 as before.
            sums = np.concatenate([sums + size, sums - size]) if number else sums + size
        return Randomisation(float((np.abs(sums) >= observed).mean()), 0)
    return Randomisation(
        (1 + int((np.abs(_drawn_sums(sizes, samples, seed)) >= observed).sum())) / (samples + 1), samples
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p as it counts beside the others, in their order: the chance of even one false alarm stays below it.

    S. Holm: A Simple Sequentially Rejective Multiple Test Procedure. Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def equivalence_test(differences: _Values, margin: float) -> Equivalence:
    """Is the mean difference within the margin? `margin` is above 0.

    D. J. Schuirmann: A comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the
    Equivalence of Average Bioavailability. 1987.
    """
    mean = float(differences.mean())
    return Equivalence(margin, _upper_tail(differences, mean + margin), _upper_tail(differences, margin - mean))


def _standard_error(differences: _Values) -> float:
    # Equal differences have a mean that may be off by a rounding, and then a spread that is no spread.
    if np.ptp(differences) < _TIED:
        return 0.0
    return float(differences.std(ddof=1)) / math.sqrt(len(differences))


def _upper_tail(differences: _Values, distance: float) -> float:
    """The chance of a Student's t at least as large as the distance in standard errors."""
    from scipy.special import stdtr

    error = _standard_error(differences)
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stdtr(len(differences) - 1, -distance / error))


def _drawn_sums(sizes: _Values, samples: int, seed: int) -> _Values:
    """Sums under random signs: eight signs are one byte, whose 256 partial sums are worked out once."""
    dice = np.random.default_rng(seed)
    padded = np.concatenate([sizes, np.zeros(-len(sizes) % 8)])
    sums: _Values = np.zeros(samples)
    for eight in padded.reshape(-1, 8):
        sums += (_BYTE_SIGNS @ eight)[dice.integers(0, 256, samples, dtype=np.uint8)]
    return sums
