"""One immutable part of an index: how is it opened, and how is it written?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.errors import IndexStoreError
from tiercel.index.analysis import Analyzer
from tiercel.index.documents import DocumentWriter, StoredDocuments
from tiercel.index.files import damaged, digest, make_durable
from tiercel.index.manifest import FileRecord, IndexSettings, SegmentRecord
from tiercel.index.postings import Postings, PostingsBuilder, map_postings, write_postings
from tiercel.protocols import Encoder
from tiercel.types import Document

if TYPE_CHECKING:
    from tiercel.index.vectors import Vectors, VectorWriter

SEGMENTS = "segments"
LEXICAL = "lexical"
DENSE = "dense"


class Segment:
    """A segment of an open index. Each part is mapped when it is first asked for."""

    def __init__(self, folder: Path, record: SegmentRecord, settings: IndexSettings) -> None:
        self.folder = folder
        self.record = record
        self._settings = settings
        self._check_sizes()

    @cached_property
    def documents(self) -> StoredDocuments:
        """Ids, titles, texts and metadata."""
        stored = StoredDocuments(self.folder)
        if len(stored) != self.record.documents:
            raise damaged(self.folder, f"it holds {len(stored)} documents, the manifest says {self.record.documents}")
        return stored

    @cached_property
    def postings(self) -> Postings:
        """What BM25 reads."""
        return map_postings(self.folder / LEXICAL, self.record.documents)

    @cached_property
    def vectors(self) -> Vectors:
        """What the dense leg reads. Raises IndexStoreError in an index without vectors."""
        from tiercel.index.vectors import open_vectors

        encoder = self._settings.encoder
        if encoder is None:
            raise IndexStoreError(
                "the index has no vectors", where=str(self.folder), expected="an index with an encoder"
            )
        return open_vectors(self.folder / DENSE, self.record.documents, encoder.dimension, self.record.ann)

    def _check_sizes(self) -> None:
        for name, file in self.record.files.items():
            path = self.folder / name
            try:
                size = path.stat().st_size
            except OSError as error:
                raise damaged(
                    path, "the file is missing", "If the index was replaced meanwhile, open it again"
                ) from error
            if size != file.size_bytes:
                raise damaged(path, f"it holds {size} bytes, the manifest says {file.size_bytes}")

    def verify(self) -> None:
        """Read every byte. Raises IndexStoreError naming the first file that is not as it was written."""
        self._check_sizes()
        for name, file in self.record.files.items():
            if digest(self.folder / name) != file.digest:
                raise damaged(self.folder / name, "its content does not match its digest")
        _ = self.documents, self.postings
        if self._settings.encoder is not None:
            _ = self.vectors


class SegmentWriter:
    """Writes one segment: every batch goes to the documents, the postings and the vectors.

    `count` documents of `characters` in all have been added so far.
    """

    def __init__(self, folder: Path, analyzer: Analyzer, encoder: Encoder | None) -> None:
        self._folder = folder
        self._encoder = encoder
        self._truncated_before = encoder.truncated if encoder else 0
        self.count = 0
        self.characters = 0
        folder.mkdir(parents=True)
        self._documents = DocumentWriter(folder)
        self._postings = PostingsBuilder(analyzer)
        self._dense: VectorWriter | None = None
        if encoder is not None:
            from tiercel.index.vectors import VectorWriter

            self._dense = VectorWriter(folder / DENSE, encoder.dimension)

    def add(self, documents: Sequence[Document]) -> None:
        """Append a batch, in order."""
        texts = [document.full_text for document in documents]
        self._documents.add(documents)
        self._postings.add(texts)
        if self._encoder is not None and self._dense is not None:
            self._dense.add(self._encoder.encode_documents(texts))
        self.count += len(documents)
        self.characters += sum(map(len, texts))

    def finish(self, settings: IndexSettings, *, threads: int) -> SegmentRecord:
        """Complete the segment on disk and describe it for the manifest."""
        self._documents.finish()
        postings = self._postings.finish()
        write_postings(self._folder / LEXICAL, postings)
        ann, recall = ("", None) if self._dense is None else self._dense.finish(settings.ann, threads=threads)
        files = {}
        for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
            make_durable(path)
            files[path.relative_to(self._folder).as_posix()] = FileRecord(path.stat().st_size, digest(path))
        for folder in [self._folder.parent, self._folder, *(path for path in self._folder.rglob("*") if path.is_dir())]:
            make_durable(folder)
        return SegmentRecord(
            id=self._folder.name,
            documents=self.count,
            terms=int(postings.lengths.sum(dtype="int64")),
            truncated=self._encoder.truncated - self._truncated_before if self._encoder else 0,
            ann=ann,
            ann_recall=recall,
            files=files,
        )

    def close(self) -> None:
        """Give the files up without finishing."""
        self._documents.close()
        if self._dense is not None:
            self._dense.close()
