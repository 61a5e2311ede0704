"""What the tests of this folder share: collections, a tiny exact encoder, and the shortest way to an open index."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.data.chunking import Chunking
from tiercel.index.analysis import analyzer
from tiercel.index.manifest import EncoderRecord, IndexSettings
from tiercel.index.store import Index
from tiercel.index.writer import IndexWriter
from tiercel.protocols import Encoder
from tiercel.types import DocId, Document, Query, QueryId

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

FALCONS = [
    Document(DocId("d1"), "the falcon hunts pigeons"),
    Document(DocId("d2"), "a tiercel is a male falcon"),
    Document(DocId("d3"), "pigeons live in the city and in the city they breed"),
    Document(DocId("d4"), "the male pigeon"),
    Document(DocId("d5"), "falcon falcon falcon"),
    Document(DocId("d6"), "nothing to see"),
]


def named(texts: Iterable[str], *, shape: str = "d{:05d}") -> list[Document]:
    """Documents with ids that sort as they come."""
    return [Document(DocId(shape.format(i)), text) for i, text in enumerate(texts)]


def asked(*texts: str) -> list[Query]:
    """Queries q0, q1, ..."""
    return [Query(QueryId(f"q{i}"), text) for i, text in enumerate(texts)]


def zipf_texts(count: int, *, words: int, seed: int, longest: int = 12) -> list[str]:
    """Texts of 0 to `longest` words, few of them frequent and many rare."""
    drawn = random.Random(seed)
    names = [f"w{i}" for i in range(words)]
    weights = [1 / (i + 1) for i in range(words)]
    return [" ".join(drawn.choices(names, weights, k=drawn.randint(0, longest))) for _ in range(count)]


class HashedWords:
    """Bag of words: each word is a fixed random direction, a text their sum, made unit. No word: the first axis."""

    truncated = 0

    def __init__(self, dimension: int = 16) -> None:
        self.dimension = dimension
        self.fingerprint = f"hashed-words-{dimension}"

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode(texts)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            words = text.lower().split()
            total = sum((self._direction(word) for word in words), np.zeros(self.dimension))
            row[:] = total / np.linalg.norm(total) if words else np.eye(self.dimension)[0]
        return rows

    def _direction(self, word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.dimension)


def settings_of(
    name: str = "none",
    *,
    encoder: Encoder | None = None,
    ann: str = "auto",
    chunking: Chunking | None = None,
    context: tuple[str, ...] = ("title",),
) -> IndexSettings:
    """Settings of an index with this analyser and encoder."""
    record = None
    if encoder is not None:
        record = EncoderRecord("hashed words", "fp32", encoder.fingerprint, encoder.dimension, 512)
    return IndexSettings(
        name,
        analyzer(name).fingerprint,
        record,
        ann,
        chunking=chunking,
        chunking_fingerprint=chunking.fingerprint if chunking else "",
        context=context,
    )


def build_index(
    path: Path,
    documents: Iterable[Document],
    settings: IndexSettings,
    *,
    encoder: Encoder | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Make an index of these documents, in place of whatever index was there."""
    with IndexWriter(path, create=True) as writer:
        writer.build(documents, settings, encoder=encoder, progress=progress)


def add_documents(path: Path, documents: Iterable[Document], *, encoder: Encoder | None = None) -> None:
    """Add documents to an index."""
    with IndexWriter(path) as writer:
        writer.add(documents, encoder=encoder)


def delete_documents(path: Path, *ids: str) -> list[str]:
    """Delete documents; returns the ids that were not there."""
    with IndexWriter(path) as writer:
        return writer.delete(ids)


def compact_index(path: Path) -> None:
    """Merge all segments into one."""
    with IndexWriter(path) as writer:
        writer.compact()


def indexed(
    path: Path,
    documents: Iterable[Document],
    name: str = "none",
    *,
    encoder: Encoder | None = None,
    ann: str = "auto",
    chunking: Chunking | None = None,
) -> Index:
    """Build an index and open it."""
    build_index(path, documents, settings_of(name, encoder=encoder, ann=ann, chunking=chunking), encoder=encoder)
    return Index(path)


def files_of(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
