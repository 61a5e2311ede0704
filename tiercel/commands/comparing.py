"""Commands that set runs against each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from tiercel.commands.evaluating import DEFAULT_MEASURES
from tiercel.commands.options import AsJson, Measures, QueryForm
from tiercel.data.queries import QueryFormat
from tiercel.data.runs import RunFormat
from tiercel.errors import UsageError
from tiercel.types import DocId, QueryId

_SHOWN_HITS = 5


def compare(
    runs: Annotated[list[str], typer.Argument(help="Run files; the first is the baseline.", metavar="RUN RUN...")],
    qrels: Annotated[str, typer.Option(help="Relevance judgments: TREC, BEIR or MS MARCO form, or a BEIR folder.")],
    split: Annotated[str | None, typer.Option(help="Which qrels of a BEIR folder.")] = None,
    run_format: Annotated[RunFormat | None, typer.Option(help="Form of the runs, if they do not tell.")] = None,
    measures: Measures = None,
    margin: Annotated[
        float | None, typer.Option(help="A difference that does not matter: tests whether a run is no worse by it.")
    ] = None,
    complement: Annotated[
        int | None,
        typer.Option(min=1, help="Count the relevant documents that each run finds at this depth.", metavar="K"),
    ] = None,
    changed: Annotated[int, typer.Option(min=0, help="Show so many queries that changed most.")] = 5,
    queries: Annotated[str | None, typer.Option(help="File of queries, to show their texts.")] = None,
    query_format: QueryForm = None,
    corpus: Annotated[
        list[str] | None, typer.Option(help="Documents, or one index, to show their texts; repeat for more sources.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test whether runs differ from a baseline by more than chance, and show where."""
    from tiercel.data.qrels import qrels_path, read_qrels
    from tiercel.data.runs import read_run
    from tiercel.evaluation import comparison
    from tiercel.evaluation.conventions import convention_of, measures_of
    from tiercel.evaluation.measures import binary_measures
    from tiercel.screen import say
    from tiercel.screen_runs import print_changes, print_comparison_json, print_comparisons

    convention = convention_of(str(qrels_path(qrels, split=split)))
    wanted = measures_of(convention, measures or (), DEFAULT_MEASURES)
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise UsageError(
            "one run" if len(runs) < 2 else "a run named twice",
            expected="a baseline and at least one other: tiercel compare BASELINE RUN --qrels R",
        )
    judgments = read_qrels(qrels, split=split)
    if convention:
        say(convention.note(judgments))
    elif binary := binary_measures(wanted, judgments):
        say(f"the judgments are graded; {', '.join(binary)} take grade 1 and up as relevant: RR(rel=2)@10 asks for 2")
    keep = max(_SHOWN_HITS, complement or 0)
    baseline, *others = [
        # One run at a time is held: only the top of its rankings stays.
        comparison.measure_run(name, read_run(name, format=run_format), judgments, measures=wanted, keep=keep)
        for name in runs
    ]
    comparisons = comparison.compare(baseline, others, margin=margin)
    by_name = {other.name: other for other in others}
    first = str(wanted[0])
    changes = [
        change for other in others for change in comparison.most_changed(baseline, other, measure=first, limit=changed)
    ]
    complements = [
        comparison.complement(baseline, other, judgments, depth=complement) for other in others if complement
    ]
    if as_json:
        print_comparison_json(
            baseline, by_name, comparisons, changes=changes, complements=complements, depth=_SHOWN_HITS
        )
        return
    print_comparisons(baseline, comparisons, complements=complements)
    seen = [
        hit.doc_id
        for change in changes
        for run in (baseline, by_name[change.run])
        if change.query_id in run.top
        for hit in run.top[change.query_id].hits[:_SHOWN_HITS]
    ]
    texts = _query_texts(queries, query_format), _document_texts(corpus or [], seen)
    print_changes(baseline, by_name, changes, qrels=judgments, texts=texts, depth=_SHOWN_HITS)


def _query_texts(queries: str | None, form: QueryFormat | None) -> dict[QueryId, str]:
    from tiercel.data.queries import read_queries

    return {query.id: query.text for query in read_queries(queries, format=form)} if queries else {}


def _document_texts(sources: list[str], wanted: Iterable[DocId]) -> dict[DocId, str]:
    """Texts of these documents, from an index or by reading a corpus through; one that is not there is left out."""
    from tiercel.app import open_index
    from tiercel.data.corpus import read_documents

    ids = dict.fromkeys(wanted)
    if not sources or not ids:
        return {}
    if len(sources) == 1 and (Path(sources[0]) / "manifest.json").is_file():
        return {document.id: document.full_text for document in open_index(Path(sources[0])).get(list(ids))}
    return {document.id: document.full_text for document in read_documents(sources) if document.id in ids}
