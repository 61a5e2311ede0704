"""Runs against a baseline: which differences are more than chance, where they are, and what each run finds alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tiercel.errors import InputError, UsageError
from tiercel.evaluation.measures import EvaluationResult, Measure, check_overlap, evaluate
from tiercel.evaluation.significance import (
    Equivalence,
    confidence_interval,
    equivalence_test,
    holm,
    paired_differences,
    paired_t_test,
    randomisation_test,
    wins_ties_losses,
)
from tiercel.types import Qrels, QueryId, Ranking


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A run's values, and the top of each of its rankings: what is kept of a run that may be large."""

    name: str
    result: EvaluationResult
    top: Mapping[QueryId, Ranking]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run against the baseline by one measure, over all judged queries; p values are corrected by Holm.

    Attributes:
        difference: mean of run - baseline.
        interval: Student's 95 % interval of the difference, not corrected.
        p_t: of the paired t-test.
        p_randomisation: of the sign-flip test.
        samples: sign flips drawn for it; 0 when all were tried.
        wins: queries where the run is better; with ties and losses, all judged queries.
        equivalence: tests against a margin, None where none was given.
    """

    run: str
    measure: str
    baseline_mean: float
    mean: float
    difference: float
    interval: tuple[float, float]
    p_t: float
    p_randomisation: float
    samples: int
    wins: int
    ties: int
    losses: int
    equivalence: Equivalence | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A query that a run answers better or worse than the baseline, by one measure."""

    run: str
    query_id: QueryId
    measure: str
    baseline: float
    value: float


@dataclass(frozen=True, slots=True)
class Complement:
    """Where the relevant documents of all judged queries are, at one depth; the four add up to all of them."""

    run: str
    depth: int
    baseline_only: int
    run_only: int
    both: int
    neither: int


def measure_run(
    name: str, rankings: Sequence[Ranking], qrels: Qrels, *, measures: Sequence[Measure], keep: int
) -> MeasuredRun:
    """Evaluate a run and keep its judged rankings down to rank `keep`.

    Raises InputError, naming the run, when it is empty or no query of it is judged.
    """
    if not rankings:
        raise InputError("no ranking in it", expected="at least one", where=name)
    judged = {query_id for query_id, judgments in qrels.items() if judgments}
    check_overlap([ranking.query.id for ranking in rankings], judged, where=name)
    top = {r.query.id: replace(r, hits=r.hits[:keep]) for r in rankings if r.query.id in judged and r.hits}
    return MeasuredRun(name, evaluate(rankings, qrels, measures), top)


def compare(baseline: MeasuredRun, others: Sequence[MeasuredRun], *, margin: float | None = None) -> list[Comparison]:
    """Every other run against the baseline, by every measure; Holm's correction is over all of them.

    All runs are measured alike. `margin` is above 0 and in the measures' unit. Raises InputError when a run answers no
    query that the baseline answers or fewer than two queries are judged, and UsageError for the margin.
    """
    if margin is not None and not 0 < margin < 1:
        raise UsageError(f"the margin {margin:g}", expected="a number above 0 and below 1, such as 0.01")
    for other in others:
        _check_common(baseline, other)
    plain = [_compared(baseline, other, str(m), margin) for other in others for m in baseline.result.measures]
    corrected_t = holm([one.p_t for one in plain])
    corrected_flips = holm([one.p_randomisation for one in plain])
    equivalences = _corrected([one.equivalence for one in plain])
    return [
        replace(one, p_t=p_t, p_randomisation=p_flips, equivalence=equivalence)
        for one, p_t, p_flips, equivalence in zip(plain, corrected_t, corrected_flips, equivalences, strict=True)
    ]


def most_changed(baseline: MeasuredRun, other: MeasuredRun, *, measure: str, limit: int) -> list[Change]:
    """At most `limit` queries whose value changed most, the largest change first, ties by query id."""
    before, after = baseline.result.per_query[measure], other.result.per_query[measure]
    order = sorted((-abs(value - before[query_id]), query_id) for query_id, value in after.items())
    return [
        Change(other.name, query_id, measure, before[query_id], after[query_id])
        for negated, query_id in order[:limit]
        if negated < 0
    ]


def complement(baseline: MeasuredRun, other: MeasuredRun, qrels: Qrels, *, depth: int) -> Complement:
    """How many relevant documents (grade 1 and up) each run has in its first `depth`, alone and with the other.

    Both runs were kept down to that depth.
    """
    baseline_only = run_only = both = neither = 0
    for query_id, judgments in qrels.items():
        relevant = {doc_id for doc_id, grade in judgments.items() if grade >= 1}
        ours, theirs = (relevant.intersection(_first(run, query_id, depth)) for run in (baseline, other))
        baseline_only += len(ours - theirs)
        run_only += len(theirs - ours)
        both += len(ours & theirs)
        neither += len(relevant - ours - theirs)
    return Complement(other.name, depth, baseline_only, run_only, both, neither)


def _first(run: MeasuredRun, query_id: QueryId, depth: int) -> list[str]:
    return [hit.doc_id for hit in run.top[query_id].hits[:depth]] if query_id in run.top else []


def _check_common(baseline: MeasuredRun, other: MeasuredRun) -> None:
    if other.top.keys().isdisjoint(baseline.top):
        raise InputError(
            f"no judged query with hits that {baseline.name} answers as well",
            expected="runs of the same queries",
            where=other.name,
        )


def _compared(baseline: MeasuredRun, other: MeasuredRun, measure: str, margin: float | None) -> Comparison:
    before, after = baseline.result.per_query[measure], other.result.per_query[measure]
    differences = paired_differences([after[query_id] for query_id in before], list(before.values()))
    flips = randomisation_test(differences)
    wins, ties, losses = wins_ties_losses(differences)
    return Comparison(
        run=other.name,
        measure=measure,
        baseline_mean=baseline.result.means[measure],
        mean=other.result.means[measure],
        difference=float(differences.mean()),
        interval=confidence_interval(differences),
        p_t=paired_t_test(differences),
        p_randomisation=flips.p,
        samples=flips.samples,
        wins=wins,
        ties=ties,
        losses=losses,
        equivalence=None if margin is None else equivalence_test(differences, margin),
    )


def _corrected(tests: Sequence[Equivalence | None]) -> list[Equivalence | None]:
    """Tests against the margin under Holm's correction; all are None or none is."""
    given = [test for test in tests if test]
    worse, better = holm([test.p_worse for test in given]), holm([test.p_better for test in given])
    corrected = [replace(t, p_worse=w, p_better=b) for t, w, b in zip(given, worse, better, strict=True)]
    return [*corrected] or list(tests)
