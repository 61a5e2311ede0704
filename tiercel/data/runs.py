"""Runs: rankings in TREC, MS MARCO and JSONL form, read and written."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, cast, get_args

import orjson

from tiercel.data.files import (
    Source,
    check_source,
    decode_lines,
    ending_of,
    is_stdio,
    read_byte_lines,
    source_name,
    write_text,
)
from tiercel.data.history import history_of
from tiercel.data.records import (
    Record,
    blank_rows,
    checked_id,
    columns,
    described,
    each_query_once,
    excerpt,
    json_objects,
    line_of,
    located,
    peeked,
)
from tiercel.errors import InputError, UsageError
from tiercel.types import DocId, Hit, Query, QueryId, Ranking

RunFormat: TypeAlias = Literal["trec", "msmarco", "jsonl"]

RUN_FORMATS: tuple[RunFormat, ...] = get_args(RunFormat)

_ENDINGS: dict[str, RunFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".trec": "trec",
    ".run": "trec",
    ".txt": "trec",
    ".tsv": "msmarco",
}
_TREC_COLUMNS = "query id, Q0, document id, rank, score, tag"
_MSMARCO_COLUMNS = "query id, document id, rank"
_RANK = re.compile(r"0*[1-9][0-9]{0,8}")
_MSMARCO_STAGE = "msmarco"  # the form has no column that would name a run

_Lines: TypeAlias = Iterator[tuple[int, bytes]]


def read_run(source: Source, *, format: RunFormat | None = None) -> list[Ranking]:
    """The rankings of a run, in the order in which its queries first appear; an empty file: an empty list.

    A format that is not given follows from the name (`.jsonl`; `.trec`, `.run`, `.txt`) or else from the first line:
    a JSON object, six columns (TREC) or three (MS MARCO). TREC and JSONL hits are ordered by score, ties by document
    id, whatever rank the file gives; a TREC ranking's stage is its tag. MS MARCO hits get the score
    `largest rank - rank + 1`. A query's text is "" where the form does not carry it.

    Raises UsageError (unknown format) and InputError (a line of other columns, a score that is not finite, a rank that
    is no whole number from 1, a document or rank twice in one query).
    """
    _check_format(format)
    check_source(source)
    name = source_name(source)
    first, lines = peeked(read_byte_lines(source))
    if not first:
        return []
    with _no_search_for_cycles():
        return _READERS[format or _form_of(source, first, name)](lines, name)


def run_form(target: Source, format: RunFormat | None = None, *, flag: str = "--run-format") -> RunFormat:
    """The form in which a run is written there: the one that is given, or else what the name's ending stands for.

    Raises UsageError, naming the flag, where neither tells.
    """
    _check_format(format)
    form = format or _ENDINGS.get(ending_of(target))
    if form is None:
        raise UsageError(
            f"the run {'on standard output' if is_stdio(target) else source_name(target)} without a format",
            expected=f"one of {', '.join(RUN_FORMATS)}",
            next_step=f"Say which with {flag}, or give the file an ending such as .trec or .jsonl",
        )
    return form


def write_run(
    rankings: Iterable[Ranking],
    target: Source,
    *,
    format: RunFormat | None = None,
    tag: str = "tiercel",
    retrieved: Iterable[Ranking] = (),
) -> None:
    """Write a run; after an exception the target is as it was. `-` is standard output and needs a format.

    TREC scores are `number of hits - rank + 1` and not the real ones: evaluators sort again and break ties in opposite
    ways, so only strictly decreasing scores mean the same to all of them. JSONL keeps real scores, spans and texts, and
    for hits of reranked rankings as `retrieval_score` what they had in `retrieved`, the rankings that were reranked.
    `tag` is TREC's last column. A ranking without hits has no line in TREC and MS MARCO form, one line in JSONL.

    Raises UsageError (format or tag that cannot be meant) and InputError (an id with white space in a TREC or MS MARCO
    run, a query twice, a target that cannot be written).
    """
    form = run_form(target, format)
    if form == "trec" and tag.split() != [tag]:
        raise UsageError(f"the tag {tag!r}", expected="one word, since TREC columns are separated by white space")
    lines_of = _WRITERS[form]
    before = {ranking.query.id: ranking for ranking in retrieved}
    written: set[QueryId] = set()
    with write_text(target) as text:
        for ranking in rankings:
            if ranking.query.id in written:
                raise InputError(
                    f"the query {excerpt(ranking.query.id)} ranked twice",
                    expected="one ranking for each query in a run",
                )
            written.add(ranking.query.id)
            _write_ranking(text.writelines, lines_of(ranking, tag, before.get(ranking.query.id)), ranking)


def tied_queries(rankings: Iterable[Ranking]) -> int:
    """How many rankings hold two hits of the same score: those an evaluator may order in another way."""
    return sum(
        any(hit.score == following.score for hit, following in zip(ranking.hits, ranking.hits[1:], strict=False))
        for ranking in rankings
    )


def _check_format(format: RunFormat | None) -> None:
    if format is not None and format not in RUN_FORMATS:
        raise UsageError(f"the run format {format!r}", expected=f"one of {', '.join(RUN_FORMATS)}")


def _form_of(source: Source, first_line: bytes, name: str) -> RunFormat:
    by_name = None if is_stdio(source) else _ENDINGS.get(ending_of(source))
    if by_name in ("jsonl", "trec"):
        return by_name
    if first_line.lstrip().startswith(b"{"):
        return "jsonl"
    width = len(first_line.split())
    if width in (3, 6):
        return "trec" if width == 6 else "msmarco"
    raise InputError(
        f"{columns(width)} in the first line: {excerpt(first_line.decode('utf-8', 'backslashreplace'))}",
        expected=f"6 (TREC: {_TREC_COLUMNS}), 3 (MS MARCO: {_MSMARCO_COLUMNS}) or a JSON object",
        next_step=f"Say what it is with --run-format ({', '.join(RUN_FORMATS)})",
        where=name,
    )


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Millions of hits hold no reference cycles, and looking for some takes a quarter of the time of reading them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_trec(lines: _Lines, name: str) -> list[Ranking]:
    step = "If it is of MS MARCO form, say --run-format msmarco"
    rows = blank_rows(decode_lines(lines, name), name, width=6, meaning=_TREC_COLUMNS, next_step=step)
    collector = _Collector()
    hits: dict[str, float] = {}
    isfinite = math.isfinite
    # A deep run has millions of lines: what is done for each of them stands here and not in functions of their own.
    for number, (query_id, _, doc_id, _, cell, tag) in rows:
        if query_id != collector.query_id:
            hits = collector.turn_to(QueryId(query_id), tag)
        try:
            score = float(cell)
        except ValueError:
            score = math.nan
        # Python reads 1_0 as ten; nobody who writes a run means that.
        if not isfinite(score) or "_" in cell:
            raise InputError(f"the score {excerpt(cell)}", expected="a finite number", where=f"{name}:{number}")
        if doc_id in hits:
            raise _repeated(QueryId(query_id), doc_id, f"{name}:{number}")
        hits[doc_id] = score
    return collector.rankings()


class _Collector:
    """Hits of one query after another, each made a Ranking when the next begins: all dicts at once are twice as large.

    A query whose lines do not stand together is opened again, and then stays open to the end.
    """

    def __init__(self) -> None:
        self.query_id: QueryId | None = None
        self._tag = ""
        self._hits: dict[str, float] = {}
        self._closed: dict[QueryId, Ranking] = {}
        self._scattered: dict[QueryId, dict[str, float]] = {}

    def turn_to(self, query_id: QueryId, tag: str) -> dict[str, float]:
        """Where the hits of this query go; `tag` counts if these are its first."""
        self._close()
        self.query_id, self._tag, self._hits = query_id, tag, {}
        if query_id in self._scattered:
            self._hits = self._scattered[query_id]
        elif query_id in self._closed:
            self._hits = {hit.doc_id: hit.score for hit in self._closed[query_id].hits}
            self._scattered[query_id] = self._hits
        return self._hits

    def rankings(self) -> list[Ranking]:
        """One for each query, in the order in which they first came."""
        self._close()
        for query_id, hits in self._scattered.items():
            known = self._closed[query_id]
            self._closed[query_id] = _ranked(known.query, hits, known.stage)
        return list(self._closed.values())

    def _close(self) -> None:
        if self.query_id is not None and self.query_id not in self._scattered:
            self._closed[self.query_id] = _ranked(Query(self.query_id, ""), self._hits, self._tag)


def _read_msmarco(lines: _Lines, name: str) -> list[Ranking]:
    found: dict[QueryId, dict[DocId, float]] = {}
    ranks: dict[QueryId, set[int]] = {}
    step = "If it is of TREC form, say --run-format trec"
    rows = blank_rows(decode_lines(lines, name), name, width=3, meaning=_MSMARCO_COLUMNS, next_step=step)
    for number, (row, rank) in located(rows, lambda cells: (cells, _rank_of(cells[2])), line_of(name)):
        query_id, where = QueryId(row[0]), f"{name}:{number}"
        _add_hit(found.setdefault(query_id, {}), query_id, DocId(row[1]), -float(rank), where)
        taken = ranks.setdefault(query_id, set())
        if rank in taken:
            raise InputError(
                f"rank {rank} a second time for query {excerpt(query_id)}", expected="each rank once", where=where
            )
        taken.add(rank)
    rankings = []
    for query_id in list(found):  # taken out one by one, so that a large run is not held twice
        negated = found.pop(query_id)
        above = max(ranks[query_id]) + 1
        scores = {doc_id: above + score for doc_id, score in negated.items()}
        rankings.append(_ranked(Query(query_id, ""), scores, _MSMARCO_STAGE))
    return rankings


def _add_hit(scores: dict[DocId, float], query_id: QueryId, doc_id: DocId, score: float, where: str) -> None:
    if doc_id in scores:
        raise _repeated(query_id, doc_id, where)
    scores[doc_id] = score


def _repeated(query_id: QueryId, doc_id: str, where: str) -> InputError:
    return InputError(
        f"document {excerpt(doc_id)} a second time for query {excerpt(query_id)}",
        expected="each document once",
        next_step="Remove one of the two lines",
        where=where,
    )


def _ranked(query: Query, scores: Mapping[DocId, float] | Mapping[str, float], stage: str) -> Ranking:
    return Ranking.from_scores(query, cast("list[DocId]", list(scores)), scores.values(), stage=stage, keep=len(scores))


def _rank_of(cell: str) -> int:
    if not _RANK.fullmatch(cell):
        raise InputError(f"the rank {excerpt(cell)}", expected="a whole number, 1 for the best")
    return int(cell)


def _read_jsonl(lines: _Lines, name: str) -> list[Ranking]:
    rankings = located(json_objects(lines, name), ranking_of, line_of(name))
    return each_query_once(rankings, lambda ranking: ranking.query.id, name)


def ranking_of(record: Record) -> Ranking:
    """The ranking of a JSONL run's line. Raises InputError, without a place, for a record that is none."""
    query_id = QueryId(checked_id(_string(record, "query_id"), "the query id"))
    query = Query(query_id, _string(record, "query", ""), history_of(record))
    stage = _string(record, "stage", "")
    listed = record.get("hits")
    if not isinstance(listed, list):
        raise InputError(
            f"{described(listed)} as 'hits'" if "hits" in record else "no 'hits'",
            expected='a list of objects with "doc_id" and "score"',
        )
    hits: dict[DocId, Hit] = {}
    for item in listed:
        hit = _hit_of(item)
        if hit.doc_id in hits:
            raise InputError(f"document {excerpt(hit.doc_id)} a second time", expected="each document once in 'hits'")
        hits[hit.doc_id] = hit
    ranking = _ranked(query, {doc_id: hit.score for doc_id, hit in hits.items()}, stage)
    return Ranking(query, tuple(hits[doc_id] for doc_id in ranking.doc_ids), stage)


