"""Commands about models and the machine that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiercel.commands.options import AsJson
from tiercel.config import Precision, Settings
from tiercel.models.description import ModelFamily


def export(
    model: Annotated[
        str, typer.Argument(help="Model name, folder of (sentence-)transformers, or hub name.", metavar="MODEL")
    ],
    precision: Annotated[Precision, typer.Option(help="Number format of the weights.")] = "int8",
    family: Annotated[
        ModelFamily, typer.Option(help="What it is to be used as; a bi-encoder will do for late interaction.")
    ] = "encoder",
) -> None:
    """Turn a model into ONNX, prove that it gives the same, and keep it in the cache."""
    from tiercel.app import export_model
    from tiercel.screen import print_model, say

    settings = Settings.from_environment()
    print_model(export_model(model, settings=settings, family=family, precision=precision, say=say))


def models(as_json: AsJson = False) -> None:
    """List the models that this machine has: bundled packages and exports in the cache."""
    from tiercel.models.zoo import known_models
    from tiercel.screen import print_models

    print_models(known_models(Settings.from_environment().cache_dir), as_json=as_json)


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: packages, providers, models, cache."""
    from tiercel.doctor import examine
    from tiercel.screen import print_checks

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
