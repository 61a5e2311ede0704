"""Who comes in, and with how much? Keys, hosts, sizes and time, checked before a request is parsed."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

from tiercel.serving.answers import refusal
from tiercel.serving.options import ServeOptions

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/", "/health", "/ready"})
"""What is answered without a key: the page, which holds nothing but itself, and what a supervisor asks."""

_BODIES_AT_ONCE = 8  # of the largest size that may be held in memory together
_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class Gate:
    """Lets a request through with its whole body read, or refuses it.

    A server on this machine alone answers to its names alone: a page elsewhere whose name is made to point here is
    refused (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app = app
        self._options = options
        self._keys = [key.encode() for key in options.keys]
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._options.is_local and not _is_local_name(headers.get(b"host", b"")):
            await refusal(400, "host", "this server answers to 127.0.0.1 and localhost")(scope, receive, send)
        elif scope["path"] not in OPEN_PATHS and not self._is_known(headers.get(b"authorization", b"")):
            response = refusal(401, "unauthorized", "no key, or a wrong one; expected `Authorization: Bearer KEY`")
            response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
        else:
            await self._within_limits(scope, receive, send)

    async def _within_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._options.max_body_bytes
        body = bytearray()
        begun = False

        async def counted_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._options.timeout_s):
                if _length(dict(scope["headers"]).get(b"content-length", b"0")) > most:
                    raise _TooLargeError
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    chunk = message.get("body", b"")
                    self._held += len(chunk)
                    body += chunk
                    if len(body) > most:
                        raise _TooLargeError
                    if self._held > _BODIES_AT_ONCE * most:
                        raise _BusyError
                    if not message.get("more_body", False):
                        break
                await self._app(scope, _replay(bytes(body), receive), counted_send)
        except TimeoutError:
            if not begun:
                said = f"it took longer than {self._options.timeout_s:g} s"
                await refusal(504, "timeout", said)(scope, receive, send)
        except _TooLargeError:
            await refusal(413, "too_large", f"the body has more than {most} bytes")(scope, receive, send)
        except _BusyError:
            await refusal(429, "overloaded", "too much is being read", retry_after_s=1)(scope, receive, send)
        finally:
            self._held -= len(body)

    def _is_known(self, given: bytes) -> bool:
        scheme, _, key = given.partition(b" ")
        matches = [hmac.compare_digest(key.strip(), known) for known in self._keys]
        return not self._keys or (scheme.lower() == b"bearer" and any(matches))


class _TooLargeError(Exception):
    pass


class _BusyError(Exception):
    pass


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _length(header: bytes) -> int:
    return int(header) if header.isdigit() else 0


def _is_local_name(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    return _without_port(name) in _LOCAL_NAMES


def _without_port(name: str) -> str:
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdigit() and not head.endswith(":") else name
