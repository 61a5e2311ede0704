"""Commands about models and the machine that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiercel.commands.options import AsJson
from tiercel.config import Backend, Precision, Settings
from tiercel.errors import UsageError
from tiercel.models.description import ModelFamily


def export(
    model: Annotated[
        str, typer.Argument(help="Model name, folder of (sentence-)transformers, or hub name.", metavar="MODEL")
    ],
    precision: Annotated[
        Precision | None, typer.Option(help="Of the products. Default: int8, on a GPU fp16, or what --bench chose.")
    ] = None,
    backend: Annotated[Backend | None, typer.Option(help="What is to run it. Default: onnxruntime.")] = None,
    family: Annotated[
        ModelFamily, typer.Option(help="What it is to be used as; a bi-encoder will do for late interaction.")
    ] = "encoder",
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure every form that runs here; later uses take the best.")
    ] = False,
    texts: Annotated[
        Path | None, typer.Option(help="With --bench: your own texts, one a line. Default: bundled ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a model into ONNX, prove that it gives the same, and keep it in the cache."""
    from tiercel.screen import say
    from tiercel.screen_models import print_bench, print_model

    settings = Settings.from_environment()
    if not bench:
        from tiercel.app import export_model

        if texts is not None:
            raise UsageError("--texts without --bench", expected="both: the texts are what is measured")
        folder = export_model(model, settings=settings, family=family, precision=precision, backend=backend, say=say)
        print_model(folder, as_json=as_json)
        return
    from tiercel.data.files import read_lines
    from tiercel.models.zoo import bench_model

    if precision or backend:
        raise UsageError("--precision or --backend with --bench", expected="--bench alone: it measures all of them")
    lines = None if texts is None else [line for _, line in read_lines(texts) if line.strip()]
    report = bench_model(model, family=family, settings=settings, texts=lines, progress=say)
    print_bench(report, as_json=as_json)


def models(as_json: AsJson = False) -> None:
    """List the models that this machine has: bundled packages and exports in the cache."""
    from tiercel.models.zoo import known_models
    from tiercel.screen_models import print_models

    print_models(known_models(Settings.from_environment().cache_dir), as_json=as_json)


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, providers, models, cache."""
    from tiercel.doctor import examine
    from tiercel.screen_models import print_checks

    checks = examine(Settings.from_environment())
    print_checks(checks, as_json=as_json)
    if any(check.status == "fails" for check in checks):
        raise typer.Exit(5)


def demo(
    data: Annotated[
        Path | None, typer.Option(help="BEIR folder. Default: the SciFact abstracts that come along.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Where to make the index. Default: .demo/scifact.tiercel, anew each time.")
    ] = None,
) -> None:
    """Index the SciFact abstracts, answer three questions, and evaluate on the 300 test queries."""
    from tiercel.demo import run_demo

    run_demo(data, index, settings=Settings.from_environment())
