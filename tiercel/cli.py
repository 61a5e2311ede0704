"""The command line: arguments in, exit code out. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tiercel.commands.comparing import compare
from tiercel.commands.evaluating import evaluate
from tiercel.commands.explaining import explain
from tiercel.commands.fusing import fuse
from tiercel.commands.indexing import compact, delete, index, info, verify
from tiercel.commands.models import demo, doctor, export, models
from tiercel.commands.probing import bench, probe
from tiercel.commands.reranking import rerank
from tiercel.commands.searching import search
from tiercel.commands.serving import mcp, serve
from tiercel.commands.training import adapt, mine, train
from tiercel.commands.tuning import calibrate, tune
from tiercel.errors import IndexStoreError, TiercelError


class _Commands(TyperGroup):
    """Say what typer leaves unsaid (an interrupt) and takes for a failure (a reader that has seen enough)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("tiercel: interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader, as in `| head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


app = typer.Typer(
    cls=_Commands,
    name="tiercel",
    help="Index text and answer queries through a cascade of stages: BM25 and dense recall, fusion, rerankers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "TIERCEL", "help_option_names": ["-h", "--help"]},
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "index": index,
    "delete": delete,
    "compact": compact,
    "search": search,
    "explain": explain,
    "eval": evaluate,
    "compare": compare,
    "fuse": fuse,
    "probe": probe,
    "tune": tune,
    "calibrate": calibrate,
    "bench": bench,
    "rerank": rerank,
    "mine": mine,
    "train": train,
    "adapt": adapt,
    "serve": serve,
    "mcp": mcp,
    "export": export,
    "models": models,
    "info": info,
    "verify": verify,
    "doctor": doctor,
    "demo": demo,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        from tiercel import __version__

        typer.echo(f"tiercel {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        # Not from TIERCEL_VERSION: that is where an image or a script keeps which version to install.
        typer.Option(
            "--version", callback=_version, is_eager=True, allow_from_autoenv=False, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code; the entry point of the shell command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # what goes into a pipe or a file, whatever a terminal here would show
    try:
        app(args=None if arguments is None else list(arguments))
    except TiercelError as error:
        _leave(error)
    except OSError as error:
        _leave(IndexStoreError(f"the system refused: {error}", next_step="Check the disk's space and permissions."))


def _leave(error: TiercelError) -> NoReturn:
    from tiercel.screen import say

    say(str(error))
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
