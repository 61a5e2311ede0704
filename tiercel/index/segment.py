"""One immutable part of an index: how is it opened, and how is it written?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.data.chunking import passages_of
from tiercel.errors import IndexStoreError
from tiercel.index.analysis import Analyzer
from tiercel.index.columns import ColumnTypes, ColumnWriter, map_columns
from tiercel.index.documents import DocumentWriter, StoredDocuments
from tiercel.index.files import check_digests, check_sizes, damaged, reached, seal
from tiercel.index.manifest import IndexSettings, SegmentRecord, TokenCount
from tiercel.index.order import IdOrder
from tiercel.index.passages import PassageTable, PassageWriter, map_passages, row_text
from tiercel.index.postings import Postings, PostingsBuilder, map_postings, write_postings
from tiercel.types import Document

if TYPE_CHECKING:
    from tiercel.index.journal import EncodingJournal
    from tiercel.index.residual import Codec
    from tiercel.index.token_vectors import TokenVectors, TokenVectorWriter
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
    def tokens(self) -> TokenVectors:
        """What late interaction reads. Raises IndexStoreError in an index without token vectors."""
        from tiercel.index.token_vectors import TOKENS, open_token_vectors

        kept = self._settings.tokens
        if kept is None or self.record.tokens is None:
            raise IndexStoreError(
                "the index has no token vectors", where=str(self.folder), expected="an index made with --tokens"
            )
        stored = open_token_vectors(self.folder / TOKENS, self.record.rows, kept.dimension, kept.codec)
        if (found := len(stored.codes)) != self.record.tokens.vectors:
            raise damaged(
                self.folder / TOKENS, f"it holds {found} tokens, the manifest says {self.record.tokens.vectors}"
            )
        return stored

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
        if self._settings.tokens is not None:
            self.tokens.check()


class Plan(NamedTuple):
    """What all segments of one change are made with.

    Attributes:
        settings: of the index.
        types: of the metadata columns; learns more from every batch.
        journal: encodes the rows; None for an index without vectors.
        codec: what token vectors of the index have been encoded with, to be used again; None to train one.
        threads: that building an ANN or training a codec may use.
    """

    settings: IndexSettings
    types: ColumnTypes
    journal: EncodingJournal | None = None
    codec: Codec | None = None
    threads: int = 1


class SegmentWriter:
    """Writes one segment: every batch goes to the documents, the columns, the passages, the postings and the vectors.

    `count` documents in `rows` rows of `characters` in all have been added so far.
    """

    def __init__(self, folder: Path, analyzer: Analyzer, plan: Plan) -> None:
        settings = plan.settings
        self._folder = folder
        self._plan = plan
        self._settings = settings
        self._journal = plan.journal
        self._truncated_before = plan.journal.truncated if plan.journal else None
        self.count = self.rows = self.characters = 0
        folder.mkdir(parents=True)
        reached("segment begun")
        self._documents = DocumentWriter(folder)
        self._columns = ColumnWriter(plan.types)
        self._passages = PassageWriter()
        self._postings = PostingsBuilder(analyzer)
        self._dense: VectorWriter | None = None
        if settings.encoder is not None:
            from tiercel.index.vectors import VectorWriter

            self._dense = VectorWriter(folder / DENSE, settings.encoder.dimension)
        self._tokens: TokenVectorWriter | None = None
        if settings.tokens is not None:
            from tiercel.index.token_vectors import TOKENS, TokenVectorWriter

            self._tokens = TokenVectorWriter(
                folder / TOKENS, settings.tokens.codec, settings.tokens.dimension, codec=plan.codec,
                threads=plan.threads,
            )  # fmt: skip

    def add(self, documents: Sequence[Document]) -> None:
        """Append a batch, in order. Raises InputError for a document that cannot be kept, before it is encoded."""
        self._columns.add(documents)
        self._documents.add(documents)
        texts = self._row_texts(documents)
        self._postings.add(texts)
        for encoded in self._journal.encode(texts) if self._journal else ():
            if self._dense is not None and encoded.vectors is not None:
                self._dense.add_stored(encoded.vectors)
            if self._tokens is not None and encoded.tokens is not None:
                self._tokens.add(encoded.tokens)
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

    def finish(self) -> SegmentRecord:
        """Complete the segment on disk and describe it for the manifest."""
        self._documents.finish()
        self._columns.finish(self._folder)
        if self._settings.chunking is not None:
            self._passages.finish(self._folder)
        postings = self._postings.finish()
        write_postings(self._folder / LEXICAL, postings)
        ann = None
        if self._dense is not None:
            ann = self._dense.finish(self._settings.ann, recall=self._settings.recall, threads=self._plan.threads)
        truncated, token_rows_truncated = self._truncated()
        tokens = None
        if self._tokens is not None:
            tokens = TokenCount(self._tokens.finish(), token_rows_truncated)
        return SegmentRecord(
            id=self._folder.name,
            documents=self.count,
            rows=self.rows,
            terms=int(postings.lengths.sum(dtype="int64")),
            truncated=truncated,
            ann=ann,
            files=seal(self._folder, "segment"),
            tokens=tokens,
        )

    def _truncated(self) -> tuple[int, int]:
        """Rows of this segment that were cut by the encoder, and by the model of the token vectors."""
        if self._journal is None or self._truncated_before is None:
            return 0, 0
        rows, token_rows = self._journal.truncated
        return rows - self._truncated_before.rows, token_rows - self._truncated_before.token_rows

    def close(self) -> None:
        """Give the files up without finishing."""
        self._documents.close()
        for writer in (self._dense, self._tokens):
            if writer is not None:
                writer.close()
