"""Mined groups: what a model is trained on, written and read as JSONL. Knows no network.

A line is a query with its documents:

    {"query_id": "q7", "query": "who hunts in tiers",
     "floors": {"bm25": 1.5, "dense": 0.31},
     "positives": [{"id": "d3", "leg": "dense", "rank": 4, "scores": {"bm25": 7.1, "dense": 0.62}, "teacher": 5.2}],
     "negatives": [{"id": "d9", "leg": "bm25", "rank": 2, "scores": {"bm25": 9.8}, "teacher": -1.3}]}

A query may have a `history`, earlier turns, oldest first.

`leg` and `rank` (from 1) say where a document came from, null for a positive that no leg found; `scores` are those of
every leg that found it; `floors` is, for each leg, its lowest score of the query: what stands for a document that it
did not find. `teacher` may be missing or null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiercel.data.files import Source, check_source, read_byte_lines, source_name, write_text
from tiercel.data.history import history_of
from tiercel.data.records import Record, checked_id, described, excerpt, json_objects, line_of, located
from tiercel.errors import InputError
from tiercel.types import DocId, Document, Query, QueryId

TEACHER = "teacher"
"""The name of the teacher's score beside those of the legs."""

_MINE = "`tiercel mine` writes such lines"


@dataclass(frozen=True, slots=True)
class MinedDocument:
    """A document of a group: where it came from, and what the stages and the teacher gave it."""

    id: DocId
    leg: str | None = None
    rank: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    teacher: float | None = None


@dataclass(frozen=True, slots=True)
class MinedGroup:
    """A query with documents that answer it and documents that do not; `where` is its place, for messages."""

    query: Query
    positives: Sequence[MinedDocument]
    negatives: Sequence[MinedDocument]
    floors: Mapping[str, float] = field(default_factory=dict)
    where: str = ""

    @property
    def documents(self) -> list[MinedDocument]:
        """The positives, then the negatives."""
        return [*self.positives, *self.negatives]

    def teacher_scores(self, name: str = TEACHER) -> list[float]:
        """What `name`, the teacher or a leg, gives the documents, in their order.

        A leg's floor stands for what it did not find. Raises InputError where there is no score, or all are equal,
        which teaches nothing.
        """
        found = [self._score(document, name) for document in self.documents]
        missing = [d.id for d, score in zip(self.documents, found, strict=True) if score is None]
        if missing:
            raise InputError(
                f"no score of {name!r} for document {excerpt(missing[0])} of query {excerpt(self.query.id)}",
                expected="one for every document, since the loss compares with a teacher",
                next_step='Mine with --teacher, name a leg as the teacher, or train with distil = "none"',
                where=self.where,
            )
        scores = [score for score in found if score is not None]
        if len(set(scores)) < 2:
            raise InputError(
                f"all {len(scores)} scores of {name!r} for query {excerpt(self.query.id)} are {scores[0]:g}",
                expected="scores that differ, since the loss learns the teacher's order",
                next_step="Leave the group out, or use another teacher",
                where=self.where,
            )
        return scores

    def is_told_apart_by(self, name: str = TEACHER) -> bool:
        """Whether `teacher_scores` has something to teach: a score of each document, and scores that differ."""
        scores = {self._score(document, name) for document in self.documents}
        return len(scores) > 1 and None not in scores

    def check_labels(self) -> None:
        """Raise InputError where there is nothing that a loss over labels could tell apart."""
        if not self.positives or not self.negatives:
            raise InputError(
                f"no {'positives' if not self.positives else 'negatives'} for query {excerpt(self.query.id)}",
                expected="at least one positive and one negative, since the loss compares them",
                next_step='Leave the group out, or train with label = "none" and a teacher',
                where=self.where,
            )

    def _score(self, document: MinedDocument, name: str) -> float | None:
        return document.teacher if name == TEACHER else document.scores.get(name, self.floors.get(name))


def write_groups(groups: Iterable[MinedGroup], target: Source) -> None:
    """Write groups, one a line; after an exception the target is as it was. The same groups give the same bytes."""
    with write_text(target) as text:
        text.writelines(f"{json.dumps(_record_of(group), ensure_ascii=False)}\n" for group in groups)


