"""Candidates to be reranked: JSONL lines that hold a query with its documents, or a run with queries and a corpus."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson

from tiercel.data.files import Source, check_source, read_byte_lines, source_name
from tiercel.data.history import history_of, turns_in
from tiercel.data.records import (
    Record,
    checked_id,
    described,
    excerpt,
    json_objects,
    line_of,
    located,
    merged_metadata,
)
from tiercel.errors import InputError
from tiercel.protocols import CandidateGroup
from tiercel.types import DocId, Document, Query, QueryId, Ranking

_Row = TypeVar("_Row")

_LINE = (
    'A line is {"query": …, "documents": ["text", {"id": …, "text": …, "title": …, "score": …}, …]} '
    'or {"context": ["turn", …], "candidates": […]}'
)
_LIST_KEYS = ("documents", "hits", "candidates")
_ID_KEYS = ("id", "_id", "docid", "doc_id")  # as in a corpus, so that no id is taken for metadata
_PLACED = {*_ID_KEYS, "text", "title", "score"}
_PLACED_OF_HIT = {*_PLACED, "rank", "retrieval_score"}


class Candidates(NamedTuple):
    """What is to be scored for one query.

    Attributes:
        group: the query with its documents.
        scores: what the stage before gave each document, in the same order; None where it is not told.
    """

    group: CandidateGroup
    scores: tuple[float | None, ...]


class Labelled(NamedTuple):
    """Candidates of which one is known to be right.

    Attributes:
        candidates: a query with its documents.
        label: the position of the right one.
        where: file and line, for messages.
    """

    candidates: Candidates
    label: int
    where: str


def read_candidates(source: Source) -> Iterator[Candidates]:
    """The lines of a JSONL file or of standard input (`-`), one by one as they are asked for; none: no lines.

    A line is an object with `query`, a string, and `documents`, a list of strings and of objects with `text` and, as
    they like, `id` (or `_id`, `docid`, `doc_id`), `title` and `score`, what the stage before gave; other keys of such
    an object, and those in its `metadata`, become the document's metadata. The list may be called `candidates`, or
    `hits`, as in what search prints as JSON. A document without an id is called by its position in the list, "0" the
    first. `query_id` names the query, else the number of its line does; `history` may hold earlier turns. A query and a
    list may be empty, and other keys of a line are not kept.

    A conversation may be given as `context` instead of `query`: its turns, oldest first, of which the last is the query
    and those before it are its history. `id` names such a query where `query_id` does not.

    Raises InputError at the call for a source that is not there, and at the first line that is no such object, names a
    document twice or has the query id of a line before.
    """
    check_source(source)
    return _each_once(source, _candidates_of, lambda candidates: candidates.group.query.id)


def read_labelled(source: Source) -> Iterator[Labelled]:
    """The same lines, each with `label`, the position of the right document in the list, 0 the first.

    Raises InputError as `read_candidates`, and for a line without such a label.
    """
    check_source(source)
    return _each_once(source, _labelled_of(source_name(source)), lambda row: row.candidates.group.query.id)


def queries_of_run(rankings: Sequence[Ranking], queries: Iterable[Query]) -> list[Query]:
    """The query of each ranking with its text: from `queries`, or from the run where they lack it.

    A query of theirs that is not in the run is passed over. Raises InputError for one whose text is in neither.
    """
    asked = {query.id: query for query in queries}
    of_run = [asked.get(ranking.query.id, ranking.query) for ranking in rankings]
    without = [query.id for query in of_run if query.id not in asked and not query.text]
    if without:
        others = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise InputError(
            f"no text for the query {excerpt(without[0])} of the run{others}",
            expected="each query of the run among the queries",
            next_step="Give the queries that the run was made with",
        )
    return of_run


def named_by(rankings: Iterable[Ranking]) -> list[DocId]:
    """The documents that a run names, each once, as they first come."""
    return list(dict.fromkeys(hit.doc_id for ranking in rankings for hit in ranking.hits))


class HeldDocuments:
    """Those documents of a collection that have one of these ids, held in memory once: id, text and title.

    `documents` is read once, to its end. Satisfies `tiercel.protocols.DocumentStore`. Raises InputError for a document
    of one of the ids that comes twice.
    """

    def __init__(self, ids: Iterable[DocId], documents: Iterable[Document]) -> None:
        self._held: dict[DocId, Document | None] = dict.fromkeys(ids)
        for document in documents:
            if document.id not in self._held:
                continue
            if self._held[document.id] is not None:
                raise InputError(
                    f"the document id {excerpt(document.id)} a second time",
                    expected="each document of the run once in the corpus",
                    next_step="Remove or rename one of the two",
                )
            self._held[document.id] = Document(document.id, document.text, document.title)

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        """The documents of these ids, in the same order. Raises InputError for an id that is not held."""
        return [self._document(doc_id) for doc_id in ids]

    def missing(self, ids: Iterable[DocId]) -> list[DocId]:
        """Those of the ids that are not held, in the same order."""
        return [doc_id for doc_id in ids if self._held.get(doc_id) is None]

    def digest(self) -> str:
        """Of all that is held and of what is missing: changes when a score could."""
        digest = hashlib.blake2b(digest_size=16)
        for doc_id, document in self._held.items():
            digest.update(orjson.dumps([doc_id, document and [document.title, document.text]]))
        return digest.hexdigest()

    def _document(self, doc_id: DocId) -> Document:
        document = self._held.get(doc_id)
        if document is None:
            raise InputError(f"no document has the id {excerpt(doc_id)}", expected="one that is held")
        return document


def _each_once(
    source: Source, convert: Callable[[tuple[int, Record]], _Row], id_of: Callable[[_Row], QueryId]
) -> Iterator[_Row]:
    name = source_name(source)
    lines: dict[QueryId, int] = {}
    numbered = ((number, (number, record)) for number, record in json_objects(read_byte_lines(source), name))
    for number, row in located(numbered, convert, line_of(name)):
        first = lines.setdefault(id_of(row), number)
        if first != number:
            raise InputError(
                f"the query id {excerpt(id_of(row))} a second time; the first is at {name}:{first}",
                expected="each query once; a line without `query_id` goes by its number",
                next_step="Remove or rename one of the two",
                where=f"{name}:{number}",
            )
        yield row


def _labelled_of(name: str) -> Callable[[tuple[int, Record]], Labelled]:
    def convert(numbered: tuple[int, Record]) -> Labelled:
        number, record = numbered
        candidates = _candidates_of(numbered)
        label, count = record.get("label"), len(candidates.scores)
        if type(label) is not int or not 0 <= label < count:
            raise InputError(
                f"{described(label)} as 'label'" if "label" in record else "no 'label'",
                expected=f"the position of the right one of the {count}, 0 the first",
            )
        return Labelled(candidates, label, f"{name}:{number}")

    return convert


def _query_of(record: Record, number: int) -> Query:
    is_conversation = "context" in record and "query" not in record
    named = record.get("query_id")
    if named is None and is_conversation:
        named = record.get("id")
    query_id = QueryId(str(number) if named is None else _id(named, "the query id"))
    if not is_conversation:
        return Query(query_id, _text(record, "query", ""), history_of(record))
    turns = turns_in(record["context"], "context")
    if not turns:
        raise InputError("a list of 0 as 'context'", expected="at least one turn, the last of which is the query")
    return Query(query_id, turns[-1], turns[:-1])


def _candidates_of(numbered: tuple[int, Record]) -> Candidates:
    number, record = numbered
    query = _query_of(record, number)
    key = next((key for key in _LIST_KEYS if key in record), "documents")
    listed = record.get(key)
    if not isinstance(listed, list):
        raise InputError(
            f"{described(listed)} as {key!r}" if key in record else f"no {key!r}",
            expected="a list of strings and objects",
            next_step=_LINE,
        )
    placed = _PLACED_OF_HIT if key == "hits" else _PLACED
    documents: dict[DocId, Document] = {}
    scores: list[float | None] = []
    for position, item in enumerate(listed):
        document, score = _document_of(item, position, key, placed)
        if document.id in documents:
            raise InputError(
                f"document {excerpt(document.id)} a second time, at position {position}",
                expected=f"each id once in {key!r}; a document without one goes by its position, 0 the first",
            )
        documents[document.id] = document
        scores.append(score)
    return Candidates(CandidateGroup(query, list(documents.values())), tuple(scores))


def _document_of(item: Any, position: int, key: str, placed: set[str]) -> tuple[Document, float | None]:
    if isinstance(item, str):
        return Document(DocId(str(position)), item), None
    if not isinstance(item, dict):
        raise InputError(
            f"{described(item)} at position {position} of {key!r}", expected='a string or an object with "text"'
        )
    place = f" of the document at position {position}"
    named = next((item[key] for key in _ID_KEYS if item.get(key) is not None), position)
    doc_id = DocId(_id(named, f"the id{place}"))
    text = _text(item, "text", place)
    title = "" if item.get("title") is None else _text(item, "title", place)
    score = None if item.get("score") is None else _score(item["score"], place)
    rest = merged_metadata({key: value for key, value in item.items() if key not in placed})
    return (Document(doc_id, text, title, rest) if rest else Document(doc_id, text, title)), score


def _score(value: Any, place: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise InputError(f"{described(value)} as 'score'{place}", expected="a finite number")
    return float(value)


def _id(value: Any, noun: str) -> str:
    """An id: a string as it is, a whole number as its digits."""
    if type(value) is int:
        return str(value)
    if isinstance(value, str):
        return checked_id(value, noun)
    raise InputError(f"{described(value)} as {noun}", expected="a string or a whole number")


def _text(record: Record, key: str, place: str) -> str:
    value = record.get(key)
    if isinstance(value, str):
        return value
    raise InputError(
        f"{described(value)} as {key!r}{place}" if key in record else f"no {key!r}{place}",
        expected="a string",
        next_step=_LINE,
    )
