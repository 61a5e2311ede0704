"""How is it served? What the command decides."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from tiercel.errors import UsageError

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What is served, to whom, and how much of it at a time.

    Attributes:
        index: that answers /search; None for a server without one.
        pipeline: of a search that names none; "" for every leg that the index has.
        reranker: model of /rerank, and the one that pipelines of callers may name; "" for none.
        encoder: model of /v1/embeddings and /embed; "" for none.
        host, port: where to listen; port 0 takes a free one.
        keys: bearer keys of which a caller has to have one; none: everybody is answered.
        changes: whether callers may add and delete documents.
        queue: requests of usual size that may wait; what is past them is refused with 429.
        batch: requests of usual size that run together at most.
        timeout_s: that a request may take from its first byte.
        max_body_bytes: of a request.
        refresh_s: seconds between looks for a later commit of the index.
    """

    index: Path | None = None
    pipeline: str = ""
    reranker: str = ""
    encoder: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    changes: bool = False
    queue: int = 256
    batch: int = 64
    timeout_s: float = 30.0
    max_body_bytes: int = 16 * MEGABYTE
    refresh_s: float = 1.0

    def __post_init__(self) -> None:
        if self.index is None and not self.reranker and not self.encoder:
            raise UsageError("nothing to serve", expected="an index, --reranker or --encoder")
        if self.index is None and (self.pipeline or self.changes):
            raise UsageError("--pipeline or --allow-changes without an index", expected="the index that they are for")
        if not self.is_local and not self.keys:
            raise UsageError(
                f"--host {self.host} without a key",
                expected="a key, as others can reach it there",
                next_step="Set TIERCEL_SERVE_KEY.",
            )
        if any(not key.isascii() or not key for key in self.keys):
            raise UsageError("a key that is empty or not ASCII", expected="one that fits a header")

    @property
    def is_local(self) -> bool:
        """Whether it can be reached from this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
