"""How are pipelines evaluated on sets of queries? One after the other, and on from where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tiercel.app import SearchOptions
from tiercel.config import Settings
from tiercel.data.files import check_target, is_stream
from tiercel.data.partial import PartialFile, digest_of
from tiercel.errors import UsageError
from tiercel.evaluation.observing import KeptSteps, Steps, count_steps, observe
from tiercel.evaluation.report import PipelineReport, SetReport, judged_queries, report_of
from tiercel.index.bm25 import BM25
from tiercel.reranking import RerankOptions, told_of
from tiercel.types import Qrels, Query

if TYPE_CHECKING:
    from tiercel.evaluation.measures import Measure
    from tiercel.index.store import Index
    from tiercel.retrieve.cascade import Cascade
    from tiercel.retrieve.spec import PipelineSpec

_LEAST_KEPT = 100


@dataclass(frozen=True, slots=True)
class JudgedQueries:
    """A set as it is evaluated.

    Attributes:
        name: of the set.
        notes: in words, what was taken for granted about it.
        qrels: its judgments.
        measures: at least one.
        queries: those that are run, which have judgments.
        unjudged: how many others there were.
        keep: hits of a query that are asked for.
    """

    name: str
    notes: tuple[str, ...]
    qrels: Qrels
    measures: Sequence[Measure]
    queries: Sequence[Query]
    unjudged: int = 0
    keep: int = 0

    def checked(self, keep: int | None) -> JudgedQueries:
        """The same with so many hits, None for as many as measures need, at least 100; queries without judgments gone.

        Raises as `evaluate_pipeline`.
        """
        keep = keep or max([_LEAST_KEPT, *(measure.cutoff or 0 for measure in self.measures)])
        judged = judged_queries(self.queries, self.qrels, measures=self.measures, keep=keep)
        return replace(self, queries=judged, unjudged=len(self.queries) - len(judged), keep=keep)


def check_resume(path: str | None) -> None:
    """Raise UsageError and InputError where work cannot be kept in a file of this path."""
    if path is None:
        return
    if is_stream(path):
        raise UsageError(f"--resume {path}", expected="a file, which is read again")
    check_target(path)


def evaluate_sets(
    cascades: Mapping[str, Cascade], sets: Sequence[JudgedQueries], steps: Steps, *, say: Callable[[str], None]
) -> list[SetReport]:
    """Every pipeline, by its name, on every set that was checked; `say` is told in a line what is begun."""
    reports = []
    for judged in sets:
        of_set: dict[str, PipelineReport] = {}
        for name, cascade in cascades.items():
            say(f"evaluating {name}" + (f" on {judged.name}" if len(sets) > 1 else ""))
            observed = observe(cascade, judged.queries, keep=judged.keep, steps=steps)
            of_set[name] = report_of(
                observed, judged.qrels, measures=judged.measures, keep=judged.keep, unjudged=judged.unjudged
            )
        reports.append(SetReport(judged.name, judged.notes, of_set))
    return reports


@contextmanager
def resumed(path: str | None, asked: Mapping[str, str], *, total: int, say: Callable[[str], None]) -> Iterator[Steps]:
    """Steps, `total` of them, that the file keeps until all that is done with them has been done; None keeps none.

    Raises InputError where the file is none of ours, or was begun with something else asked.
    """
    if path is None:
        yield Steps()
        return
    with PartialFile(path, asked) as partial:
        if partial.batches:
            say(f"{partial.batches} of {total} steps were done before; {partial.name} has them")
        try:
            yield KeptSteps(partial)
        except BaseException:
            if partial.batches:
                kept = f"{partial.batches} of {total} steps are kept in {partial.name}"
                say(f"{kept}; the same command goes on from there")
            raise
        partial.forget()


def steps_of(pipelines: int, sets: Iterable[JudgedQueries]) -> int:
    """How many steps so many pipelines make of the sets."""
    return pipelines * sum(count_steps(len(judged.queries)) for judged in sets)


def asked_of(
    index: Index,
    cascades: Mapping[PipelineSpec, Cascade],
    sets: Sequence[JudgedQueries],
    *,
    settings: Settings,
    options: SearchOptions,
) -> dict[str, str]:
    """Everything that decides what the pipelines find, by what messages call it. Measures and grades do not."""
    bm25 = asdict(options.parameters or BM25())
    return {
        "--pipeline": " ".join(map(str, cascades)),
        "--queries (those that are judged)": digest_of(
            [[query.id, query.text, query.history] for query in judged.queries] for judged in sets
        ),
        "-k": " ".join(str(judged.keep) for judged in sets),
        "index": index.digest(),
        "--budget-ms": str(options.budget_ms),
        **{f"--{name}": str(value) for name, value in bm25.items()},
        **told_of(options.reranking or RerankOptions(), settings),
        **{
            f"the model of {step.name} (or its --precision)": str(getattr(step.reranker, "fingerprint", ""))
            for cascade in cascades.values()
            for step in cascade.steps
        },
    }
