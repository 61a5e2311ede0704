"""What the tests of this folder share: collections, a tiny exact encoder, and the shortest way to an open index."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiercel.config import TokenCodec
from tiercel.data.chunking import Chunking
from tiercel.index.analysis import analyzer
from tiercel.index.manifest import EncoderRecord, IndexSettings, TokensRecord
from tiercel.index.row_encoder import RowEncoder
from tiercel.index.store import Index
from tiercel.index.writer import IndexWriter
from tiercel.protocols import Encoder, JointEncoder, TokenEncoder
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


def direction(word: str, dimension: int) -> NDArray[np.float32]:
    """The fixed random unit vector of a word, shape (1, dimension)."""
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
    drawn = np.random.default_rng(seed).standard_normal((1, dimension))
    return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float32)


class HashedTokens:
    """Each word is a fixed random direction; of documents, stop words are skipped.

    Counts what it encodes: `encoded` holds the number of texts of each call. Documents are cut to `window` words.
    """

    STOP_WORDS = frozenset({"a", "the", "in", "is"})

    def __init__(self, dimension: int = 16, *, window: int = 1_000_000) -> None:
        self.dimension = dimension
        self.fingerprint = f"hashed-tokens-{dimension}-{window}"
        self.truncated = 0
        self.encoded: list[int] = []
        self._window = window

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return self._encode([text.lower().split() for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        words = [text.lower().split() for text in texts]
        self.truncated += sum(len(text) > self._window for text in words)
        return self._encode([[word for word in text[: self._window] if word not in self.STOP_WORDS] for text in words])

    def _encode(self, texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        self.encoded.append(len(texts))
        empty = np.zeros((0, self.dimension), dtype=np.float32)
        known = {word: direction(word, self.dimension) for words in texts for word in words}
        return [np.concatenate([empty, *(known[word] for word in words)]) for words in texts]


class JointWords(HashedWords):
    """HashedWords that gives the vectors of its words too. Counts the texts of each joint pass in `passes`."""

    def __init__(self, dimension: int = 16) -> None:
        super().__init__(dimension)
        self.tokens = HashedTokens(dimension)
        self.passes: list[int] = []

    def encode_documents_jointly(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        self.passes.append(len(texts))
        return self._encode(texts), self.tokens.encode_documents(texts)


def settings_of(
    name: str = "none",
    *,
    encoder: Encoder | None = None,
    tokens: TokenCodec | None = None,
    token_encoder: TokenEncoder | None = None,
    ann: str = "auto",
    chunking: Chunking | None = None,
    context: tuple[str, ...] = ("title",),
) -> IndexSettings:
    """Settings of an index with this analyser and encoder; `tokens` are the encoder's own without `token_encoder`."""
    record = kept = None
    if encoder is not None:
        record = EncoderRecord("hashed words", "fp32", encoder.fingerprint, encoder.dimension, 512)
    if tokens is not None:
        made = token_encoder or (encoder.tokens if isinstance(encoder, JointEncoder) else None)
        assert made is not None
        family: Literal["encoder", "late-interaction"] = "encoder" if token_encoder is None else "late-interaction"
        kept = TokensRecord("hashed words", family, "fp32", made.fingerprint, made.dimension, 512, tokens)
    return IndexSettings(
        name,
        analyzer(name).fingerprint,
        record,
        ann,
        chunking=chunking,
        chunking_fingerprint=chunking.fingerprint if chunking else "",
        context=context,
        tokens=kept,
    )


def row_encoder(
    settings: IndexSettings | None, encoder: Encoder | None, token_encoder: TokenEncoder | None = None
) -> RowEncoder:
    """The models of an index with these settings."""
    kept = settings.tokens if settings else None
    return RowEncoder(encoder, token_encoder, jointly=kept is not None and kept.of_encoder)


def build_index(
    path: Path,
    documents: Iterable[Document],
    settings: IndexSettings,
    *,
    encoder: Encoder | None = None,
    token_encoder: TokenEncoder | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Make an index of these documents, in place of whatever index was there."""
    with IndexWriter(path, create=True) as writer:
        writer.build(documents, settings, encoder=row_encoder(settings, encoder, token_encoder), progress=progress)


def add_documents(
    path: Path,
    documents: Iterable[Document],
    *,
    encoder: Encoder | None = None,
    token_encoder: TokenEncoder | None = None,
) -> None:
    """Add documents to an index."""
    with IndexWriter(path) as writer:
        writer.add(documents, encoder=row_encoder(writer.settings, encoder, token_encoder))


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
    tokens: TokenCodec | None = None,
    ann: str = "auto",
    chunking: Chunking | None = None,
) -> Index:
    """Build an index and open it."""
    made = settings_of(name, encoder=encoder, tokens=tokens, ann=ann, chunking=chunking)
    build_index(path, documents, made, encoder=encoder)
    return Index(path)


def files_of(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