def _hit_of(item: Any) -> Hit:
    if not isinstance(item, dict):
        raise InputError(f"{described(item)} in 'hits'", expected='an object with "doc_id" and "score"')
    doc_id = DocId(checked_id(_string(item, "doc_id"), "the document id"))
    score: Any = item.get("score")
    if type(score) not in (int, float):
        raise InputError(f"{described(score)} as the score of {excerpt(doc_id)}", expected="a finite number")
    span = item.get("span")
    if span is None:
        return Hit(doc_id, float(score))
    match span:
        case [int(start), int(end)] if 0 <= start <= end and bool not in (type(start), type(end)):
            return Hit(doc_id, float(score), (start, end))
    raise InputError(
        f"{orjson.dumps(span).decode()[:60]} as the span of {excerpt(doc_id)}",
        expected="[start, end] in characters, 0 <= start <= end",
    )


def _string(record: Record, key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if isinstance(value, str):
        return value
    raise InputError(
        f"{described(value)} as {key!r}" if key in record else f"no {key!r}",
        expected="a string",
        next_step='A run line is {"query_id": …, "query": …, "stage": …, "hits": [{"doc_id": …, "score": …}, …]}',
    )


def _write_ranking(writelines: Callable[[Iterable[str]], None], lines: list[str], ranking: Ranking) -> None:
    try:
        writelines(lines)
    except UnicodeEncodeError as error:
        raise _not_storable(ranking) from error


def _not_storable(ranking: Ranking) -> InputError:
    return InputError(
        f"the ranking of query {excerpt(ranking.query.id)} holds half a surrogate pair",
        expected="ids and texts that UTF-8 can carry",
    )


def _trec_lines(ranking: Ranking, tag: str, before: Ranking | None) -> list[str]:
    query_id, count = _one_word(ranking.query.id, "query"), len(ranking.hits)
    return [
        f"{query_id} Q0 {_one_word(hit.doc_id, 'document')} {rank} {count - rank + 1} {tag}\n"
        for rank, hit in enumerate(ranking.hits, 1)
    ]


def _msmarco_lines(ranking: Ranking, tag: str, before: Ranking | None) -> list[str]:
    query_id = _one_word(ranking.query.id, "query")
    return [f"{query_id}\t{_one_word(hit.doc_id, 'document')}\t{rank}\n" for rank, hit in enumerate(ranking.hits, 1)]


def record_of(ranking: Ranking, before: Ranking | None = None) -> Record:
    """A ranking as a line of a JSONL run holds it; `before`, if it was made of another one, has retrieval scores."""
    query = ranking.query
    line: Record = {"query_id": query.id, "query": query.text}
    if query.history:
        line["history"] = query.history
    line["stage"] = ranking.stage
    scores = {hit.doc_id: hit.score for hit in before.hits} if before else {}
    line["hits"] = [_hit_record(rank, hit, scores) for rank, hit in enumerate(ranking.hits, 1)]
    return line


def _json_lines(ranking: Ranking, tag: str, before: Ranking | None) -> list[str]:
    try:
        return [orjson.dumps(record_of(ranking, before), option=orjson.OPT_APPEND_NEWLINE).decode("utf-8")]
    except orjson.JSONEncodeError as error:
        raise _not_storable(ranking) from error


def _hit_record(rank: int, hit: Hit, before: Mapping[DocId, float]) -> Record:
    # float(): a score that came out of an array is a NumPy scalar, which has no JSON form of its own.
    record: Record = {"doc_id": hit.doc_id, "rank": rank, "score": float(hit.score)}
    if hit.doc_id in before:
        record["retrieval_score"] = float(before[hit.doc_id])
    if hit.span is not None:
        record["span"] = hit.span
    return record


def _one_word(identifier: str, noun: str) -> str:
    if identifier.split() == [identifier]:
        return identifier
    raise InputError(
        f"the {noun} id {excerpt(identifier)} has white space in it" if identifier else f"an empty {noun} id",
        expected="ids without white space, which separates the columns of TREC and MS MARCO runs",
        next_step="Write the run as JSONL",
    )


_READERS: dict[RunFormat, Callable[[_Lines, str], list[Ranking]]] = {
    "trec": _read_trec,
    "msmarco": _read_msmarco,
    "jsonl": _read_jsonl,
}
_WRITERS: dict[RunFormat, Callable[[Ranking, str, Ranking | None], list[str]]] = {
    "trec": _trec_lines,
    "msmarco": _msmarco_lines,
    "jsonl": _json_lines,
}
