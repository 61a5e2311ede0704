"""What does a caller read? The one form of a refusal, and which status an error has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse

from tiercel.errors import IndexStoreError, InputError, ModelError, TiercelError, UsageError
from tiercel.serving.batching import QueueFullError
from tiercel.serving.engine import NotReadyError, NotServedError

_STATUS: Sequence[tuple[type[TiercelError], int, str]] = (
    (QueueFullError, 429, "overloaded"),
    (NotReadyError, 503, "not_ready"),
    (NotServedError, 404, "not_served"),
    (UsageError, 422, "usage"),
    (InputError, 422, "input"),
    (IndexStoreError, 503, "index"),
    (ModelError, 503, "model"),
)


def refusal(status: int, error_type: str, error: str, *, retry_after_s: int = 0) -> JSONResponse:
    """`{"error", "error_type"}` with a status, and with Retry-After where waiting helps."""
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return JSONResponse({"error": error, "error_type": error_type}, status, headers)


def refusal_of(error: TiercelError) -> JSONResponse:
    """The refusal that an error is."""
    status, error_type = next(
        ((status, name) for kind, status, name in _STATUS if isinstance(error, kind)), (500, "internal")
    )
    wait = error.retry_after_s if isinstance(error, QueueFullError) else 1 if status == 503 else 0
    return refusal(status, error_type, str(error), retry_after_s=wait)


def in_words(errors: Sequence[Any]) -> str:
    """What pydantic found, without the values, which may be long or secret."""
    found = []
    for error in errors[:5]:
        place = ".".join(str(part) for part in error["loc"] if part != "body")
        found.append(f"{place}: {error['msg']}" if place else str(error["msg"]))
    return "; ".join(found) + ("; …" if len(errors) > 5 else "")
