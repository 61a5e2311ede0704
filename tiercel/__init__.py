"""Tiercel: index text, answer queries through a cascade of stages, evaluate the result."""

from tiercel.errors import (
    IndexStoreError,
    InputError,
    ModelError,
    PartialFailure,
    TiercelError,
    UsageError,
)
from tiercel.types import DocId, Document, Hit, Passage, Query, QueryId, Ranking

__version__ = "0.1.0"

__all__ = [
    "DocId",
    "Document",
    "Hit",
    "IndexStoreError",
    "InputError",
    "ModelError",
    "PartialFailure",
    "Passage",
    "Query",
    "QueryId",
    "Ranking",
    "TiercelError",
    "UsageError",
]
