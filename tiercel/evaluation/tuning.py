"""Which pipeline is best for these judgments, within a latency? Searched on one half of the queries, told of the other.

What is chosen because it is best on some queries looks better on them than it is. So no figure here is of a query that
anything was chosen on: the front and the winner are found on the training half and measured on the held-out half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tiercel.evaluation.halves import judged_halves
from tiercel.evaluation.latency import Latency, measure_latency
from tiercel.evaluation.measures import EvaluationResult, Measure, evaluate
from tiercel.evaluation.observing import QUERIES_PER_BATCH
from tiercel.evaluation.significance import confidence_interval, paired_differences, paired_t_test
from tiercel.evaluation.variants import OF_RECALL, OF_RERANKING, Propose
from tiercel.protocols import Retriever
from tiercel.retrieve.spec import PipelineSpec
from tiercel.types import Qrels, Query

TIMED_QUERIES = 50

Make = Callable[[Sequence[PipelineSpec]], Sequence[Retriever]]
"""Wires pipelines, aligned with their specs."""


@dataclass(frozen=True, slots=True)
class Search:
    """How is searched.

    Attributes:
        keep: hits per query.
        latency_ms: most that the 95th percentile of single queries may be; None for any.
        seed: of the halves.
        say: is told in a line what is tried.
    """

    keep: int
    latency_ms: float | None = None
    seed: int = 1
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True)
class Trial:
    """A pipeline on one half of the queries.

    Attributes:
        result: of the queries of that half; its first measure is what is tuned.
        latency: of single queries.
    """

    spec: PipelineSpec
    result: EvaluationResult
    latency: Latency

    @property
    def quality(self) -> float:
        """Mean of the first measure."""
        return self.result.means[self.result.measures[0].name]


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better the winner is than the pipeline as given, on the held-out half: mean, 95 % interval, p."""

    difference: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found, in figures of the held-out half alone.

    Attributes:
        given: the pipeline as it was given.
        winner: the best on the training half within the latency; of two as good the one tried first.
        front: those that no other beats in both quality and latency on the training half, fastest first.
        gain: None where the winner is the pipeline as given.
        tried: how many pipelines were.
        training_queries: on which was chosen.
    """

    given: Trial
    winner: Trial
    front: tuple[Trial, ...]
    gain: Gain | None
    tried: int
    training_queries: int

    def is_better(self, latency_ms: float | None) -> bool:
        """Whether the winner is another pipeline, and on the held-out half better than the given one, or not too slow.

        The latter where the given one is.
        """
        if self.gain is None:
            return False
        return self.gain.difference > 0 or (
            latency_ms is not None and self.winner.latency.p95_ms <= latency_ms < self.given.latency.p95_ms
        )


def tune(
    spec: PipelineSpec,
    make: Make,
    queries: Sequence[Query],
    qrels: Qrels,
    *,
    measures: Sequence[Measure],
    search: Search,
) -> Tuned:
    """Start from a pipeline, change one thing after the other, and keep what is best on the training half.

    Raises InputError for too few judged queries.
    """
    training, held_out = judged_halves(queries, qrels, search.seed)
    trials: dict[PipelineSpec, Trial] = {}

    def climb(start: PipelineSpec, steps: Sequence[Propose]) -> PipelineSpec:
        best = start
        for propose in (_itself, *steps):
            proposed = list(dict.fromkeys(propose(best)))
            new = [found for found in proposed if found not in trials]
            for trial in _tried(new, make, training, qrels, measures=measures, search=search):
                trials[trial.spec] = trial
            best = _best([trials[found] for found in (best, *proposed)], search.latency_ms).spec
        return best

    # Recall is tuned by itself: all stages after it read what it finds, and take much longer.
    recall = climb(replace(spec, reranks=()), OF_RECALL).recall
    climb(spec, ())
    if spec.reranks:
        climb(replace(spec, recall=replace(recall, keep=spec.recall.keep)), OF_RERANKING)
    best = _best([trials[spec], *trials.values()], search.latency_ms).spec
    front = [trial.spec for trial in pareto_front(trials.values())]
    wanted = list(dict.fromkeys([spec, best, *front]))
    told = _tried(wanted, make, held_out, qrels, measures=measures, search=search)
    measured = {trial.spec: trial for trial in told}
    given, winner = measured[spec], measured[best]
    gain = None if best == spec else _gain(winner, given)
    return Tuned(given, winner, tuple(measured[name] for name in front), gain, len(trials), len(training))


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """Those that no other beats or equals in both quality and median latency, fastest first."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.latency.p50_ms, -trial.quality)):
        if not front or trial.quality > front[-1].quality:
            front.append(trial)
    return front


def _itself(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    yield spec


def _tried(
    specs: Sequence[PipelineSpec],
    make: Make,
    queries: Sequence[Query],
    qrels: Qrels,
    *,
    measures: Sequence[Measure],
    search: Search,
) -> Iterator[Trial]:
    if not specs:
        return
    judgments = {query.id: qrels[query.id] for query in queries}
    for spec, pipeline in zip(specs, make(specs), strict=True):
        search.say(f"trying {spec}")
        rankings = [
            ranking
            for start in range(0, len(queries), QUERIES_PER_BATCH)
            for ranking in pipeline.retrieve(queries[start : start + QUERIES_PER_BATCH], keep=search.keep)
        ]
        latency = measure_latency(_one(pipeline, search.keep), queries, limit=TIMED_QUERIES)
        yield Trial(spec, evaluate(rankings, judgments, measures), latency)


def _one(pipeline: Retriever, keep: int) -> Callable[[Query], object]:
    return lambda query: pipeline.retrieve([query], keep=keep)


def _best(trials: Iterable[Trial], latency_ms: float | None) -> Trial:
    """The best within the latency, the first of those as good; where none is within it, the fastest."""
    tried = list(trials)
    within = [trial for trial in tried if latency_ms is None or trial.latency.p95_ms <= latency_ms]
    if not within:
        return min(tried, key=lambda trial: trial.latency.p95_ms)
    return max(within, key=lambda trial: trial.quality)


def _gain(winner: Trial, given: Trial) -> Gain:
    name = given.result.measures[0].name
    ours, theirs = winner.result.per_query[name], given.result.per_query[name]
    differences = paired_differences([ours[query_id] for query_id in theirs], list(theirs.values()))
    return Gain(float(differences.mean()), confidence_interval(differences), paired_t_test(differences))
