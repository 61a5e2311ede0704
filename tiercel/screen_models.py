"""What does one see of models, and of the machine that runs them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tiercel.screen import print_json, print_notes, print_table, shown_size

if TYPE_CHECKING:
    from pathlib import Path

    from tiercel.doctor import Check
    from tiercel.models.bench import BenchReport
    from tiercel.models.zoo import KnownModel


def print_model(folder: Path, *, as_json: bool = False) -> None:
    """What an exported model is, and how near it is to its source."""
    from tiercel.models.description import read_description

    description = read_description(folder)
    if as_json:
        facts = asdict(description)
        del facts["probe"]
        print_json({**facts, "folder": str(folder)})
        return
    rows = [
        ["model", f"{description.name} ({description.source})"],
        ["family", description.family],
        ["folder", str(folder)],
        ["backend", description.backend],
        ["precision", description.precision],
        *([["dimension", str(description.dimension)]] if description.dimension else []),
        ["max tokens", str(description.max_tokens)],
        *([["max query tokens", str(query["max_tokens"])]] if (query := description.extra.get("query")) else []),
        ["graph", description.graph],
        ["licence", description.licence or "not stated"],
        *([key.replace("_", " "), f"{value:.6g}"] for key, value in description.parity.items()),
        ["fingerprint", description.fingerprint],
    ]
    print_table(["", ""], rows, header=False)


def print_bench(report: BenchReport, *, as_json: bool) -> None:
    """How fast a model is in each form, how near to torch, and which form later uses take."""
    from tiercel.models.bench import MIN_SPEARMAN, MIN_TOP10

    if as_json:
        print_json(
            {
                "unit": report.unit,
                "forms": [asdict(found) for found in report.figures],
                "left_out": list(report.left_out),
                "bar": {"spearman": MIN_SPEARMAN, "top10": MIN_TOP10},
                "best": asdict(report.best),
                "kept": str(report.kept),
            }
        )
        return
    rows = [
        [
            found.name,
            f"{found.rate:.1f}",
            f"{found.ratio:.2f}",
            f"{found.spearman:.4f}",
            f"{found.top10:.3f}",
            shown_size(found.size_bytes) if found.size_bytes else "",
        ]
        for found in report.figures
    ]
    print_table(["form", f"{report.unit}/s", "ratio", "spearman", "top 10", "size"], rows)
    notes = [f"not measured: {line}" for line in report.left_out]
    bar = f"of those with a rank correlation of {MIN_SPEARMAN} and {MIN_TOP10} of the ten best of torch fp32"
    notes.append(f"later uses of this model take {report.best}, the fastest {bar}; kept in {report.kept}")
    print_notes(notes)


def print_models(models: Sequence[KnownModel], *, as_json: bool) -> None:
    """What models this machine has: name, family, precision, size, licence, digest, folder."""
    if as_json:
        print_json({"models": [{**asdict(model), "folder": str(model.folder)} for model in models]})
        return
    rows = [
        [
            model.name,
            model.family or "bundled, not exported",
            model.backend,
            model.precision,
            shown_size(model.size_bytes),
            model.licence or "not stated",
            model.digest[:16],
            str(model.folder),
        ]
        for model in models
    ]
    print_table(["model", "family", "backend", "precision", "size", "licence", "digest", "folder"], rows)


def print_checks(checks: Sequence[Check], *, as_json: bool) -> None:
    """What `doctor` found."""
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
        return
    print_table(["", "check", "found"], [[check.status, check.name, check.found] for check in checks], header=False)
