"""Tiercel: index text, answer queries through a cascade of stages, evaluate the result."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tiercel.errors import (
    IndexStoreError,
    InputError,
    ModelError,
    PartialFailure,
    TiercelError,
    UsageError,
)
from tiercel.types import DocId, Document, FoundDocument, Hit, Passage, Query, QueryId, Ranking

if TYPE_CHECKING:
    from tiercel.api import (
        Context,
        SearchIndex,
        context,
        create,
        encode,
        encode_async,
        open,
        rerank,
        rerank_async,
    )
    from tiercel.index_settings import IndexOptions

__version__ = "0.1.0"

__all__ = [
    "Context",
    "DocId",
    "Document",
    "FoundDocument",
    "Hit",
    "IndexOptions",
    "IndexStoreError",
    "InputError",
    "ModelError",
    "PartialFailure",
    "Passage",
    "Query",
    "QueryId",
    "Ranking",
    "SearchIndex",
    "TiercelError",
    "UsageError",
    "context",
    "create",
    "encode",
    "encode_async",
    "open",
    "rerank",
    "rerank_async",
]

_LATER = dict.fromkeys(
    "Context SearchIndex context create encode encode_async open rerank rerank_async".split(), "tiercel.api"
) | {"IndexOptions": "tiercel.index_settings"}
"""What is imported when it is first asked for, and from where: `import tiercel` loads the standard library alone."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'tiercel' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
