"""In which form is a model fastest on this machine without ranking otherwise? Every form that runs, beside torch."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiercel.errors import ModelError
from tiercel.models.choices import choice_file, write_choice
from tiercel.models.description import GRAPH_FILE, ModelSource, read_description
from tiercel.models.export import FamilyExport
from tiercel.models.forms import FORMS, Form, has_backend
from tiercel.models.parity import Parity
from tiercel.models.tracing import quiet

MIN_TOP10 = 0.95
MIN_SPEARMAN = 0.98
"""What the winner has to reach against torch fp32: mean overlap of the ten best, and mean rank correlation."""

_ROUNDS = 3

# What sentence-transformers takes where nothing is said.
_TORCH_BATCH = 32

# More texts would take minutes in torch and change nothing.
_TEXTS = 60
_FEWEST_TEXTS = 20

_Run = Callable[[], Any]
"""Gives what the family compares."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One form of a model, measured.

    Attributes:
        name: the form in words, or torch's.
        rate: texts or pairs per second, the median round.
        ratio: of that to torch fp32, the median of the rounds' ratios.
        spearman: mean rank correlation with torch fp32.
        top10: mean overlap of the ten best with those of torch fp32.
        size_bytes: of the graph; 0 for torch.
        passes: whether it may be chosen: it ranks as torch does, and Tiercel can run it.
    """

    name: str
    rate: float
    ratio: float
    spearman: float
    top10: float
    size_bytes: int
    passes: bool


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured, torch first, and what is kept.

    Attributes:
        unit: what the rates count.
        figures: every contestant.
        left_out: forms of the table that do not run here, with the reason.
        best: the form that later uses take.
        kept: the file that says so.
    """

    unit: str
    figures: Sequence[Figures]
    left_out: Sequence[str]
    best: Form
    kept: Path


def bench(
    export: FamilyExport[Any],
    source: ModelSource,
    *,
    cache_dir: Path,
    provider: str,
    workers: int,
    prepare: Callable[[Form], Path],
) -> BenchReport:
    """Measure every form that runs on the provider, and keep the fastest that ranks as torch does.

    The texts are those of `export`; `prepare` gives the folder of a form, which it exports where it is not there yet.
    Rounds are interleaved, so that a noisy machine slows all alike. Raises ModelError where the model cannot be
    exported, or no form passes.
    """
    forms, left_out = _runnable(provider)
    export.check_source()
    folders = {form: prepare(form) for form in forms}
    model = export.load()
    export.torch_batch = _TORCH_BATCH
    limit = read_description(next(iter(folders.values()))).max_tokens
    runs: dict[str, _Run] = _torch_runs(export, model, provider=provider, workers=workers, max_tokens=limit)
    reference = next(iter(runs.values()))()  # what is run later may need to know what was compared
    for form, folder in folders.items():
        export.form, export.workers = form, workers
        runs[str(form)] = _bound(export, folder, max_tokens=limit)
    values, rates = _measure(runs, count=export.count())
    names = {str(form): form for form in forms}
    figures = [
        _figures(name, rates, export.compare(reference, values[name]), folders[names[name]] if name in names else None)
        for name in runs
    ]
    passing = [found for found in figures if found.passes]
    if not passing:
        raise ModelError(
            "no form of the model ranks as torch does",
            expected=f"a rank correlation of {MIN_SPEARMAN} and {MIN_TOP10} of the ten best",
            next_step=export.other_model,
            where=str(source.folder),
        )
    best = names[max(passing, key=lambda found: found.rate).name]
    kept = choice_file(source, cache_dir, family=export.family, provider=provider)
    write_choice(kept, best, [dataclasses.asdict(found) for found in figures])
    return BenchReport(export.unit, figures, left_out, best, kept)


def check_texts(texts: Sequence[str]) -> list[str]:
    """At most as many texts as are measured, evenly over all. Raises ModelError for too few."""
    if len(texts) < _FEWEST_TEXTS:
        raise ModelError(
            f"{len(texts)} texts", expected=f"at least {_FEWEST_TEXTS}, to rank them", next_step="Give more texts"
        )
    places = np.unique(np.linspace(0, len(texts) - 1, min(_TEXTS, len(texts))).astype(int))
    return [texts[place] for place in places.tolist()]


def _runnable(provider: str) -> tuple[list[Form], list[str]]:
    forms, left_out = [], []
    for form in FORMS:
        if form.provider != provider:
            continue
        if reason := _why_not(form):
            left_out.append(f"{form}: {reason}")
        else:
            forms.append(form)
    return forms, left_out


def _why_not(form: Form) -> str:
    if not has_backend(form.backend):
        return f"{form.backend} is not installed"
    if form.precision == "bf16":
        from tiercel.models.openvino_runtime import has_bf16

        return "" if has_bf16() else "this processor does not compute in bf16"
    return ""


def _torch_runs(
    export: FamilyExport[Any], model: Any, *, provider: str, workers: int, max_tokens: int
) -> dict[str, _Run]:
    """What sentence-transformers gives, in fp32 on the CPU, and on a GPU also in fp16."""
    import torch

    # Graphs are traced with plain attention; torch itself is fastest with its own.
    with quiet():
        export.network(model).set_attn_implementation("sdpa")

    def on_cpu() -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(workers)
        try:
            return export.torch_values(model, max_tokens=max_tokens)
        finally:
            torch.set_num_threads(before)

    if provider == "cpu":
        return {"torch fp32": on_cpu}
    half = export.load().half().to("cuda")
    return {
        "torch fp32 on cpu": on_cpu,
        "torch fp16 on cuda": lambda: export.torch_values(half, max_tokens=max_tokens),
    }


def _bound(export: FamilyExport[Any], folder: Path, *, max_tokens: int) -> _Run:
    """The form's run, with the form in place that it was made for: batches depend on it."""
    run, form = export.runner(folder, max_tokens=max_tokens), export.form

    def bound() -> Any:
        export.form = form
        return run()

    return bound


def _measure(runs: dict[str, _Run], *, count: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    values = {name: run() for name, run in runs.items()}  # the first run of each pays for memory and code
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            rates[name].append(count / (time.perf_counter() - started))
    return values, rates


def _figures(name: str, rates: dict[str, list[float]], parity: Parity, folder: Path | None) -> Figures:
    first = next(iter(rates.values()))
    passes = folder is not None and parity.spearman >= MIN_SPEARMAN and parity.top10_agreement >= MIN_TOP10
    return Figures(
        name=name,
        rate=statistics.median(rates[name]),
        ratio=statistics.median(ours / theirs for ours, theirs in zip(rates[name], first, strict=True)),
        spearman=parity.spearman,
        top10=parity.top10_agreement,
        size_bytes=(folder / GRAPH_FILE).stat().st_size if folder else 0,
        passes=passes,
    )
