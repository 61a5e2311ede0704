"""What makes up the index now? The one file that decides, its checks, and the atomic commit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiercel.config import Precision
from tiercel.errors import IndexStoreError
from tiercel.index.files import make_durable

FORMAT = 1
"""Raised when an older Tiercel could not read what this one writes. Independent of the package version."""

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """Which encoder made the vectors: enough to find it again, and its fingerprint to be sure."""

    name: str
    precision: Precision
    fingerprint: str
    dimension: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What is fixed when an index is made, and refused when it differs later.

    Attributes:
        analyzer: name of the analyser; `analyzer_fingerprint` is what is compared.
        encoder: None for an index without vectors.
        ann: "auto", "flat", "hnsw" or a FAISS factory string.
    """

    analyzer: str
    analyzer_fingerprint: str
    encoder: EncoderRecord | None
    ann: str = "auto"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and BLAKE2b digest of one file of a segment."""

    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One immutable segment.

    Attributes:
        id: name of its folder.
        documents: number of documents.
        terms: length of all documents together, in terms.
        truncated: documents longer than the encoder's window, of which only the beginning was encoded.
        ann: FAISS factory string of its vectors, "flat" for exact search, "" without vectors.
        ann_recall: share of the exact 10 nearest that the ANN found on sampled vectors; None where search is exact.
        files: by path relative to the segment's folder, in ascending order.
    """

    id: str
    documents: int
    terms: int
    truncated: int
    ann: str
    ann_recall: float | None
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of an index after one commit, numbered from 1."""

    commit: int
    settings: IndexSettings
    segments: tuple[SegmentRecord, ...]
    next_segment: int

    @property
    def documents(self) -> int:
        """Number of documents in all segments."""
        return sum(segment.documents for segment in self.segments)


def read_manifest(index: Path) -> Manifest:
    """Read what the last commit left. Raises IndexStoreError where there is none, or none that can be read."""
    path = index / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise IndexStoreError(
            "there is no index here" if index.is_dir() else "no such folder",
            where=str(index),
            next_step=f"Make one with: tiercel index {index} SOURCE",
        ) from None
    except NotADirectoryError:
        raise IndexStoreError("this is a file", where=str(index), expected="the folder of an index") from None
    except OSError as error:
        raise IndexStoreError(
            f"the manifest cannot be read: {error.strerror}", where=str(path), next_step="Check its permissions."
        ) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise IndexStoreError(
            "this is not a manifest of Tiercel: it names no format", where=str(path), expected="the folder of an index"
        )
    if content["format"] > FORMAT:
        raise IndexStoreError(
            f"the index has format {content['format']}",
            where=str(path),
            expected=f"format {FORMAT} or older",
            next_step="It was written by a newer Tiercel: upgrade this one, or build another index.",
        )
    if content.get("digest") != _digest(content):
        raise _unreadable(path, "its content does not match its own digest")
    try:
        return _from_json(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, f"its fields are not those of format {content['format']} ({error})") from error


def commit_manifest(index: Path, manifest: Manifest) -> None:
    """Replace the manifest in one rename: a reader sees the commit before or this one, never half."""
    content: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    content["digest"] = _digest(content)
    beside = index / (MANIFEST + ".new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(index / MANIFEST)
    make_durable(index)


def _from_json(content: Mapping[str, Any]) -> Manifest:
    settings = content["settings"]
    encoder = settings["encoder"]
    segments = tuple(
        SegmentRecord(**{**record, "files": {name: FileRecord(**file) for name, file in record["files"].items()}})
        for record in content["segments"]
    )
    return Manifest(
        commit=content["commit"],
        settings=IndexSettings(**{**settings, "encoder": None if encoder is None else EncoderRecord(**encoder)}),
        segments=segments,
        next_segment=content["next_segment"],
    )


def _digest(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _unreadable(path: Path, problem: str) -> IndexStoreError:
    return IndexStoreError(
        f"the manifest cannot be read: {problem}",
        where=str(path),
        next_step=f"Remove the folder {path.parent} and build the index again.",
    )
