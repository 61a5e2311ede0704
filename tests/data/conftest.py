"""What the tests of this folder share: small files, and a standard input made of bytes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

Write = Callable[[str, str | bytes], Path]
FeedStdin = Callable[[bytes], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into the test's folder, its parent folders too, and give its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def feed_stdin(monkeypatch: pytest.MonkeyPatch) -> FeedStdin:
    def feed(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return feed


@pytest.fixture
def scifact() -> Path:
    """The real collection that comes along with the project."""
    return Path(__file__).parents[2] / "examples" / "scifact"
