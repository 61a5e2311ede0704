"""What makes up the index now? The one file that decides, its checks, and the atomic commit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tiercel.config import Precision, TokenCodec
from tiercel.data.chunking import Chunking
from tiercel.errors import IndexStoreError
from tiercel.index.files import FileRecord, make_durable, reached

if TYPE_CHECKING:
    from tiercel.index.columns import ColumnType

FORMAT = 2
"""Raised when an older Tiercel could not read what this one writes. Independent of the package version."""

MANIFEST = "manifest.json"
SEGMENTS = "segments"
DELETES = "deletes"
COMMITS = "commits"

DEFAULT_RECALL = 0.98


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """Which encoder made the vectors: enough to find it again, and its fingerprint to be sure."""

    name: str
    precision: Precision
    fingerprint: str
    dimension: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class TokensRecord:
    """Which model made the token vectors, and how they are kept.

    Attributes:
        name: of the model, as the user called it.
        family: "encoder": the index's own encoder, in the pass that makes the vectors of its rows;
            "late-interaction": a model beside it.
        precision: of its weights.
        fingerprint: of what encodes tokens, which is what is compared.
        dimension: of each token's vector.
        max_tokens: most tokens of one row; the rest of it is cut.
        codec: the form in which they are kept.
    """

    name: str
    family: Literal["encoder", "late-interaction"]
    precision: Precision
    fingerprint: str
    dimension: int
    max_tokens: int
    codec: TokenCodec

    @property
    def of_encoder(self) -> bool:
        """Whether the index's own encoder made them."""
        return self.family == "encoder"


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What is fixed when an index is made, and refused when it differs later.

    Attributes:
        analyzer: name of the analyser; `analyzer_fingerprint` is what is compared.
        encoder: None for an index without vectors.
        ann: "auto", "flat", "hnsw", "ivf" or a FAISS factory string.
        recall: share of the exact 100 nearest that an ANN is tuned to find.
        chunking: how documents are cut into passages; None: every document is one. `chunking_fingerprint` is what is
            compared, "" for None.
        context: what precedes a passage's own text when it is analysed and encoded: "title", "headings".
        declared: types of metadata columns that the user named, as `tiercel.index.columns` reads them.
        tokens: None for an index without token vectors.
    """

    analyzer: str
    analyzer_fingerprint: str
    encoder: EncoderRecord | None
    ann: str = "auto"
    recall: float = DEFAULT_RECALL
    chunking: Chunking | None = None
    chunking_fingerprint: str = ""
    context: tuple[str, ...] = ("title",)
    declared: Mapping[str, ColumnType] = field(default_factory=dict)
    tokens: TokensRecord | None = None


@dataclass(frozen=True, slots=True)
class AnnRecord:
    """How one segment's vectors are searched, and how well.

    Attributes:
        factory: FAISS factory string, "flat" for exact search.
        effort: efSearch of a graph, nprobe of an inverted file; 0 for exact search and where nothing can be set.
        overfetch: how many times the wanted number of candidates is fetched before exact rescoring.
        recall: share of the exact 100 nearest that were found on sampled vectors; None where search is exact.
    """

    factory: str
    effort: int = 0
    overfetch: int = 2
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How many token vectors a segment has.

    Attributes:
        vectors: of all its rows together.
        truncated: rows longer than the window of the model that made them. A merge adds up.
    """

    vectors: int
    truncated: int


