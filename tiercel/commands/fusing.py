"""The command that makes one run of several."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from tiercel.data.runs import RunFormat
from tiercel.errors import UsageError
from tiercel.retrieve.fusion import METHODS, RRF_K, FusionMethod, fuse_runs


def fuse(
    runs: Annotated[list[str], typer.Argument(help="Run files, at least two.", metavar="RUN RUN...")],
    out: Annotated[str, typer.Option(help="Write the fused run there; - for stdout, in TREC form.", metavar="FILE")],
    method: Annotated[
        FusionMethod, typer.Option(help="By ranks (rrf, interleave), normalised scores (minmax) or scores (wsum).")
    ] = FusionMethod.RRF,
    k: Annotated[float | None, typer.Option("--k", min=0, help=f"The constant of rrf. Default: {RRF_K}.")] = None,
    weights: Annotated[str, typer.Option(help="One for each run, as in 0.3,0.7.")] = "",
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the runs, if they do not tell.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="Hits per query that are kept.")] = 1000,
) -> None:
    """Fuse the rankings of several runs, query by query."""
    from tiercel.data.runs import read_run, write_run

    if len(runs) < 2:
        raise UsageError("one run", expected="at least two: tiercel fuse RUN RUN --out FILE")
    if k is not None and method is not FusionMethod.RRF:
        raise UsageError(f"--k with {method}", expected="--method rrf: no other has such a constant")
    weighed = _weights(weights, len(runs)) if weights else None
    if weighed and method is FusionMethod.INTERLEAVE:
        raise UsageError("--weights with interleave", expected="another method: turns have no weights")
    how = METHODS[method] if k is None else partial(METHODS[method], k=k)
    rankings = [read_run(name, format=run_format) for name in runs]
    fused = fuse_runs(rankings, how, keep=keep, weights=weighed)
    write_run(fused, out, format="trec" if out == "-" else None, tag=str(method))


def _weights(text: str, count: int) -> list[float]:
    try:
        weights = [float(cell) for cell in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) == count and all(0 <= weight < float("inf") for weight in weights):
        return weights
    raise UsageError(f"the weights {text!r}", expected=f"{count} numbers of at least 0, as in 0.3,0.7")
