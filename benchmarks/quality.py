"""nDCG@10 after every stage of the default pipeline, with a paired randomisation test against the stage before.

Each collection is a BEIR folder. It is indexed with the bundled encoder and its token vectors, and one split is asked.
None of these splits had a part in making the bundled models (docs/MODELS.md).

    python benchmarks/quality.py DATA [--sets scifact/test ...] [--work FOLDER] [--pipeline ...] [--tokens 4bit]

DATA holds the folders. An index that lies in --work already is used as it is. `p` is that of the difference of the
means from those of the stage above, two-sided, over sign flips; for recall's fusion, from the better leg.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tiercel.app import default_pipeline, make_pipeline, open_index
from tiercel.config import Settings
from tiercel.data.chunking import Chunking
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.evaluation.measures import parse_measures
from tiercel.evaluation.report import PipelineReport, StageRow, evaluate_pipeline
from tiercel.evaluation.significance import paired_differences, randomisation_test
from tiercel.index_settings import IndexOptions
from tiercel.indexing import index_documents
from tiercel.retrieve.spec import parse

_SETS = ("scifact/test", "squad-part/dev", "medquad/test", "policyqa/test", "nq-qed-dev/dev", "qmsum/test")
_CUT = {"qmsum"}
"""Collections of documents too long for one vector: cut into passages of sentences."""

_MEASURE = "nDCG@10"


def main() -> None:
    options = _arguments()
    print(f"{'set':<16}{'queries':>8}  {'stage':<24}{_MEASURE:>8}{'p':>9}{'ms a query':>12}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for place in options.sets:
            name, split = place.split("/")
            report = _measured(options, name, split, options.work or Path(scratch))
            _print(place, report)


def _measured(options: argparse.Namespace, name: str, split: str, work: Path) -> PipelineReport:
    settings = Settings.from_environment()
    path = work / f"{name}-{options.tokens}.tiercel"
    if not path.exists():
        chunking = Chunking("sentences") if name in _CUT else None
        wanted = IndexOptions(tokens=options.tokens, chunking=chunking)
        index_documents(path, [options.data / name], wanted, settings=settings)
    index = open_index(path)
    spec = parse(options.pipeline) if options.pipeline else default_pipeline(index)
    return evaluate_pipeline(
        make_pipeline(index, spec, settings=settings),
        read_queries(options.data / name),
        qrels=read_qrels(options.data / name, split=split),
        measures=parse_measures([_MEASURE]),
        keep=100,
        latency_limit=0,
    )


def _print(place: str, report: PipelineReport) -> None:
    rows = report.rows
    for number, row in enumerate(rows):
        before = _before(rows, number)
        p = "" if before is None else f"{_p(row, before):.4f}"
        queries = row.result.queries
        shown = f"{place:<16}{queries:>8}" if number == 0 else " " * 24
        figures = f"{row.result.means[_MEASURE]:>8.4f}{p:>9}{row.seconds / queries * 1000:>12.1f}"
        print(f"{shown}  {row.stage:<24}{figures}", flush=True)


def _before(rows: tuple[StageRow, ...], number: int) -> StageRow | None:
    """What a stage is compared with: the better leg for a fusion of two, the stage before for one that reranks."""
    if number < 2:
        return None
    return max(rows[:2], key=lambda row: row.result.means[_MEASURE]) if number == 2 else rows[number - 1]


def _p(row: StageRow, before: StageRow) -> float:
    values, others = (each.result.per_query[_MEASURE] for each in (row, before))
    return randomisation_test(paired_differences(list(values.values()), [others[key] for key in values])).p


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=_SETS, metavar="NAME/SPLIT")
    parser.add_argument("--work", type=Path, help="where the indexes are kept")
    parser.add_argument("--pipeline")
    parser.add_argument("--tokens", default="4bit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