@dataclass(frozen=True, slots=True)
class DeletesRecord:
    """Which documents of a segment no longer count, as of one commit.

    Attributes:
        folder: name of its folder in `deletes/`.
        documents: number of them.
        rows: number of their passages.
        terms: length of these, in terms.
        files: by path relative to the folder, in ascending order.
    """

    folder: str
    documents: int
    rows: int
    terms: int
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One immutable segment, and what has been deleted from it since it was written.

    Attributes:
        id: name of its folder in `segments/`.
        documents: number of documents, deleted ones included, as in all that follow.
        rows: number of passages, which are what both legs rank; one a document where documents are not cut.
        terms: length of all rows together, in terms.
        truncated: rows longer than the encoder's window, of which only the beginning was encoded. A merge adds up.
        ann: None without vectors.
        files: by path relative to the segment's folder, in ascending order.
        deletes: None while every document counts.
        tokens: None without token vectors.
    """

    id: str
    documents: int
    rows: int
    terms: int
    truncated: int
    ann: AnnRecord | None
    files: Mapping[str, FileRecord]
    deletes: DeletesRecord | None = None
    tokens: TokenCount | None = None

    @property
    def live_documents(self) -> int:
        """Number of documents that count."""
        return self.documents - (self.deletes.documents if self.deletes else 0)

    @property
    def live_rows(self) -> int:
        """Number of rows that count."""
        return self.rows - (self.deletes.rows if self.deletes else 0)

    @property
    def live_terms(self) -> int:
        """Length in terms of the rows that count."""
        return self.terms - (self.deletes.terms if self.deletes else 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of an index after one commit, numbered from 1.

    Attributes:
        columns: the metadata columns of all segments and their types, by name.
        segments: in the order they were written.
        next_segment: number of the next segment.
    """

    commit: int
    settings: IndexSettings
    columns: Mapping[str, ColumnType]
    segments: tuple[SegmentRecord, ...]
    next_segment: int

    @property
    def documents(self) -> int:
        """Number of documents that count."""
        return sum(segment.live_documents for segment in self.segments)

    @property
    def rows(self) -> int:
        """Number of rows that count."""
        return sum(segment.live_rows for segment in self.segments)

    @property
    def folders(self) -> set[str]:
        """What the commit needs, as paths below the index: segments and deletes."""
        deletes = {f"{DELETES}/{record.deletes.folder}" for record in self.segments if record.deletes}
        return deletes | {f"{SEGMENTS}/{record.id}" for record in self.segments}


def read_manifest(index: Path, commit: int | None = None) -> Manifest:
    """Read what the last commit left, or an earlier one that is still kept.

    Raises IndexStoreError where there is none, or none that can be read.
    """
    path = index / MANIFEST if commit is None else commit_file(index, commit)
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
    """Replace the manifest in one rename: a reader sees the commit before or this one, never half.

    The same content is also written to `commits/<number>.json`, which is what readers of this commit hold on to.
    """
    content: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    content["digest"] = _digest(content)
    data = json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
    held = commit_file(index, manifest.commit)
    held.parent.mkdir(exist_ok=True)
    _write_durably(held, data)
    make_durable(held.parent)
    reached("commit kept")
    beside = index / (MANIFEST + ".new")
    _write_durably(beside, data)
    make_durable(index)
    reached("manifest written")
    beside.replace(index / MANIFEST)
    reached("manifest renamed")
    make_durable(index)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def commit_file(index: Path, commit: int) -> Path:
    """The file that readers of a commit hold on to."""
    return index / COMMITS / f"{commit:08d}.json"


def _from_json(content: Mapping[str, Any]) -> Manifest:
    settings = content["settings"]
    encoder, chunking = settings["encoder"], settings["chunking"]
    tokens = settings.get("tokens")  # since format 2
    return Manifest(
        commit=content["commit"],
        settings=IndexSettings(
            **{
                **settings,
                "encoder": None if encoder is None else EncoderRecord(**encoder),
                "chunking": None if chunking is None else Chunking(**chunking),
                "context": tuple(settings["context"]),
                "tokens": None if tokens is None else TokensRecord(**tokens),
            }
        ),
        columns=dict(content["columns"]),
        segments=tuple(map(_segment_from_json, content["segments"])),
        next_segment=content["next_segment"],
    )


def _segment_from_json(record: Mapping[str, Any]) -> SegmentRecord:
    ann, deletes, tokens = record["ann"], record["deletes"], record.get("tokens")
    return SegmentRecord(
        **{
            **record,
            "ann": None if ann is None else AnnRecord(**ann),
            "files": _files_from_json(record),
            "deletes": None if deletes is None else DeletesRecord(**{**deletes, "files": _files_from_json(deletes)}),
            "tokens": None if tokens is None else TokenCount(**tokens),
        }
    )


def _files_from_json(record: Mapping[str, Any]) -> dict[str, FileRecord]:
    return {name: FileRecord(**file) for name, file in record["files"].items()}


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
