"""Candidates to be reranked: JSONL lines that hold a query with its documents, or a run with queries and a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tiercel.data.files import Source, check_source, read_byte_lines, source_name
from tiercel.data.queries import history_of
from tiercel.data.records import Record, checked_id, described, excerpt, json_objects, line_of, located
from tiercel.errors import InputError
from tiercel.protocols import CandidateGroup
from tiercel.types import DocId, Document, Query, QueryId, Ranking

_LINE = 'A line is {"query": …, "documents": ["text", {"id": …, "text": …, "title": …}, …]}'
_ID_KEYS = ("id", "_id", "docid", "doc_id")  # as in a corpus, so that no id is taken for metadata
_PLACED = {*_ID_KEYS, "text", "title"}


class RunGroups(NamedTuple):
    """What the rankings of a run are as candidates.

    Attributes:
        groups: one per ranking, in the order of the run and of its hits, without the documents that are missing.
        missing: ids that the run names and the corpus lacks, each once, as they first come in the run.
    """

    groups: list[CandidateGroup]
    missing: list[DocId]


def read_groups(source: Source) -> Iterator[CandidateGroup]:
    """The groups of a JSONL file or of standard input (`-`), line by line as they are asked for; none: no lines.

    A line is an object with `query`, a string, and `documents`, a list of strings and of objects with `text` and, as
    they like, `id` (or `_id`, `docid`, `doc_id`) and `title`; other keys of such an object become the document's
    metadata. A document without an id is called by its position in the list, "0" the first. `query_id` names the
    query, else the number of its line does; `history` may hold earlier turns. A query and a list may be empty, and
    other keys of a line are not kept.

    Raises InputError at the call for a source that is not there, and at the first line that is no such object, names a
    document twice or has the query id of a line before.
    """
    check_source(source)
    return _groups(source, source_name(source))


def groups_from_run(rankings: Sequence[Ranking], queries: Iterable[Query], documents: Iterable[Document]) -> RunGroups:
    """The rankings of a run as candidates.

    `documents` is read once, to its end, and only what the run names is kept, so memory grows with the run. A query
    comes from `queries`, or from the run where they lack it; a query of theirs that is not in the run is passed over.

    Raises InputError, before the documents are read, for a query whose text is in neither, and for a document of the
    run that comes twice.
    """
    asked = {query.id: query for query in queries}
    of_run = [asked.get(ranking.query.id, ranking.query) for ranking in rankings]
    for query in of_run:
        if query.id not in asked and not query.text:
            raise InputError(
                f"no text for the query {excerpt(query.id)} of the run",
                expected="each query of the run among the queries",
                next_step="Give the queries that the run was made with",
            )
    named: dict[DocId, Document | None] = {hit.doc_id: None for ranking in rankings for hit in ranking.hits}
    for document in documents:
        if document.id not in named:
            continue
        if named[document.id] is not None:
            raise InputError(
                f"the document id {excerpt(document.id)} a second time",
                expected="each document of the run once in the corpus",
                next_step="Remove or rename one of the two",
            )
        named[document.id] = document
    groups = [
        CandidateGroup(query, [found for hit in ranking.hits if (found := named[hit.doc_id]) is not None])
        for query, ranking in zip(of_run, rankings, strict=True)
    ]
    return RunGroups(groups, [doc_id for doc_id, document in named.items() if document is None])


def _groups(source: Source, name: str) -> Iterator[CandidateGroup]:
    lines: dict[QueryId, int] = {}
    numbered = ((number, (number, record)) for number, record in json_objects(read_byte_lines(source), name))
    for number, group in located(numbered, _group_of, line_of(name)):
        first = lines.setdefault(group.query.id, number)
        if first != number:
            raise InputError(
                f"the query id {excerpt(group.query.id)} a second time; the first is at {name}:{first}",
                expected="each query once; a line without `query_id` goes by its number",
                next_step="Remove or rename one of the two",
                where=f"{name}:{number}",
            )
        yield group


def _group_of(numbered: tuple[int, Record]) -> CandidateGroup:
    number, record = numbered
    query_id = str(number) if record.get("query_id") is None else _id(record["query_id"], "the query id")
    query = Query(QueryId(query_id), _text(record, "query", ""), history_of(record))
    listed = record.get("documents")
    if not isinstance(listed, list):
        raise InputError(
            f"{described(listed)} as 'documents'" if "documents" in record else "no 'documents'",
            expected="a list of strings and objects",
            next_step=_LINE,
        )
    documents: dict[DocId, Document] = {}
    for position, item in enumerate(listed):
        document = _document_of(item, position)
        if document.id in documents:
            raise InputError(
                f"document {excerpt(document.id)} a second time, at position {position}",
                expected="each id once in 'documents'; a document without one goes by its position, 0 the first",
            )
        documents[document.id] = document
    return CandidateGroup(query, list(documents.values()))


def _document_of(item: Any, position: int) -> Document:
    if isinstance(item, str):
        return Document(DocId(str(position)), item)
    if not isinstance(item, dict):
        raise InputError(
            f"{described(item)} at position {position} of 'documents'", expected='a string or an object with "text"'
        )
    place = f" of the document at position {position}"
    named = next((item[key] for key in _ID_KEYS if item.get(key) is not None), position)
    doc_id = _id(named, f"the id{place}")
    text = _text(item, "text", place)
    title = "" if item.get("title") is None else _text(item, "title", place)
    rest = {key: value for key, value in item.items() if key not in _PLACED}
    return Document(DocId(doc_id), text, title, rest) if rest else Document(DocId(doc_id), text, title)


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
