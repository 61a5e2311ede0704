"""What has the server done? Counted for Prometheus, in a registry of each server's own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tiercel.serving.batching import Batch

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Requests by path and status, what they took, what waits, and what ran together."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ("path", "status")
        self._requests = Counter("tiercel_requests", "Requests that were answered.", labels, registry=registry)
        self._seconds = Histogram(
            "tiercel_request_seconds",
            "From the first byte to the answer.",
            ("path",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._items = Histogram(
            "tiercel_batch_items", "Items of one run.", ("kind",), registry=registry, buckets=_ITEMS
        )
        self._busy = Counter("tiercel_batch_seconds", "Time that runs took.", ("kind",), registry=registry)
        self._waiting = Gauge("tiercel_waiting_characters", "Size of what waits.", registry=registry)
        self._documents = Gauge("tiercel_documents", "Documents of the index that answers.", registry=registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is the route's own, so that the names of documents make no series."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def ran(self, batch: Batch) -> None:
        """Count a batch."""
        kind = type(batch.kind).__name__.removesuffix("Kind").lower()
        self._items.labels(kind).observe(batch.items)
        self._busy.labels(kind).inc(batch.seconds)

    def watch(self, waiting: Callable[[], int], documents: Callable[[], int]) -> None:
        """Ask for these when somebody looks."""
        self._waiting.set_function(waiting)
        self._documents.set_function(documents)

    def text(self) -> bytes:
        """All of it, in Prometheus's text form."""
        return generate_latest(self._registry)
