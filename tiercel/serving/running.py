"""A server from its start to its end: where it listens, and how it stops."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from tiercel.errors import UsageError
from tiercel.serving.options import ServeOptions
from tiercel.serving.web import make_app

_GRACE_S = 10  # for requests that are under way when it is told to stop
_WAITING_CONNECTIONS = 512


def serve(options: ServeOptions, *, say: Callable[[str], None]) -> None:
    """Answer until SIGINT or SIGTERM; then take no more, and finish what is under way.

    Raises UsageError for an address or a port that cannot be had.
    """
    listening = _listening(options)
    port = listening.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    say(f"serving at http://{host}:{port}")
    config = uvicorn.Config(
        make_app(options, say=say),
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listening(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"{options.host}:{options.port} cannot be listened at ({error})",
            expected="an address of this machine with a free port",
            next_step="Name another with --port; 0 takes a free one.",
        ) from None
    listening.listen(_WAITING_CONNECTIONS)
    return listening
