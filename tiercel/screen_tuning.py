"""What does one see of pipelines that were tuned or calibrated?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tiercel.evaluation.calibration import Calibrated
from tiercel.evaluation.tuning import Search, Trial, Tuned
from tiercel.screen import print_json, print_notes, print_table


def print_tuned(found: Tuned, search: Search, *, name: str, as_json: bool) -> None:
    """Given and winner, then the front; every figure is of the held-out half. `name`: what the winner is kept as."""
    if as_json:
        print_json(_facts(found, search, name))
        return
    measures = [measure.name for measure in found.given.result.measures]
    columns = ["", "pipeline", *measures, "p50 ms", "p95 ms"]
    rows = [_row("given", found.given), _row("winner", found.winner), *(_row("front", trial) for trial in found.front)]
    print_table(columns, rows, title=f"held-out half: {found.given.result.queries} queries")
    notes = [
        f"{found.tried} pipelines tried on {found.training_queries} other queries (seed {search.seed}); "
        "front: none was better there in both quality and latency",
    ]
    if found.gain is None:
        notes.append("the pipeline as given is the winner")
    else:
        low, high = found.gain.interval
        notes.append(
            f"winner against given: {measures[0]} {found.gain.difference:+.4f} "
            f"({low:+.4f} to {high:+.4f}), p (t) {found.gain.p:.4f}"
        )
    if _too_slow(found, search):
        notes.append(f"95 of 100 queries of the winner take more than {search.latency_ms:g} ms on the held-out half")
    kept = f"kept: --pipeline {name} is {found.winner.spec}" if name else "the index has been given no name for it"
    print_notes([*notes, kept])


def print_calibrated(found: Calibrated, pipeline: str, *, as_json: bool) -> None:
    """How far a pipeline's chances are off on the held-out half, and what one knows without them."""
    if as_json:
        print_json({"pipeline": pipeline, **asdict(found), "calibration": found.calibration.to_json()})
        return
    figures = [f"{value:.4f}" for value in (found.error, found.brier, found.usual_brier, found.relevant)]
    columns = ["pipeline", "method", "calibration error", "Brier", "Brier of the usual share", "relevant", "hits"]
    print_table(columns, [[pipeline, found.calibration.method, *figures, str(found.held_out_hits)]])
    halves = f"fitted on {found.training_queries} queries, measured on {found.held_out_queries} others"
    notes = [
        f"{halves}; hits that are not judged count as not relevant",
        f"search --pipeline {pipeline} --min-score 0.5 now keeps hits that are more likely relevant than not",
    ]
    if found.brier >= found.usual_brier:
        notes.append("the chances tell no more than the share of relevant hits does: more judged queries may help")
    print_notes(notes)


def _too_slow(found: Tuned, search: Search) -> bool:
    return search.latency_ms is not None and found.winner.latency.p95_ms > search.latency_ms


def _row(what: str, trial: Trial) -> list[str]:
    values = [f"{value:.4f}" for value in trial.result.means.values()]
    return [what, str(trial.spec), *values, f"{trial.latency.p50_ms:.1f}", f"{trial.latency.p95_ms:.1f}"]


def _facts(found: Tuned, search: Search, name: str) -> dict[str, Any]:
    return {
        "held_out_queries": found.given.result.queries,
        "training_queries": found.training_queries,
        "seed": search.seed,
        "latency_ms": search.latency_ms,
        "tried": found.tried,
        "given": _trial(found.given),
        "winner": _trial(found.winner),
        "front": [_trial(trial) for trial in found.front],
        "gain": asdict(found.gain) if found.gain else None,
        "kept_as": name or None,
        "evaluator": found.given.result.evaluator,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {"pipeline": str(trial.spec), "measures": dict(trial.result.means), "latency": asdict(trial.latency)}
