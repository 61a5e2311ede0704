"""Several segments into one: what is written, and when is it worth it?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from tiercel.config import TokenCodec
from tiercel.index.columns import merge_columns
from tiercel.index.documents import DocumentWriter
from tiercel.index.files import reached, seal
from tiercel.index.manifest import AnnRecord, IndexSettings, SegmentRecord, TokenCount
from tiercel.index.merging import merge_postings
from tiercel.index.passages import merge_passages
from tiercel.index.segment import DENSE, LEXICAL
from tiercel.index.view import View

MERGE_FACTOR = 4
"""Segments of about one size that are merged into one: more would slow every query, fewer would rewrite more often."""

MERGED_ROWS = 500_000
"""A segment of more rows is not merged with others unasked: adding a little must not rewrite a lot."""

_BATCH_ROWS = 1_000
_BATCH_BYTES = 4_000_000
_VECTOR_ROWS = 16_384


def due_for_merge(records: Sequence[SegmentRecord]) -> list[int]:
    """Positions of the segments that should become one now; none if all is well.

    Segments are counted by size, in powers of the merge factor: once so many are in one class they are merged, so a
    row is rewritten, and segments grow in number, with the logarithm of the number of commits. A segment of which more
    than half is deleted is rewritten too.
    """
    classes: dict[int, list[int]] = {}
    for position, record in enumerate(records):
        if 2 * record.live_rows < record.rows:
            return [position]
        if record.live_rows <= MERGED_ROWS:
            classes.setdefault(_size_class(record.live_rows), []).append(position)
    return next((full for _, full in sorted(classes.items()) if len(full) >= MERGE_FACTOR), [])


def merge_segments(folder: Path, views: Sequence[View], settings: IndexSettings, *, threads: int) -> SegmentRecord:
    """Write the documents of these views that count into one new segment, in order. Nothing is encoded again."""
    folder.mkdir(parents=True)
    reached("segment begun")
    documents = DocumentWriter(folder)
    try:
        for batch in _even_batches(chain.from_iterable(v.segment.documents.batches(v.live) for v in views)):
            documents.add_batch(batch)
        documents.finish()
    finally:
        documents.close()
    merge_columns(folder, [(view.segment.columns, view.live) for view in views])
    tables = [(view.segment.passages, view.live) for view in views if view.segment.passages is not None]
    if tables:
        merge_passages(folder, tables)
    rows = [None if view.live is None else view.segment.spread(view.live) for view in views]
    postings = merge_postings(
        folder / LEXICAL, [(view.segment.postings, kept) for view, kept in zip(views, rows, strict=True)]
    )
    ann = None if settings.encoder is None else _merge_vectors(folder, views, settings, threads=threads)
    tokens = None if settings.tokens is None else _merge_tokens(folder, views, settings.tokens.codec, threads=threads)
    return SegmentRecord(
        id=folder.name,
        documents=sum(view.record.live_documents for view in views),
        rows=sum(view.record.live_rows for view in views),
        terms=int(postings.lengths.sum(dtype="int64")),
        truncated=sum(view.record.truncated for view in views),
        ann=ann,
        files=seal(folder, "segment"),
        tokens=tokens,
    )


def _merge_vectors(folder: Path, views: Sequence[View], settings: IndexSettings, *, threads: int) -> AnnRecord:
    from tiercel.index.vectors import ANN, VectorWriter

    dimension = 0 if settings.encoder is None else settings.encoder.dimension
    writer = VectorWriter(folder / DENSE, dimension)
    try:
        for view in views:
            stored = view.segment.vectors.stored
            kept = None if view.live is None else view.segment.spread(view.live)
            for first in range(0, len(stored), _VECTOR_ROWS):
                rows = slice(first, first + _VECTOR_ROWS)
                writer.add_stored(stored[rows] if kept is None else stored[rows][kept[rows]])
        # What the largest segment's ANN was trained on holds for the whole.
        largest = max(views, key=lambda view: view.record.rows)
        trained = largest.segment.folder / DENSE / ANN
        return writer.finish(settings.ann, recall=settings.recall, threads=threads, trained=trained)
    finally:
        writer.close()


def _merge_tokens(folder: Path, views: Sequence[View], codec: TokenCodec, *, threads: int) -> TokenCount:
    from tiercel.index.token_vectors import TOKENS, merge_token_vectors

    parts = [(view.segment.tokens, None if view.live is None else view.segment.spread(view.live)) for view in views]
    vectors = merge_token_vectors(folder / TOKENS, parts, codec, threads=threads)
    return TokenCount(vectors, sum(view.record.tokens.truncated for view in views if view.record.tokens))


def _size_class(rows: int) -> int:
    return (rows.bit_length() - 1) // (MERGE_FACTOR.bit_length() - 1)


def _even_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """The same rows in batches of about the size that a build writes: many small segments must not stay many pieces."""
    waiting: list[Any] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield from _combined(waiting)
            waiting, rows, size = [], 0, 0
    yield from _combined(waiting)


def _combined(batches: list[Any]) -> Iterator[Any]:
    if batches:
        yield from pa.Table.from_batches(batches).combine_chunks().to_batches()
