"""Commands that try the user's own index without judgments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiercel.commands.options import AsJson, IndexPath, Measures, ModelPrecision
from tiercel.config import Settings
from tiercel.errors import UsageError

PROBE_MEASURES = ("RR@10",)


def probe(
    index: IndexPath,
    pipelines: Annotated[
        list[str] | None, typer.Option("--pipeline", "-p", help="Stages; repeat to probe several.")
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="How many documents are to be found again.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw: the same gives the same queries.")] = 1,
    measures: Measures = None,
    precision: ModelPrecision = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write queries and judgments into this folder, in BEIR's form.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try whether pipelines find documents of the index again, by keywords, a snippet and the title.

    Every query is asked as it stands, with slips, in lower case and with its words in another order; "worst" is the
    mean over the documents of each one's worst form. A near-duplicate of the document counts as found.
    """
    from tiercel.app import SearchOptions, default_pipeline, make_pipelines, open_index
    from tiercel.commands.options import check_reranking
    from tiercel.evaluation.measures import parse_measures
    from tiercel.evaluation.probe import make_known_items, write_known_items
    from tiercel.evaluation.probe import probe as find_again
    from tiercel.reranking import RerankOptions
    from tiercel.retrieve.spec import parse
    from tiercel.screen import say
    from tiercel.screen_probes import print_probe, print_probe_json

    wanted = parse_measures(measures or PROBE_MEASURES)
    named = [parse(text) for text in pipelines or ()]
    reranking = RerankOptions(precision=precision)
    check_reranking(reranking, named)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}, which is there already", expected="a new or an empty folder")
    opened = open_index(index)
    specs = named or [default_pipeline(opened)]
    options = SearchOptions(reranking=reranking, say=say)
    cascades = make_pipelines(opened, specs, settings=Settings.from_environment(), options=options)
    known = make_known_items(opened, documents=documents, seed=seed)
    if out is not None:
        write_known_items(known, out)
    keep = max([10, *(measure.cutoff or 100 for measure in wanted)])
    found = {
        str(spec): find_again(cascade, known, measures=wanted, keep=keep)
        for spec, cascade in zip(specs, cascades, strict=True)
    }
    if as_json:
        print_probe_json(found, known, wanted)
    else:
        print_probe(found, known)
