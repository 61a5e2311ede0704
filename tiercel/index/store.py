"""An index as a reader sees it: one commit, until it asks for the next."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiercel.errors import IndexStoreError, UsageError
from tiercel.index.analysis import Analyzer, analyzer
from tiercel.index.commits import check_commit_file, hold_last_commit
from tiercel.index.lookup import places_of
from tiercel.index.manifest import SEGMENTS, IndexSettings, Manifest, commit_file
from tiercel.index.segment import Segment
from tiercel.index.view import View
from tiercel.index.where import parse_where
from tiercel.types import DocId, Document


class Index:
    """An index as of the commit that was the last when it was opened. Later ones show after `refresh`.

    What the commit needs stays on the disk as long as this object or a view of it lives. Raises IndexStoreError where
    there is no index or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, self.views = self._open({})
        self.analyzer = enforced_analyzer(path, self.manifest.settings)

    def __len__(self) -> int:
        """Count the documents."""
        return self.manifest.documents

    def refresh(self) -> bool:
        """Move on to the last commit; True if there was a later one.

        Views, and pipelines made of them, stay with the commit they were made of: make them again.

        What has been opened of segments that both commits have is kept. Raises IndexStoreError as opening does, and
        then stays where it is.
        """
        known = {view.record.id: view.segment for view in self.views}
        manifest, views = self._open(known)
        if manifest == self.manifest:
            return False
        found = enforced_analyzer(self.path, manifest.settings)
        self.manifest, self.views, self.analyzer = manifest, views, found
        return True

    def latest(self) -> Index:
        """The index as of its last commit: this object if it is at that one, else another, which shares what is open.

        For readers that go on with this one meanwhile. Raises as `refresh`.
        """
        later = copy.copy(self)
        return later if later.refresh() else self

    def filtered(self, where: str) -> list[View]:
        """The views, in which only documents that the expression selects are eligible; "" selects all.

        Raises UsageError for an expression that cannot be read or does not fit the metadata columns.
        """
        if not where:
            return self.views
        parsed = parse_where(where, self.manifest.columns)
        return [view.filtered(parsed) for view in self.views]

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        """The documents of these ids, in the same order. Raises IndexStoreError for an id that is not there."""
        places = places_of(self.views, ids)
        if (places.views < 0).any():
            missing = ids[int(np.argmax(places.views < 0))]
            raise IndexStoreError(f"no document has the id {missing!r}", where=str(self.path))
        found: dict[int, Document] = {}
        for position in np.unique(places.views).tolist():
            rows = np.flatnonzero(places.views == position)
            documents = self.views[position].segment.documents.documents(places.ordinals[rows])
            found.update(zip(rows.tolist(), documents, strict=True))
        return [found[row] for row in range(len(ids))]

    def sorted_ids(self) -> Any:
        """The ids of all documents that count, ascending: an Arrow array of strings. Segments do not show in it."""
        parts = [batch.column(0) for view in self.views for batch in view.segment.documents.batches(view.live)]
        ids = pa.chunked_array(parts, pa.string())
        return ids.take(pc.sort_indices(ids))

    def missing(self, ids: Sequence[DocId]) -> list[DocId]:
        """Those of the ids that no document has, in the same order."""
        views = places_of(self.views, ids).views
        return [doc_id for doc_id, position in zip(ids, views.tolist(), strict=True) if position < 0]

    def verify(self) -> None:
        """Read every byte and hold the legs against each other. Raises IndexStoreError naming the first bad file."""
        check_commit_file(self.path, self.manifest)
        for view in self.views:
            view.verify()
        self._check_ids()

    def size_bytes(self) -> int:
        """Bytes of all files that this commit names, of its manifest and of the copy of it."""
        records = [record for view in self.views for record in (view.record, view.record.deletes) if record]
        files = (file for record in records for file in record.files.values())
        return sum(file.size_bytes for file in files) + 2 * commit_file(self.path, self.manifest.commit).stat().st_size

    def digest(self) -> str:
        """Of all that the commit holds: its manifest names every file with its digest."""
        return hashlib.blake2b(commit_file(self.path, self.manifest.commit).read_bytes(), digest_size=16).hexdigest()

    def _open(self, known: dict[str, Segment]) -> tuple[Manifest, list[View]]:
        manifest, hold = hold_last_commit(self.path)
        views = []
        for record in manifest.segments:
            segment = known.get(record.id)
            if segment is None or segment.record.files != record.files:
                segment = Segment(self.path / SEGMENTS / record.id, record, manifest.settings)
            views.append(View(self.path, segment, record, hold))
        return manifest, views

    def _check_ids(self) -> None:
        """Raises IndexStoreError if two documents that count have the same id."""
        seen: set[str] = set()
        for view in self.views:
            for batch in view.segment.documents.batches(view.live):
                for doc_id in batch.column(0).to_pylist():
                    if doc_id in seen:
                        raise IndexStoreError(
                            f"two documents have the id {doc_id!r}",
                            where=str(view.segment.folder),
                            expected="each id once",
                            next_step="Build the index again.",
                        )
                    seen.add(doc_id)


def enforced_analyzer(path: Path, settings: IndexSettings) -> Analyzer:
    """The analyser of an index. Raises IndexStoreError where this Tiercel's has other rules."""
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
