"""Relevance judgments: TREC, BEIR and MS MARCO forms, and sets by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from tiercel.data.files import Source, check_source, decode_lines, is_stdio, read_byte_lines, source_name, write_text
from tiercel.data.irds import irds_records, is_irds
from tiercel.data.records import blank_rows, checked_id, columns, excerpt, line_of, located, peeked, tab_rows
from tiercel.errors import InputError, UsageError
from tiercel.types import DocId, Qrels, QueryId

_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_TREC_COLUMNS = "query id, 0, document id, grade"
_PAIR_COLUMNS = "query id, id of a relevant document"
_GRADE = re.compile(r"[+-]?[0-9]{1,9}")  # nine digits: evaluators keep grades in 32 bits
_RELEVANT = "1"

_Judgment: TypeAlias = tuple[QueryId, DocId, int]


def read_qrels(source: Source, *, split: str | None = None) -> Qrels:
    """Judgments from a file, a BEIR folder, or a set that ir_datasets knows, such as `irds:beir/scifact/test`.

    Files are told by their first line: BEIR's header, four columns (TREC, MS MARCO), or two (every pair is relevant).
    A BEIR folder gives `qrels/<split>.tsv`; without a split, `test` if it is there, else the only one.

    Raises UsageError for a split that is not there or has to be chosen, and InputError for an empty file, a line of
    other columns, a grade that is no whole number, or a pair that is judged twice with different grades.
    """
    path = qrels_path(source, split=split)
    name = source_name(path)
    return _collected(_irds_judgments(path) if is_irds(path) else _judgments(path, name), name)


def qrels_path(source: Source, *, split: str | None = None) -> Source:
    """What `read_qrels` reads: the file of the split in a BEIR folder, else the source itself. Raises as that does."""
    if not is_irds(source):
        check_source(source)
        if not is_stdio(source) and os.path.isdir(source):
            return _split_file(Path(source), split)
    if split is not None:
        raise UsageError(
            f"the split {split!r} with {source_name(source)}, which is {'a set' if is_irds(source) else 'one file'}",
            expected="a split only with a BEIR folder",
            next_step="Leave the split out",
        )
    return source


def write_qrels(qrels: Qrels, target: Source) -> None:
    """Write judgments in BEIR's form, in their order. Raises InputError for an id with a tab or a line end in it."""
    with write_text(target) as stream:
        stream.write("\t".join(_BEIR_HEADER) + "\n")
        for query_id, judgments in qrels.items():
            for doc_id, grade in judgments.items():
                if broken := next((name for name in (query_id, doc_id) if set(name) & set("\t\n\r")), ""):
                    raise InputError(
                        f"the id {excerpt(broken)}", expected="no tab or line end in an id of a qrels file"
                    )
                stream.write(f"{query_id}\t{doc_id}\t{grade}\n")


def _split_file(folder: Path, split: str | None) -> Path:
    files: dict[str, Path] = {}
    for path in sorted((folder / "qrels").glob("*.tsv*")):
        stem = path.name.removesuffix(".gz")
        if stem.endswith(".tsv") and path.is_file():
            files.setdefault(stem.removesuffix(".tsv"), path)  # x.tsv sorts before x.tsv.gz
    if not files:
        raise InputError("no qrels", expected="a folder with qrels/<split>.tsv", where=source_name(folder))
    if split is None:
        split = next(iter(files)) if len(files) == 1 else "test"
        if split not in files:
            raise UsageError(
                f"several splits in {source_name(folder)}: {', '.join(files)}",
                expected="one to be chosen",
                next_step="Name it with --split",
            )
    if split not in files:
        raise UsageError(f"no split {split!r} in {source_name(folder)}", expected=f"one of {', '.join(files)}")
    return files[split]


def _irds_judgments(source: Source) -> Iterator[tuple[int, _Judgment]]:
    for number, record in irds_records(source, "qrels"):
        yield number, (QueryId(record["query_id"]), DocId(record["doc_id"]), record["relevance"])


def _judgments(source: Source, name: str) -> Iterator[tuple[int, _Judgment]]:
    first, raw_lines = peeked(read_byte_lines(source))
    if not first:
        raise InputError("no judgments: the file is empty", expected="one judgment a line", where=name)
    lines = decode_lines(raw_lines, name)
    if first.rstrip().split(b"\t") == [cell.encode() for cell in _BEIR_HEADER]:
        next(lines)
        return located(tab_rows(lines, name, {3: ", ".join(_BEIR_HEADER)}), _judgment_of, line_of(name))
    width = len(first.split())
    if width == 4:
        rows = blank_rows(lines, name, width=4, meaning=_TREC_COLUMNS)
        return located(rows, lambda cells: _judgment_of([cells[0], cells[2], cells[3]]), line_of(name))
    if width == 2:
        rows = blank_rows(lines, name, width=2, meaning=_PAIR_COLUMNS)
        return located(rows, lambda cells: _judgment_of([*cells, _RELEVANT]), line_of(name))
    number, shown = next(lines)
    raise InputError(
        f"{columns(width)}: {excerpt(shown)}",
        expected=f"4 ({_TREC_COLUMNS}), 2 ({_PAIR_COLUMNS}), or 3 under BEIR's header",
        next_step=f"Give a file of three columns the header {' '.join(_BEIR_HEADER)}, separated by tabs",
        where=f"{name}:{number}",
    )


def _judgment_of(cells: list[str]) -> _Judgment:
    query_id, doc_id, grade = cells
    if not _GRADE.fullmatch(grade.strip()):
        raise InputError(
            f"the grade {excerpt(grade)}",
            expected="a whole number",
            next_step="Round grades that are not whole, or correct the line",
        )
    return QueryId(checked_id(query_id, "the query id")), DocId(checked_id(doc_id, "the document id")), int(grade)


def _collected(judgments: Iterator[tuple[int, _Judgment]], name: str) -> Qrels:
    qrels: dict[QueryId, dict[DocId, int]] = {}
    for number, (query_id, doc_id, grade) in judgments:
        earlier = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if earlier != grade:
            raise InputError(
                f"query {excerpt(query_id)} and document {excerpt(doc_id)} with grade {grade}, before with {earlier}",
                expected="one grade for each pair",
                next_step="Remove one of the two lines",
                where=f"{name}:{number}",
            )
    if not qrels:
        raise InputError("no judgments, only a header", expected="one judgment a line", where=name)
    return qrels
