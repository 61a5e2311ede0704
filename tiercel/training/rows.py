"""Rows of response selection as groups: a conversation, its candidates, and the position of the right one.

A line is what `tiercel rerank` reads, with a `label` (see `tiercel.data.candidates`):

    {"context": ["who hunts?", "a falcon", "and where?"], "candidates": ["over the river", "at noon"], "label": 0}

What a row asks is its last turn, after the turns before. Models that read one text are given all turns as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tiercel.data.candidates import Labelled, read_labelled
from tiercel.errors import InputError, UsageError
from tiercel.models.description import file_digest
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.settings import TrainSettings
from tiercel.types import DocId, Query

_DIGEST_LENGTH = 12

GIVEN = "given"
"""What rows call the stage that their candidates came from: the leg of their documents, the name of its scores."""

Part: TypeAlias = tuple[Sequence[MinedGroup], Mapping[DocId, str]]
"""Groups of one collection, and the texts of their documents."""


class GroupSource(Protocol):
    """Where groups come from that a model is trained on, or judged by."""

    def read(self) -> Sequence[Part]:
        """The groups, collection by collection. Raises InputError, with file and line where they come from one."""

    def digests(self) -> list[str]:
        """What changes whenever the groups do."""


def digests_of(files: Sequence[str]) -> list[str]:
    """The beginning of each file's digest, as hex. Raises ModelError for one that cannot be read."""
    return [file_digest(Path(file)).hex()[:_DIGEST_LENGTH] for file in files]


@dataclass(frozen=True, slots=True)
class RowData:
    """Files of rows."""

    files: Sequence[str]

    def read(self) -> list[Part]:
        """The rows of each file as groups, in its order.

        A document is called by its text, so that one text is one document in all rows: it is no negative where it is
        right, and none of another row's in-batch negatives where it answers both. Its rank is its position in the row.

        Raises InputError, with file and line, for a line that is no row, and for a file without rows.
        """
        return [_part(file) for file in self.files]

    def digests(self) -> list[str]:
        """Of each file."""
        return digests_of(self.files)


class AsOneText:
    """A source whose queries have no history, for models that read one text: all turns, oldest first, a turn a line.

    Of a query that had a history the last `context_tokens` of `settings` are kept, as the tokenizer in `folder` counts
    them. Other queries stay as they are.
    """

    def __init__(self, source: GroupSource, folder: Path, settings: TrainSettings) -> None:
        self._source = source
        self._folder = folder
        self._settings = settings

    def digests(self) -> list[str]:
        """Those of the source."""
        return self._source.digests()

    def read(self) -> list[Part]:
        """The groups of the source, their queries as one text.

        Raises UsageError where a conversation would leave a pair's window too little room for its document.
        """
        return [
            ([replace(group, query=self._one_text(group.query)) for group in groups], texts)
            for groups, texts in self._source.read()
        ]

    def _one_text(self, query: Query) -> Query:
        if not query.history:
            return query
        tokens, window = self._settings.context_tokens, self._settings.max_tokens
        if 2 * tokens > window:
            raise UsageError(
                f"context_tokens = {tokens} with max_tokens = {window} and a query that has a history",
                expected="at most half of it, so that a window holds context and document",
            )
        text = "\n".join((*query.history, query.text))
        given = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        starts = [start for start, _ in given["offset_mapping"]]
        return Query(query.id, text[starts[-tokens] :] if len(starts) > tokens else text)

    @cached_property
    def _tokenizer(self) -> Any:
        from tiercel.training.sources import load_tokenizer

        return load_tokenizer(self._folder)


def _part(file: str) -> Part:
    texts: dict[DocId, str] = {}
    groups = [_group(row, texts) for row in read_labelled(file)]
    if not groups:
        raise InputError(
            "no rows", expected='one {"context": [...], "candidates": [...], "label": N} a line', where=file
        )
    return groups, texts


def _group(row: Labelled, texts: dict[DocId, str]) -> MinedGroup:
    group, scores = row.candidates
    documents: dict[DocId, MinedDocument] = {}
    right = DocId(group.documents[row.label].full_text)
    for rank, (document, score) in enumerate(zip(group.documents, scores, strict=True), 1):
        name = DocId(document.full_text)
        texts[name] = name
        documents.setdefault(name, MinedDocument(name, GIVEN, rank, {} if score is None else {GIVEN: score}))
    negatives = [document for name, document in documents.items() if name != right]
    return MinedGroup(group.query, [documents[right]], negatives, where=row.where)
