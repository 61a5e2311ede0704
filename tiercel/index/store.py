"""An index as a whole: opening a commit for reading, building one, keeping others out meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.index.analysis import Analyzer, analyzer
from tiercel.index.manifest import MANIFEST, IndexSettings, Manifest, SegmentRecord, commit_manifest, read_manifest
from tiercel.index.segment import SEGMENTS, Segment, SegmentWriter
from tiercel.protocols import Encoder
from tiercel.types import DocId, Document

_LOCK = "write.lock"
_BATCH_DOCUMENTS = 1_000
_BATCH_CHARACTERS = 4_000_000
_SEGMENT_DOCUMENTS = 1_000_000
_SEGMENT_CHARACTERS = 1_500_000_000
"""A segment ends at whichever comes first, which bounds the memory that a build takes however large the source is."""


class Index:
    """An index as its last commit left it. Later commits do not show in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, self.segments = _open_commit(path)
        self.analyzer = _enforced_analyzer(path, self.manifest.settings)

    def __len__(self) -> int:
        """Count the documents."""
        return self.manifest.documents

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        """The documents of these ids, in the same order. Raises IndexStoreError for an id that is not there."""
        return [self._document(doc_id) for doc_id in ids]

    def verify(self) -> None:
        """Read every byte. Raises IndexStoreError naming the first damaged file."""
        for segment in self.segments:
            segment.verify()

    def size_bytes(self) -> int:
        """Bytes of all files that this commit names, the manifest included."""
        files = (file for record in self.manifest.segments for file in record.files.values())
        return sum(file.size_bytes for file in files) + (self.path / MANIFEST).stat().st_size

    def _document(self, doc_id: DocId) -> Document:
        for segment in reversed(self.segments):  # the newest first
            ordinal = segment.documents.ordinal(doc_id)
            if ordinal is not None:
                return segment.documents.document(ordinal)
        raise IndexStoreError(f"no document has the id {doc_id!r}", where=str(self.path))


def build_index(  # noqa: PLR0913
    path: Path,
    documents: Iterable[Document],
    settings: IndexSettings,
    *,
    encoder: Encoder | None = None,
    replace: bool = True,
    threads: int = 1,
    progress: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Make an index of these documents in one commit, in place of whatever index was there if `replace` allows it.

    `progress` is told how many documents have been added each time some have. Until the commit an older index stays as
    it is, and an error or a kill leaves it so. Raises InputError when there is no document or an id comes twice, and
    IndexStoreError while another process writes the same index.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        with lock:
            before = read_manifest(path) if is_index(path) else None
            if before is not None and not replace:
                raise already_there(path)
            return _build(path, before, documents, settings, encoder, threads, progress)
    except Timeout:
        raise IndexStoreError(
            "another process is writing this index",
            where=str(path),
            next_step="Wait for it, or stop it, and try again.",
        ) from None


def already_there(path: Path) -> IndexStoreError:
    """The error for a place that another index has."""
    return IndexStoreError(
        "there is an index already",
        where=str(path),
        next_step="Add --replace to build it anew, or name another path.",
    )


def is_index(path: Path) -> bool:
    """Is there an index at this path?"""
    return (path / MANIFEST).exists()


def _build(  # noqa: PLR0913
    path: Path,
    before: Manifest | None,
    documents: Iterable[Document],
    settings: IndexSettings,
    encoder: Encoder | None,
    threads: int,
    progress: Callable[[int], None],
) -> Manifest:
    # The segments of the commit before stay for those who still read it; they go with the next build.
    _remove_garbage(path, before)
    records: list[SegmentRecord] = []
    first = before.next_segment if before else 1
    batches = _batches(_distinct(documents))
    try:
        for batch in batches:
            folder = path / SEGMENTS / f"{first + len(records):08d}"
            done = sum(record.documents for record in records)
            writer = SegmentWriter(folder, analyzer(settings.analyzer), encoder)
            try:
                writer.add(batch)
                while not _is_full(writer) and (more := next(batches, None)):
                    progress(done + writer.count)
                    writer.add(more)
                progress(done + writer.count)
                records.append(writer.finish(settings, threads=threads))
            finally:
                writer.close()
    except BaseException:
        _remove_garbage(path, before)  # a full disk should not stay full
        raise
    if not records:
        raise InputError("the source holds no document", expected="at least one", next_step="Check what was given.")
    manifest = Manifest((before.commit if before else 0) + 1, settings, tuple(records), first + len(records))
    commit_manifest(path, manifest)
    return manifest


def _is_full(writer: SegmentWriter) -> bool:
    return writer.count >= _SEGMENT_DOCUMENTS or writer.characters >= _SEGMENT_CHARACTERS


def _distinct(documents: Iterable[Document]) -> Iterator[Document]:
    seen: set[DocId] = set()
    for document in documents:
        if document.id in seen:
            raise RepeatedId(document.id)
        seen.add(document.id)
        yield document


class RepeatedId(InputError):
    """Two documents of one source have the same id."""

    def __init__(self, doc_id: DocId, places: Sequence[str] = ()) -> None:
        self.doc_id = doc_id
        super().__init__(
            f"the id {doc_id!r} comes twice" + (f": {' and '.join(places)}" if places else ""),
            expected="each document once",
            next_step="Rename or remove one of them. Nothing was indexed.",
        )


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Batches bounded in documents and in characters, so that a few huge texts do not come all at once."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text) + len(document.title)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _open_commit(path: Path) -> tuple[Manifest, list[Segment]]:
    """The last commit. A writer may replace the manifest just read and remove its segments; then its commit counts."""
    manifest = read_manifest(path)
    try:
        folder = path / SEGMENTS
        return manifest, [Segment(folder / record.id, record, manifest.settings) for record in manifest.segments]
    except IndexStoreError:
        if read_manifest(path).commit == manifest.commit:
            raise
    return _open_commit(path)


def _enforced_analyzer(path: Path, settings: IndexSettings) -> Analyzer:
    try:
        found = analyzer(settings.analyzer)
    except UsageError as error:
        raise IndexStoreError(
            f"the index was built with analyzer {settings.analyzer!r}, which this Tiercel does not have",
            where=str(path),
            expected=error.expected,
            next_step="Build the index again.",
        ) from error
    if found.fingerprint != settings.analyzer_fingerprint:
        raise IndexStoreError(
            f"the index was built with analyzer {settings.analyzer!r} of fingerprint {settings.analyzer_fingerprint}",
            where=str(path),
            expected=f"{found.fingerprint}, which this Tiercel's has",
            next_step="Queries would be cut into other terms than the documents were: build the index again.",
        )
    return found


def _remove_garbage(path: Path, manifest: Manifest | None) -> None:
    """Remove the segments that the manifest does not name: left by a killed build, or replaced."""
    named = {record.id for record in manifest.segments} if manifest else set()
    folder = path / SEGMENTS
    for segment in sorted(folder.iterdir()) if folder.is_dir() else ():
        if segment.name not in named:
            shutil.rmtree(segment, ignore_errors=True)
