"""How does an index change? One writer at a time; every change is one commit, or none."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tiercel.config import OnDuplicate
from tiercel.data.files import is_unicode
from tiercel.errors import IndexStoreError, InputError, TiercelError
from tiercel.index.build import Intake, write_segments
from tiercel.index.columns import ColumnType, ColumnTypes
from tiercel.index.commits import Hold, remove_garbage
from tiercel.index.deletes import write_deletes
from tiercel.index.files import make_durable
from tiercel.index.journal import JOURNAL, EncodingJournal
from tiercel.index.manifest import (
    MANIFEST,
    SEGMENTS,
    IndexSettings,
    Manifest,
    SegmentRecord,
    commit_manifest,
    read_manifest,
)
from tiercel.index.merge import due_for_merge, merge_segments
from tiercel.index.row_encoder import BM25_ONLY, RowEncoder
from tiercel.index.segment import Plan, Segment
from tiercel.index.view import View
from tiercel.index.where import parse_where
from tiercel.types import Document

if TYPE_CHECKING:
    from tiercel.index.residual import Codec

LOCK = "write.lock"


@dataclass(frozen=True, slots=True)
class Added:
    """What an addition did: `documents` came in, `replaced` of them under an id that was there."""

    documents: int
    replaced: int


def is_index(path: Path) -> bool:
    """Is there an index at this path?"""
    return (path / MANIFEST).exists()


class IndexWriter:
    """The one writer of an index, for the duration of a `with` block.

    A change is seen by whoever opens or refreshes after its commit. An error or a kill leaves the last commit; what had
    been encoded is kept in the journal for the next try.

    Args:
        path: of the index.
        create: make the folder where there is none, for `build`.
        threads: for building ANNs.
        say: told in a line what a user should know.

    Raises IndexStoreError while another process writes and, unless it is to be created, where there is no index.
    """

    def __init__(
        self, path: Path, *, create: bool = False, threads: int = 1, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.path = path
        self.manifest: Manifest | None = None
        self._create = create
        self._threads = threads
        self._say = say
        self._lock = FileLock(path / LOCK, timeout=0)

    def __enter__(self) -> IndexWriter:
        """Keep others out."""
        if not self._create:
            read_manifest(self.path)
        elif not self.path.exists():
            self.path.mkdir(parents=True)
            make_durable(self.path.parent)
        try:
            self._lock.acquire()
        except Timeout:
            raise IndexStoreError(
                "another process is writing this index",
                where=str(self.path),
                next_step="Wait for it, or stop it, and try again.",
            ) from None
        try:
            self._clean_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let others in."""
        self._lock.release()

    @property
    def documents(self) -> int:
        """Number of documents that count."""
        return self.manifest.documents if self.manifest else 0

    @property
    def settings(self) -> IndexSettings | None:
        """What the index was made with; None where there is none."""
        return self.manifest.settings if self.manifest else None

    def build(
        self,
        documents: Iterable[Document],
        settings: IndexSettings,
        *,
        encoder: RowEncoder = BM25_ONLY,
        replace: bool = True,
        on_duplicate: OnDuplicate = "refuse",
        progress: Callable[[int], None] = lambda count: None,
    ) -> Added:
        """Make an index of these documents, in place of the one that is there if `replace` allows it.

        `progress` is told how many documents have been read each time some have. Raises InputError when there is no
        document, an id comes twice or metadata contradict themselves, and IndexStoreError for an encoder that is not
        the settings' or an index that is not to be replaced; nothing is changed then.
        """
        if self.manifest is not None and not replace:
            raise IndexStoreError(
                "an index has been made here meanwhile",
                where=str(self.path),
                next_step="Give the command again to add to it.",
            )
        encoder.check(self.path, settings)
        return self._write(
            documents, settings, replacing=True, encoder=encoder, on_duplicate=on_duplicate, progress=progress
        )

    def add(
        self,
        documents: Iterable[Document],
        *,
        encoder: RowEncoder = BM25_ONLY,
        declared: Mapping[str, ColumnType] | None = None,
        on_duplicate: OnDuplicate = "refuse",
        progress: Callable[[int], None] = lambda count: None,
    ) -> Added:
        """Add documents with the settings of the index; one whose id is there replaces that document in every leg.

        `declared` names types of further metadata columns, or has strings converted to the type that a column has.
        Raises as `build`, and UsageError where a declared type is not the column's.
        """
        has = self._last().settings
        encoder.check(self.path, has)
        settings = dataclasses.replace(has, declared={**has.declared, **(declared or {})})
        return self._write(
            documents, settings, replacing=False, encoder=encoder, on_duplicate=on_duplicate, progress=progress
        )

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete the documents of these ids. Returns the ids of which there is no document, in the order given."""
        manifest = self._last()
        views = self._views(manifest.segments, manifest.settings)
        masks, found = [], set[str]()
        wanted = pa.array([name for name in ids if is_unicode(name)], pa.string())
        for view in views:
            masks.append(_and_live(view, view.segment.documents.among(wanted)))
            found.update(view.segment.documents.ids(np.flatnonzero(masks[-1])))
        self._delete(views, masks)
        return [doc_id for doc_id in dict.fromkeys(ids) if doc_id not in found]

    def delete_where(self, where: str) -> int:
        """Delete the documents that an expression selects; returns how many. Raises UsageError as `parse_where`."""
        manifest = self._last()
        selected = parse_where(where, manifest.columns)
        views = self._views(manifest.segments, manifest.settings)
        masks = [_and_live(view, selected.mask(view.segment.columns, view.record.documents)) for view in views]
        self._delete(views, masks)
        return sum(int(mask.sum()) for mask in masks)

    def compact(self) -> bool:
        """Merge everything into one segment without deleted documents; False if it is one already."""
        records = self._last().segments
        if len(records) <= 1 and not any(record.deletes for record in records):
            return False
        self._merge(list(range(len(records))))
        return True

    def _clean_up(self) -> None:
        """Start from what is on the disk, where an error may have left more than the last commit names."""
        self.manifest = read_manifest(self.path) if is_index(self.path) else None
        remove_garbage(self.path, self.manifest)

    def _last(self) -> Manifest:
        return self.manifest or read_manifest(self.path)

    def _views(self, records: Sequence[SegmentRecord], settings: IndexSettings) -> list[View]:
        """These segments to read. The lock keeps them; a hold would keep them even from ourselves."""
        folder = self.path / SEGMENTS
        return [View(self.path, Segment(folder / record.id, record, settings), record, Hold()) for record in records]

    def _write(
        self,
        documents: Iterable[Document],
        settings: IndexSettings,
        *,
        replacing: bool,
        encoder: RowEncoder,
        on_duplicate: OnDuplicate,
        progress: Callable[[int], None],
    ) -> Added:
        before = self.manifest
        types = ColumnTypes(before.columns if before and not replacing else {}, settings.declared)
        journal = EncodingJournal(self.path, encoder) if encoder else None
        intake = Intake(documents, on_duplicate)
        try:
            old = self._views(before.segments, settings) if before and not replacing else []
            plan = Plan(settings, types, journal, _trained_codec(old), self._threads)
            records = write_segments(
                self.path, intake, plan, first=before.next_segment if before else 1, progress=progress
            )
            if not records:
                raise InputError(
                    "the source holds no document", expected="at least one", next_step="Check what was given."
                )
            self._say_what_was_found(records, settings, journal)
            new = self._views(records, settings)
            ids = pa.chunked_array([ids for view in new for ids in view.segment.documents.all_ids().chunks])
            masks = [*(view.segment.documents.among(ids) for view in old), *intake.superseded_in(records)]
            replaced = sum(int(_and_live(view, mask).sum()) for view, mask in zip(old, masks, strict=False))
            self._commit([*old, *new], masks, settings, types.types(), added=len(new))
        except BaseException:
            self._clean_up()  # a full disk should not stay full
            raise
        finally:
            if journal is not None:
                journal.close()
        shutil.rmtree(self.path / JOURNAL, ignore_errors=True)
        self._merge_what_is_due()
        documents_in = sum(record.documents for record in records) - len(intake.superseded)
        return Added(documents_in, replaced)

    def _delete(self, views: Sequence[View], masks: Sequence[NDArray[np.bool_]]) -> None:
        if not any(mask.any() for mask in masks):
            return
        manifest = self._last()
        try:
            self._commit(views, masks, manifest.settings, manifest.columns)
        except BaseException:
            self._clean_up()
            raise
        self._merge_what_is_due()

    def _commit(
        self,
        views: Sequence[View],
        masks: Sequence[NDArray[np.bool_]],
        settings: IndexSettings,
        columns: Mapping[str, ColumnType],
        added: int = 0,
    ) -> None:
        """Commit these segments, the last `added` of them new, less the documents that the masks name.

        What had been deleted before stays deleted; a segment of which nothing is left goes.
        """
        before = self.manifest
        commit = before.commit + 1 if before else 1
        records = []
        for view, mask in zip(views, masks, strict=True):
            record = view.record
            if _and_live(view, mask).any():
                dead = mask if view.deletes is None else mask | view.deletes.documents
                record = dataclasses.replace(record, deletes=write_deletes(self.path, view.segment, dead, commit))
            if record.live_documents:
                records.append(record)
        next_segment = (before.next_segment if before else 1) + added
        self._make_last(Manifest(commit, settings, columns, tuple(records), next_segment))

    def _make_last(self, manifest: Manifest) -> None:
        commit_manifest(self.path, manifest)
        self.manifest = manifest
        remove_garbage(self.path, manifest)

    def _merge_what_is_due(self) -> None:
        """Keep the segments few. The change that led here is committed; a merge that fails takes nothing from it."""
        try:
            while self.manifest and (due := due_for_merge(self.manifest.segments)):
                self._merge(due)
        except (OSError, RuntimeError, MemoryError, TiercelError) as error:
            self._say(f"the change is in, but merging segments was put off: {error}")

    def _merge(self, positions: Sequence[int]) -> None:
        manifest = self._last()
        chosen = [manifest.segments[position] for position in positions]
        folder = self.path / SEGMENTS / f"{manifest.next_segment:08d}"
        try:
            merged = merge_segments(
                folder, self._views(chosen, manifest.settings), manifest.settings, threads=self._threads
            )
            self._say_what_was_found([merged], manifest.settings, None)
            rest = [record for position, record in enumerate(manifest.segments) if position not in positions]
            rest.insert(positions[0], merged)
            self._make_last(
                dataclasses.replace(
                    manifest, commit=manifest.commit + 1, segments=tuple(rest), next_segment=manifest.next_segment + 1
                )
            )
        except BaseException:
            self._clean_up()
            raise

    def _say_what_was_found(
        self, records: Sequence[SegmentRecord], settings: IndexSettings, journal: EncodingJournal | None
    ) -> None:
        if journal is not None and journal.resumed:
            self._say(f"{journal.resumed:,} passages had been encoded by a build that was interrupted")
        for record in records:
            ann = record.ann
            if ann is None or ann.recall is None:
                continue
            reached = f"segment {record.id}: {ann.factory} finds {ann.recall:.3f} of the exact 100 nearest"
            if ann.recall >= settings.recall:
                self._say(reached)
            else:
                self._say(f"{reached}, short of --recall {settings.recall:g} at its highest effort")


def _trained_codec(views: Sequence[View]) -> Codec | None:
    """What the token vectors of the segment that has most of them are encoded with; None where there are none."""
    counted = [(view.record.tokens.vectors, view) for view in views if view.record.tokens]
    return max(counted, key=lambda pair: pair[0])[1].segment.tokens.codec if counted else None


def _and_live(view: View, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask if view.live is None else mask & view.live
