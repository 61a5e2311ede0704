"""One immutable part of an index: how is it opened, and how is it written?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiercel.data.chunking import passages_of
from tiercel.errors import IndexStoreError
from tiercel.index.analysis import Analyzer
from tiercel.index.columns import ColumnTypes, ColumnWriter, map_columns
from tiercel.index.documents import DocumentWriter, StoredDocuments
from tiercel.index.files import check_digests, check_sizes, damaged, reached, seal
from tiercel.index.manifest import IndexSettings, SegmentRecord
from tiercel.index.order import IdOrder
from tiercel.index.passages import PassageTable, PassageWriter, map_passages, row_text
from tiercel.index.postings import Postings, PostingsBuilder, map_postings, write_postings
from tiercel.types import Document

if TYPE_CHECKING:
    from tiercel.index.journal import EncodingJournal
    from tiercel.index.vectors import Vectors, VectorWriter

LEXICAL = "lexical"
DENSE = "dense"


class Segment:
    """The files of one segment. Each part is mapped when it is first asked for.

    A row is what both legs rank: a passage, or a document where documents are not cut.
    """

    def __init__(self, folder: Path, record: SegmentRecord, settings: IndexSettings) -> None:
        self.folder = folder
        self.record = record
        self._settings = settings
        check_sizes(folder, record.files)

    @cached_property
    def documents(self) -> StoredDocuments:
        """Ids, titles, texts and metadata."""
        stored = StoredDocuments(self.folder)
        if len(stored) != self.record.documents:
            raise damaged(self.folder, f"it holds {len(stored)} documents, the manifest says {self.record.documents}")
        return stored

    @cached_property
    def passages(self) -> PassageTable | None:
        """Which slice of which document each row is; None where documents are not cut and a row is a document."""
        if self._settings.chunking is None:
            return None
        return map_passages(self.folder, self.record.documents, self.record.rows)

    @cached_property
    def columns(self) -> Any:
        """The metadata that can be filtered by, as an Arrow Table."""
        return map_columns(self.folder, self.record.documents)

    @cached_property
    def postings(self) -> Postings:
        """What BM25 reads."""
        return map_postings(self.folder / LEXICAL, self.record.rows)

    @cached_property
    def vectors(self) -> Vectors:
        """What the dense leg reads. Raises IndexStoreError in an index without vectors."""
        from tiercel.index.vectors import open_vectors

        encoder = self._settings.encoder
        if encoder is None or self.record.ann is None:
            raise IndexStoreError(
                "the index has no vectors", where=str(self.folder), expected="an index with an encoder"
            )
        return open_vectors(self.folder / DENSE, self.record.rows, encoder.dimension, self.record.ann)

    @cached_property
    def order(self) -> IdOrder:
        """The rows in the order that breaks ties: by document id, then by start."""
        return self.documents.order if self.passages is None else self.passages.order(self.documents.order)

    def spread(self, documents: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask over documents as a mask over their rows."""
        return documents if self.passages is None else self.passages.spread(documents)

    def verify(self) -> None:
        """Read every byte. Raises IndexStoreError naming the first file that is not as it was written."""
        check_digests(self.folder, self.record.files)
        self.documents.check()
        _ = self.passages, self.columns, self.postings
        if self._settings.encoder is not None:
            _ = self.vectors


class SegmentWriter:
    """Writes one segment: every batch goes to the documents, the columns, the passages, the postings and the vectors.

    `count` documents in `rows` rows of `characters` in all have been added so far. `journal` encodes the rows; None for
    an index without vectors.
    """

    def __init__(
        self,
        folder: Path,
        analyzer: Analyzer,
        settings: IndexSettings,
        types: ColumnTypes,
        journal: EncodingJournal | None,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._journal = journal
        self._truncated_before = journal.truncated if journal else 0
        self.count = self.rows = self.characters = 0
        folder.mkdir(parents=True)
        reached("segment begun")
        self._documents = DocumentWriter(folder)
        self._columns = ColumnWriter(types)
        self._passages = PassageWriter()
        self._postings = PostingsBuilder(analyzer)
        self._dense: VectorWriter | None = None
        if settings.encoder is not None:
            from tiercel.index.vectors import VectorWriter

            self._dense = VectorWriter(folder / DENSE, settings.encoder.dimension)

    def add(self, documents: Sequence[Document]) -> None:
        """Append a batch, in order. Raises InputError for a document that cannot be kept, before it is encoded."""
        self._columns.add(documents)
        self._documents.add(documents)
        texts = self._row_texts(documents)
        self._postings.add(texts)
        if self._dense is not None and self._journal is not None:
            for vectors in self._journal.encode(texts):
                self._dense.add_stored(vectors)
        self.count += len(documents)
        self.rows += len(texts)
        self.characters += sum(map(len, texts))

    def _row_texts(self, documents: Sequence[Document]) -> list[str]:
        settings = self._settings
        if settings.chunking is None:
            return [document.full_text if "title" in settings.context else document.text for document in documents]
        texts = []
        for document in documents:
            passages = passages_of(document, settings.chunking)
            self._passages.add(passages)
            texts += [row_text(document, passage, settings.context) for passage in passages]
        return texts

    def finish(self, *, threads: int) -> SegmentRecord:
        """Complete the segment on disk and describe it for the manifest."""
        self._documents.finish()
        self._columns.finish(self._folder)
        if self._settings.chunking is not None:
            self._passages.finish(self._folder)
        postings = self._postings.finish()
        write_postings(self._folder / LEXICAL, postings)
        ann = None
        if self._dense is not None:
            ann = self._dense.finish(self._settings.ann, recall=self._settings.recall, threads=threads)
        return SegmentRecord(
            id=self._folder.name,
            documents=self.count,
            rows=self.rows,
            terms=int(postings.lengths.sum(dtype="int64")),
            truncated=self._journal.truncated - self._truncated_before if self._journal else 0,
            ann=ann,
            files=seal(self._folder, "segment"),
        )

    def close(self) -> None:
        """Give the files up without finishing."""
        self._documents.close()
        if self._dense is not None:
            self._dense.close()