def read_groups(source: Source) -> list[MinedGroup]:
    """The groups of a JSONL file, in its order.

    Raises InputError, with file and line, for a line of another form, a group of less than two documents, a document
    that comes twice in its group or a score that is not finite, and for a file without groups.
    """
    check_source(source)
    name = source_name(source)
    lines = ((number, (f"{name}:{number}", record)) for number, record in json_objects(read_byte_lines(source), name))
    groups = [group for _, group in located(lines, _group_of, line_of(name))]
    if not groups:
        raise InputError("no groups", expected="one group a line", next_step=_MINE, where=name)
    return groups


def texts_of(groups: Sequence[MinedGroup], documents: Iterable[Document]) -> dict[DocId, str]:
    """The full text of every document of the groups; `documents` is read once, to its end.

    Raises InputError, with the group's place, for a document that is not there.
    """
    wanted = {document.id for group in groups for document in group.documents}
    texts = {document.id: document.full_text for document in documents if document.id in wanted}
    for group in groups:
        for document in group.documents:
            if document.id not in texts:
                raise InputError(
                    f"the document id {excerpt(document.id)} of query {excerpt(group.query.id)} is not in the corpus",
                    expected="every document of the groups among the documents",
                    next_step="Name the corpus that the groups were mined from",
                    where=group.where,
                )
    return texts


def _record_of(group: MinedGroup) -> Record:
    history: Record = {"history": list(group.query.history)} if group.query.history else {}
    return {
        "query_id": group.query.id,
        "query": group.query.text,
        **history,
        "floors": dict(group.floors),
        "positives": [_document_record(document) for document in group.positives],
        "negatives": [_document_record(document) for document in group.negatives],
    }


def _document_record(document: MinedDocument) -> Record:
    return {
        "id": document.id,
        "leg": document.leg,
        "rank": document.rank,
        "scores": dict(document.scores),
        "teacher": document.teacher,
    }


def _group_of(placed: tuple[str, Record]) -> MinedGroup:
    where, record = placed
    text = record.get("query")
    if not isinstance(text, str):
        raise InputError(f"{described(text)} as 'query'", expected="a string", next_step=_MINE)
    query = Query(QueryId(_id(record.get("query_id"), "'query_id'")), text, history_of(record))
    group = MinedGroup(
        query,
        _documents(record, "positives"),
        _documents(record, "negatives"),
        _scores(record.get("floors", {}), "'floors'"),
        where,
    )
    ids = [document.id for document in group.documents]
    if len(ids) < 2:
        raise InputError(
            f"{len(ids) or 'no'} document{'s' * (len(ids) != 1)} for query {excerpt(query.id)}",
            expected="at least two, since training compares them",
            next_step="Leave the line out",
        )
    if twice := [doc_id for doc_id in ids if ids.count(doc_id) > 1]:
        raise InputError(f"document {excerpt(twice[0])} a second time", expected="each document once in a group")
    return group


def _documents(record: Record, key: str) -> list[MinedDocument]:
    listed = record.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InputError(f"{described(listed)} as {key!r}", expected="a list of objects with 'id'", next_step=_MINE)
    return [_document(item, key) for item in listed]


def _document(item: Record, key: str) -> MinedDocument:
    rank, leg, teacher = item.get("rank"), item.get("leg"), item.get("teacher")
    doc_id = DocId(_id(item.get("id"), f"the id of one of the {key}"))
    if rank is not None and (type(rank) is not int or rank < 1):
        raise InputError(f"{described(rank)} as the rank of {excerpt(doc_id)}", expected="a whole number from 1")
    if leg is not None and not isinstance(leg, str):
        raise InputError(f"{described(leg)} as the leg of {excerpt(doc_id)}", expected="a string")
    scores = _scores(item.get("scores", {}), f"the scores of {excerpt(doc_id)}")
    known = None if teacher is None else _number(teacher, f"the teacher's score of {excerpt(doc_id)}")
    return MinedDocument(doc_id, leg, rank, scores, known)


def _id(value: Any, noun: str) -> str:
    if isinstance(value, str):
        return checked_id(value, noun)
    raise InputError(f"{described(value)} as {noun}", expected="a string", next_step=_MINE)


def _scores(value: Any, noun: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InputError(f"{described(value)} as {noun}", expected="an object of numbers by leg")
    return {leg: _number(score, f"{noun} from {leg!r}") for leg, score in value.items()}


def _number(value: Any, noun: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(f"{described(value)} as {noun}", expected="a finite number")
