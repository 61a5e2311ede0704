"""Commands that answer other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiercel.commands.options import Pipeline
from tiercel.errors import UsageError

Index = Annotated[Path | None, typer.Argument(help="Folder of the index that answers searches.", metavar="INDEX")]
Reranker = Annotated[str, typer.Option(help="Model that reranks: an exported folder or a hub name.", metavar="MODEL")]


def serve(
    index: Index = None,
    pipeline: Pipeline = "",
    reranker: Reranker = "",
    encoder: Annotated[str, typer.Option(help="Model of /v1/embeddings and /embed.", metavar="MODEL")] = "",
    host: Annotated[str, typer.Option(help="Where to listen. Anything but this machine asks for a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Bearer key; repeat for more. Others see a command line: set TIERCEL_SERVE_KEY instead."),
    ] = None,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Let callers add and delete.")] = False,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are refused with 429.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Requests that run together at most.")] = 64,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 30.0,
    max_body: Annotated[float, typer.Option(min=0.001, help="Megabytes that a request may have.")] = 16.0,
) -> None:
    """Answer over HTTP: /search, /rerank, /v1/embeddings, /embed, /documents, a page at /."""
    _needs("serve", "fastapi", "uvicorn", "prometheus_client")
    from tiercel.screen import say
    from tiercel.serving.options import MEGABYTE, ServeOptions
    from tiercel.serving.running import serve as run

    options = ServeOptions(
        index=index,
        pipeline=pipeline,
        reranker=reranker,
        encoder=encoder,
        host=host,
        port=port,
        keys=tuple(key or ()),
        changes=allow_changes,
        queue=queue,
        batch=batch,
        timeout_s=timeout,
        max_body_bytes=int(max_body * MEGABYTE),
    )
    run(options, say=say)


def mcp(
    index: Annotated[Path, typer.Argument(help="Folder of the index.", metavar="INDEX")],
    pipeline: Pipeline = "",
    reranker: Reranker = "",
) -> None:
    """Offer search, get_document and rerank over the Model Context Protocol, on standard input and output."""
    _needs("mcp", "mcp")
    from tiercel.serving.tools import run

    run(index, pipeline=pipeline, reranker=reranker)


def _needs(extra: str, *modules: str) -> None:
    from importlib.util import find_spec

    if missing := [name for name in modules if find_spec(name) is None]:
        raise UsageError(
            f"the package {missing[0]} is not installed", next_step=f"Install it with: pip install 'tiercel[{extra}]'"
        )
