"""Long documents reranked four ways, over the same candidates: nDCG@10, time, and how long what is ranked first is.

    python benchmarks/long_documents.py DATA --local MODEL [--sets squad-docs/dev ...] [--queries 200] [--depth 50]

DATA holds BEIR folders. The first stage is bm25+dense over passages of sentences, by the bundled encoder. What reranks:

- late FirstP: MaxSim over the document's beginning, as much as the encoder reads;
- late MaxP: MaxSim over the passages, the best one counts;
- local: MODEL, a local-attention model, over the whole document; alone, and fused with the first stage.

All vectors are stored (4 bits a number), so times are those of comparing. `words` is the mean number of words of the
ten documents ranked first, and that of the relevant ones. Queries are drawn evenly from the split; documents are cut to
--words, where that is given.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tiercel.app import Models, make_pipeline, open_index
from tiercel.config import Settings
from tiercel.data.chunking import Chunking
from tiercel.data.corpus import read_documents
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.evaluation.latency import draw_evenly
from tiercel.evaluation.measures import evaluate, parse_measures
from tiercel.index.store import Index
from tiercel.index_settings import IndexOptions
from tiercel.indexing import add_documents
from tiercel.retrieve.cascade import RerankStep, rerank
from tiercel.retrieve.fusion import FusionMethod
from tiercel.retrieve.spec import parse
from tiercel.types import DocId, Document, Qrels, Query, Ranking

_MEASURE = "nDCG@10"
_INDEXES = {
    "passages": IndexOptions(tokens="4bit", chunking=Chunking("sentences")),
    "beginnings": IndexOptions(tokens="4bit"),
}


class _Row(NamedTuple):
    name: str
    rankings: Sequence[Ranking]
    seconds: float


def main() -> None:
    options = _arguments()
    print(f"{'set':<16}{'queries':>8}  {'ranked by':<20}{_MEASURE:>8}{'ms a query':>12}{'words':>12}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for place in options.sets:
            name, split = place.split("/")
            work = options.work or Path(scratch)
            documents = {d.id: d for d in _documents(options.data / name, options)}
            qrels = read_qrels(options.data / name, split=split)
            judged = [query for query in read_queries(options.data / name) if qrels.get(query.id)]
            queries = draw_evenly(judged, limit=options.queries)
            indexes = {
                kind: _index(work / f"{name}-{kind}.tiercel", documents.values(), wanted)
                for kind, wanted in _indexes(options).items()
            }
            wanted = {query.id: qrels[query.id] for query in queries}
            for row in _rows(indexes, queries, documents, depth=options.depth):
                _print(place, row, wanted, documents)


def _documents(folder: Path, options: argparse.Namespace) -> Iterable[Document]:
    for document in read_documents([folder]):
        words = document.text.split(" ")
        text = document.text if options.words is None else " ".join(words[: options.words])
        yield replace(document, text=text, title="" if folder.name in options.untitled else document.title)


def _indexes(options: argparse.Namespace) -> dict[str, IndexOptions]:
    return {**_INDEXES, "local": IndexOptions(encoder="none", tokens="4bit", token_model=str(options.local))}


def _index(path: Path, documents: Iterable[Document], wanted: IndexOptions) -> Index:
    if not path.exists():
        add_documents(path, documents, wanted, settings=Settings.from_environment())
    return open_index(path)


def _rows(
    indexes: dict[str, Index], queries: Sequence[Query], documents: dict[DocId, Document], *, depth: int
) -> Iterable[_Row]:
    settings = Settings.from_environment()
    first = make_pipeline(indexes["passages"], parse(f"bm25+dense@{depth}"), settings=settings)
    first.retrieve(queries[:1], keep=depth)
    started = time.perf_counter()
    found = first.retrieve(queries, keep=depth)
    yield _Row("bm25+dense", found, time.perf_counter() - started)
    stages = {"late FirstP": ("beginnings", "late"), "late MaxP": ("passages", "late"), "local": ("local", "local")}
    for name, (kind, stage) in stages.items():
        reranker = Models(indexes[kind], settings).reranker(stage, "")
        step = RerankStep(name, reranker)
        bare = [replace(r, hits=tuple(hit._replace(span=None) for hit in r.hits)) for r in found]
        rerank(step, bare[:1], documents=documents)
        started = time.perf_counter()
        alone = rerank(step, bare, documents=documents)
        yield _Row(name, alone, time.perf_counter() - started)
        fused = replace(step, fusion=FusionMethod.MINMAX)
        both = [fused.fuse(*pair, keep=depth) for pair in zip(bare, alone, strict=True)]
        yield _Row(f"first + {name}", both, 0.0)


def _print(place: str, row: _Row, qrels: Qrels, documents: dict[DocId, Document]) -> None:
    result = evaluate(row.rankings, qrels, parse_measures([_MEASURE]))
    lengths = {doc_id: len(document.text.split()) for doc_id, document in documents.items()}
    top = [lengths[hit.doc_id] for ranking in row.rankings for hit in ranking.hits[:10]]
    relevant = [lengths[doc_id] for grades in qrels.values() for doc_id, grade in grades.items() if grade > 0]
    spent = f"{row.seconds / len(row.rankings) * 1000:.1f}" if row.seconds else "-"
    words = f"{sum(top) / len(top):.0f}/{sum(relevant) / len(relevant):.0f}"
    figures = f"{result.means[_MEASURE]:>8.4f}{spent:>12}{words:>12}"
    print(f"{place:<16}{len(row.rankings):>8}  {row.name:<20}{figures}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--local", type=Path, required=True, help="a local-attention model, exported or not")
    parser.add_argument("--sets", nargs="+", default=["squad-docs/dev", "qmsum/test"])
    parser.add_argument("--untitled", nargs="*", default=["medquad-docs"], help="sets whose titles are left out")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--words", type=int, help="first words of a document that are used; default: all")
    parser.add_argument("--work", type=Path, help="keep the indexes there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
