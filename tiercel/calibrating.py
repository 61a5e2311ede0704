"""Which hits have a chance of relevance that is high enough? A pipeline's calibration, kept and used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tiercel.app import SearchOptions
from tiercel.errors import IndexStoreError, UsageError
from tiercel.evaluation.calibration import Calibration
from tiercel.index.bm25 import BM25
from tiercel.index.pipelines import keep_calibration, read_calibrations
from tiercel.reranking import RerankOptions
from tiercel.retrieve.spec import PipelineSpec
from tiercel.types import Ranking

Cut = Callable[[Iterable[Ranking]], Iterator[Ranking]]


def calibrated_options(options: SearchOptions) -> None:
    """Raise UsageError for options under which scores are others than those that were calibrated."""
    reranking = options.reranking or RerankOptions()
    if (
        options.passages
        or (options.parameters or BM25()) != BM25()
        or reranking != RerankOptions(precision=reranking.precision)
    ):
        raise UsageError(
            "--min-score with options that change the scores",
            expected="none of --passages, --k1, --b, --variant, --score, --long: a pipeline is calibrated without them",
            next_step="Name k1 and b in the pipeline, as in bm25:k1=1.2:b=0.6, and calibrate that.",
        )


def keep(index: Path, spec: PipelineSpec, found: Calibration, options: SearchOptions) -> None:
    """Keep a pipeline's calibration with the index."""
    precision = options.reranking.precision if options.reranking else None
    keep_calibration(index, str(spec), {**found.to_json(), "precision": precision})


def cut_below(index: Path, spec: PipelineSpec, least: float | None, options: SearchOptions) -> Cut:
    """What leaves of a Ranking the hits whose chance is at least so high; None: all.

    Raises UsageError for what is no chance and for options that change the scores, IndexStoreError where the pipeline
    has no calibration or one of another precision.
    """
    if least is None:
        return iter
    if not 0 <= least <= 1:
        raise UsageError(f"--min-score {least:g}", expected="a chance, from 0 to 1")
    calibrated_options(options)
    record = read_calibrations(index).get(str(spec))
    if record is None:
        raise IndexStoreError(
            f"the pipeline {spec} is not calibrated",
            where=str(index),
            expected="scores that are known to be chances for --min-score",
            next_step=f"Run: tiercel calibrate {index} --pipeline {spec} --queries Q --qrels R",
        )
    precision = options.reranking.precision if options.reranking else None
    if record.get("precision") != precision:
        raise IndexStoreError(
            f"--precision {precision or 'not given'}",
            where=str(index),
            expected=f"{record.get('precision') or 'not given'}, with which the pipeline was calibrated",
        )
    calibration = Calibration.from_json(record)
    return lambda rankings: (_cut(ranking, calibration, least) for ranking in rankings)


def _cut(ranking: Ranking, calibration: Calibration, least: float) -> Ranking:
    chances = calibration.chances([hit.score for hit in ranking.hits])
    return replace(ranking, hits=tuple(hit for hit, p in zip(ranking.hits, chances, strict=True) if p >= least))
