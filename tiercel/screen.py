"""What does a person, or the next program in a pipe, see? Tables, JSON lines and progress.

Results go to stdout: a table on a terminal, tab-separated lines elsewhere, JSON when asked. Progress goes to stderr
and is shown on a terminal only.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import orjson
import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tiercel.data.candidates import Candidates
    from tiercel.evaluation.measures import EvaluationResult
    from tiercel.evaluation.report import SetReport
    from tiercel.index.manifest import SegmentRecord
    from tiercel.index.store import Index
    from tiercel.indexing import Deleted
    from tiercel.types import DocId, Document, Hit, QueryId, Ranking

_T = TypeVar("_T")
_SNIPPET = 160
_COLUMNS_SHOWN = 20

# The C0 and C1 controls, which a terminal obeys, line separators, and what UTF-8 cannot carry.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_HIGH_CONTROLS = re.compile("[\x7f-\x9f]")


def say(line: str) -> None:
    """Tell what is going on, on stderr; nobody listening there is no reason to stop."""
    with contextlib.suppress(BrokenPipeError):
        typer.echo(f"tiercel: {shown(line)}", err=True)


def shown(text: str) -> str:
    """The text on one line, fit for any terminal: what a terminal would obey is written as an escape."""
    return _UNSHOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Progress(Protocol):
    """Is told how many are done, and what else there is to say."""

    def __call__(self, done: int, note: str = "", /) -> None:
        """So many are done, those of before included."""


@contextlib.contextmanager
def counting(what: str, unit: str, total: int | None = None) -> Iterator[Progress]:
    """A progress line on stderr, if that is a terminal; the function given is told how many are done."""
    if not sys.stderr.isatty():
        yield lambda done, note="", /: None
        return
    from rich import progress
    from rich.console import Console

    columns = [
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[note]}"),
    ]
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as line:
        task = line.add_task(what, total=total, note="")
        yield lambda done, note="", /: line.update(task, completed=done, note=note)


def counted(batches: Iterable[list[_T]], total: int, what: str, unit: str) -> Iterator[list[_T]]:
    """The batches again, with a progress line while they are used."""
    with counting(what, unit, total) as progress:
        done = 0
        for batch in batches:
            yield batch
            done += len(batch)
            progress(done)


def print_rankings(
    rankings: Iterable[Ranking], index: Index, *, several: bool, where: str = "", least: float | None = None
) -> None:
    """One table per query on a terminal; else lines of query id (if several), rank, score, id, title."""
    for ranking in rankings:
        if not ranking.hits:
            _say_empty(ranking, index, where, least)
            continue
        documents = index.get(ranking.doc_ids)
        if not sys.stdout.isatty():
            for rank, (hit, document) in enumerate(zip(ranking.hits, documents, strict=True), start=1):
                text = document.title if document.title and hit.span is None else _matched(document, hit)
                cells = [str(rank), f"{hit.score:.6f}", shown(hit.doc_id), one_line(text)]
                typer.echo("\t".join([shown(ranking.query.id), *cells] if several else cells))
            continue
        from rich.table import Table
        from rich.text import Text

        title = Text(one_line(ranking.query.text))
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_lines=True)
        table.add_column("", justify="right", style="dim")
        table.add_column("score", justify="right")
        table.add_column("id", overflow="fold", style="cyan")
        table.add_column("document")
        for rank, (hit, document) in enumerate(zip(ranking.hits, documents, strict=True), start=1):
            body = Text(one_line(document.title), style="bold")
            body.append(("\n" if document.title else "") + one_line(_matched(document, hit)), style="not bold")
            table.add_row(str(rank), f"{hit.score:.4f}", Text(shown(hit.doc_id)), body)
        _stdout().print(table)


def print_rankings_json(
    rankings: Iterable[Ranking],
    index: Index,
    *,
    where: str = "",
    least: float | None = None,
    facts_of: Callable[[QueryId], Mapping[str, Any]] = lambda query_id: {},
) -> None:
    """One JSON object per query and line: query_id, query, stage, hits (rank, doc_id, score, title, text).

    A query that has a history brings it along. Where documents are cut into passages a hit also has its span, and the
    text is that of the passage. `facts_of` is what else there is to tell of a query.
    """
    for ranking in rankings:
        if not ranking.hits:
            _say_empty(ranking, index, where, least)
        _print_ranking_json(ranking, index.get(ranking.doc_ids), {}, facts_of(ranking.query.id))


def print_reranked(rankings: Iterable[tuple[Ranking, Candidates]]) -> None:
    """The same of candidates; a hit also has its retrieval_score where the candidate came with a score."""
    for ranking, candidates in rankings:
        documents = {document.id: document for document in candidates.group.documents}
        scores = dict(zip(documents, candidates.scores, strict=True))
        _print_ranking_json(ranking, [documents[doc_id] for doc_id in ranking.doc_ids], scores, {})


def _print_ranking_json(
    ranking: Ranking,
    documents: Sequence[Document],
    retrieved: Mapping[DocId, float | None],
    facts: Mapping[str, Any],
) -> None:
    hits = []
    for rank, (hit, document) in enumerate(zip(ranking.hits, documents, strict=True), start=1):
        record: dict[str, Any] = {"rank": rank, "doc_id": hit.doc_id, "score": hit.score}
        if (score := retrieved.get(hit.doc_id)) is not None:
            record["retrieval_score"] = score
        if hit.span:
            record["span"] = hit.span
        record |= {"title": document.title, "text": _matched(document, hit)}
        if document.metadata:
            record["metadata"] = dict(document.metadata)
        hits.append(record)
    line: dict[str, Any] = {"query_id": ranking.query.id, "query": ranking.query.text}
    if ranking.query.history:
        line["history"] = ranking.query.history
    print_json({**line, "stage": ranking.stage, **facts, "hits": hits}, indent=False)


def telling_empty(
    rankings: Iterable[Ranking], index: Index, *, where: str = "", least: float | None = None
) -> Iterator[Ranking]:
    """The rankings again; of an empty one, which has no line in a run, it is said why it is empty."""
    for ranking in rankings:
        if not ranking.hits:
            _say_empty(ranking, index, where, least)
        yield ranking


def print_set_reports(sets: Sequence[SetReport], index: Index, *, as_json: bool) -> None:
    """Every stage of every pipeline with its measures and costs, set by set, and how large the index is."""
    from tiercel.evaluation.report import report_notes, stage_columns, stage_rows

    if as_json:
        size = {"index": {"path": str(index.path), "documents": len(index), "bytes": index.size_bytes()}}
        print_json(sets[0].to_json() | size if len(sets) == 1 else {"sets": [one.to_json() for one in sets]} | size)
        return
    for one in sets:
        for name, report in one.pipelines.items():
            columns = stage_columns(report.rows[-1].result.measures)
            print_table(columns, stage_rows(report), title=f"{one.name}: {name}" if len(sets) > 1 else name)
            print_notes(report_notes(report))
        print_notes(f"{one.name}: {note}" for note in one.notes)
    print_notes([index_note(index)])


def index_note(index: Index) -> str:
    """In words, how large an index is."""
    return f"{index.path}: {len(index):,} documents, {shown_size(index.size_bytes())}"


def print_run_results(
    results: Mapping[str, EvaluationResult], rankings: Mapping[str, Sequence[Ranking]], *, as_json: bool
) -> None:
    """The measures of ready runs, one line each."""
    from tiercel.data.runs import tied_queries

    if as_json:
        runs = {
            name: {
                "measures": dict(result.means),
                "queries": result.queries,
                "missing_queries": result.missing_queries,
                "unjudged_queries": result.unjudged_queries,
                "tied_queries": tied_queries(rankings[name]),
                "evaluator": result.evaluator,
            }
            for name, result in results.items()
        }
        print_json({"runs": runs})
        return
    measures = [str(measure) for measure in next(iter(results.values())).measures]
    rows = [[name, *(f"{result.means[measure]:.4f}" for measure in measures)] for name, result in results.items()]
    print_table(["run", *measures], rows)
    notes = []
    for name, result in results.items():
        notes.append(f"{name}: {result.queries} judged queries, computed by {result.evaluator}")
        if result.missing_queries:
            notes.append(f"{name}: {result.missing_queries} judged queries are not in the run and count 0")
        if result.unjudged_queries:
            notes.append(f"{name}: {result.unjudged_queries} queries of the run have no judgments and were left out")
        if tied := tied_queries(rankings[name]):
            notes.append(f"{name}: {tied} queries have tied scores; ties are broken by document id, ascending")
    print_notes(notes)


def print_deleted(done: Deleted, *, as_json: bool) -> None:
    """How many documents were deleted, how many are left, which ids were not there."""
    if as_json:
        print_json(asdict(done))
        return
    typer.echo(f"{done.deleted} deleted, {done.documents} left")


def print_info(index: Index, *, as_json: bool) -> None:
    """What an index holds: documents, segments, sizes, settings."""
    manifest = index.manifest
    if as_json:
        print_json(
            {
                "path": str(index.path),
                "documents": manifest.documents,
                "passages": manifest.rows,
                "bytes": index.size_bytes(),
                "commit": manifest.commit,
                "settings": asdict(manifest.settings),
                "columns": dict(manifest.columns),
                "segments": [_segment_facts(record) for record in manifest.segments],
            }
        )
        return
    settings = manifest.settings
    rows = [
        ["index", str(index.path)],
        ["documents", f"{manifest.documents:,}"],
        ["size", shown_size(index.size_bytes())],
        ["commit", str(manifest.commit)],
        ["analyzer", f"{settings.analyzer} ({settings.analyzer_fingerprint})"],
    ]
    if settings.encoder:
        encoder = settings.encoder
        details = f"{encoder.precision}, {encoder.dimension} dimensions, {encoder.max_tokens} tokens"
        rows.append(["encoder", f"{encoder.name} ({details}, {encoder.fingerprint[:16]})"])
    else:
        rows.append(["encoder", "none: BM25 only"])
    if kept := settings.tokens:
        details = f"{kept.precision}, {kept.dimension} dimensions, {kept.max_tokens} tokens, {kept.fingerprint[:16]}"
        rows.append(["tokens", f"{kept.codec} by {kept.name} ({details})"])
    if settings.chunking:
        rows.append(["passages", f"{manifest.rows:,}: {settings.chunking} ({settings.chunking_fingerprint})"])
    if settings.context != ("title",):
        rows.append(["context", ", ".join(settings.context) or "none"])
    if manifest.columns:
        named = [f"{name} {kind}" for name, kind in manifest.columns.items()]
        more = [f"and {len(named) - _COLUMNS_SHOWN} more"] if len(named) > _COLUMNS_SHOWN else []
        rows.append(["columns", ", ".join(named[:_COLUMNS_SHOWN] + more)])
    rows += [[f"segment {record.id}", _described_segment(record)] for record in manifest.segments]
    print_table(["", ""], rows, header=False)


def _segment_facts(record: SegmentRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "documents": record.documents,
        "live_documents": record.live_documents,
        "dead_documents": record.documents - record.live_documents,
        "passages": record.rows,
        "live_passages": record.live_rows,
        "terms": record.terms,
        "truncated": record.truncated,
        "ann": asdict(record.ann) if record.ann else None,
        "tokens": _token_facts(record),
        "bytes": _bytes_by_part(record),
    }


def _token_facts(record: SegmentRecord) -> dict[str, Any] | None:
    if record.tokens is None:
        return None
    vectors, codes = record.tokens.vectors, record.files["tokens/codes.u8"].size_bytes
    return {
        "vectors": vectors,
        "truncated": record.tokens.truncated,
        "per_row": vectors / max(1, record.rows),
        "bytes_per_token": codes / max(1, vectors),
    }


def _described_segment(record: SegmentRecord) -> str:
    dead = record.documents - record.live_documents
    facts = [f"{record.documents:,} documents" + (f", {dead:,} of them deleted" if dead else "")]
    if record.truncated:
        facts.append(f"{record.truncated:,} cut by the encoder when they were added")
    if record.ann:
        found = record.ann.recall
        facts.append(
            f"ann {record.ann.factory}"
            + ("" if found is None else f" (recall@100 {found:.3f} at effort {record.ann.effort})")
        )
    if tokens := _token_facts(record):
        cut = f", {tokens['truncated']:,} rows cut" if tokens["truncated"] else ""
        each = f"{tokens['per_row']:.1f} a row, {tokens['bytes_per_token']:.0f} bytes each"
        facts.append(f"{tokens['vectors']:,} token vectors ({each}{cut})")
    parts = ", ".join(f"{part} {shown_size(size)}" for part, size in _bytes_by_part(record).items())
    return f"{', '.join(facts)}; {parts}"


def print_verified(index: Index, *, as_json: bool) -> None:
    """That every byte of an index is as it was written, and how many there are."""
    if as_json:
        print_json({"path": str(index.path), "documents": len(index), "bytes": index.size_bytes(), "intact": True})
        return
    size = index.size_bytes()
    legs = "the same documents in every leg"
    typer.echo(f"{shown(str(index.path))}: {len(index)} documents, {size} bytes, every file as it was written, {legs}")


def _say_empty(ranking: Ranking, index: Index, where: str, least: float | None) -> None:
    """`least`: the chance of relevance below which hits have been left out."""
    from tiercel.app import why_empty
    from tiercel.data.records import excerpt

    query = ranking.query
    asked = excerpt(query.text) if query.text.strip() else f"query {excerpt(query.id)}"
    why = why_empty(index, query.text, where) if least is None else f"no hit has a chance of {least:g} to be relevant"
    say(f"no result for {asked}: {why}")


def _matched(document: Document, hit: Hit) -> str:
    """The text of the passage that matched, or of the whole document where documents are not cut."""
    return document.text[slice(*hit.span)] if hit.span else document.text


def one_line(text: str) -> str:
    """The start of a text on one line, fit for any terminal."""
    flat = " ".join(text[: 4 * _SNIPPET].split())
    return shown(flat if len(flat) <= _SNIPPET else flat[: _SNIPPET - 1] + "…")


def shown_size(count: int) -> str:
    """Bytes as a person reads them: megabytes from a tenth of one on."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"


def _bytes_by_part(record: SegmentRecord) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, file in record.files.items():
        part = name.split("/")[0] if "/" in name else "documents"
        sizes[part] = sizes.get(part, 0) + file.size_bytes
    if record.deletes:
        sizes["deletes"] = sum(file.size_bytes for file in record.deletes.files.values())
    return sizes


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", header: bool = True) -> None:
    """Rows of cells under their columns: aligned on a terminal, separated by tabs elsewhere."""
    if not sys.stdout.isatty():
        if title:
            typer.echo(f"# {shown(title)}")
        for row in [columns, *rows] if header else rows:
            typer.echo("\t".join(map(shown, row)))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(shown(title)) if title else None, title_justify="left", box=None, pad_edge=False)
    table.show_header = header
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if header and number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    _stdout().print(table)


def print_notes(notes: Iterable[str]) -> None:
    """What one should know about a table, on stderr."""
    for note in notes:
        say(note)


def print_json(value: object, *, indent: bool = True) -> None:
    """One JSON value: over several lines, or on one."""
    # orjson escapes the controls up to 0x1f only; in JSON a control can stand nowhere but inside a string.
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    typer.echo(_HIGH_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _stdout() -> Console:
    from rich.console import Console

    return Console()
