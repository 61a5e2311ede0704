"""Long documents reranked in several ways, over the same candidates: nDCG@10, cost, and how long what is first is.

    python benchmarks/long_documents.py DATA --local MODEL [--cross MODEL] [--sets squad-docs/dev ...] [--queries 200]

DATA holds BEIR folders. The first stage is bm25+dense over passages of sentences, by the bundled encoder. What reranks:

- late FirstP: MaxSim over the document's beginning, as much as the encoder reads;
- late MaxP: MaxSim over the passages, the best one counts;
- local: MODEL, a local-attention model, over the whole document;
- cross FirstP, MaxP, extract: a cross-encoder over the document's beginning, over all windows of it, and over its
  sentences that have most of the query's terms.

Each alone, and fused with the first stage. Vectors of late and local are stored (4 bits), so their times are those
of comparing. `tokens` are read by a network and `GFLOP` spent for a query and its candidates, by the formulas of
`tiercel.rerankers.costs` at their mean lengths. `words` is the mean number of words of the ten documents ranked first,
and that of the relevant ones. Queries are drawn evenly from the split; documents are cut to --words, if that is given.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tokenizers import Tokenizer

from tiercel.app import Models, make_pipeline, open_index
from tiercel.config import LongStrategy, Settings
from tiercel.data.chunking import Chunking
from tiercel.data.corpus import read_documents
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.evaluation.latency import draw_evenly
from tiercel.evaluation.measures import evaluate, parse_measures
from tiercel.index.store import Index
from tiercel.index_settings import IndexOptions
from tiercel.indexing import add_documents
from tiercel.models.encoder import OnnxEncoder
from tiercel.protocols import Reranker
from tiercel.rerankers.costs import Cost, Lengths, cross_encoder, late_interaction, local_attention
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
from tiercel.reranking import RerankOptions, make_reranker
from tiercel.retrieve.cascade import RerankStep, rerank
from tiercel.retrieve.fusion import FusionMethod
from tiercel.retrieve.spec import parse
from tiercel.types import DocId, Document, Qrels, Query, Ranking

_MEASURE = "nDCG@10"
_Asked: TypeAlias = tuple[int, list[int]]
"""Tokens of a query, and of each of its candidates."""

_INDEXES = {
    "passages": IndexOptions(tokens="4bit", chunking=Chunking("sentences")),
    "beginnings": IndexOptions(tokens="4bit"),
}


class _Row(NamedTuple):
    name: str
    rankings: Sequence[Ranking]
    seconds: float = 0.0
    cost: Cost | None = None


class _Way(NamedTuple):
    """What reranks, and what it costs a query whose candidates have these lengths."""

    name: str
    reranker: Reranker
    cost: Callable[[Sequence[_Asked]], Cost]


def main() -> None:
    options = _arguments()
    columns = f"{_MEASURE:>8}{'ms a query':>12}{'tokens':>9}{'GFLOP':>8}{'words':>12}"
    print(f"{'set':<16}{'queries':>8}  {'ranked by':<20}{columns}", flush=True)
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
            for row in _rows(indexes, queries, documents, options):
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
    indexes: dict[str, Index], queries: Sequence[Query], documents: dict[DocId, Document], options: argparse.Namespace
) -> Iterable[_Row]:
    settings, depth = Settings.from_environment(), options.depth
    first = make_pipeline(indexes["passages"], parse(f"bm25+dense@{depth}"), settings=settings)
    first.retrieve(queries[:1], keep=depth)
    started = time.perf_counter()
    found = first.retrieve(queries, keep=depth)
    yield _Row("bm25+dense", found, time.perf_counter() - started)
    asked = _asked(found, documents, Models(indexes["passages"], settings).encoder(""))
    bare = [replace(r, hits=tuple(hit._replace(span=None) for hit in r.hits)) for r in found]
    for way in _ways(indexes, options.cross, settings):
        step = RerankStep(way.name, way.reranker)
        rerank(step, bare[:1], documents=documents)
        started = time.perf_counter()
        alone = rerank(step, bare, documents=documents)
        yield _Row(way.name, alone, time.perf_counter() - started, way.cost(asked))
        fused = replace(step, fusion=FusionMethod.MINMAX)
        both = [fused.fuse(*pair, keep=depth) for pair in zip(bare, alone, strict=True)]
        yield _Row(f"first + {way.name}", both)


def _ways(indexes: dict[str, Index], cross: str, settings: Settings) -> Iterable[_Way]:
    late = partial(late_interaction, stored=True)
    beginning = Models(indexes["beginnings"], settings).encoder("").max_tokens
    stored = {
        "late FirstP": ("beginnings", "late", partial(_mean_cost, late, window=beginning)),
        "late MaxP": ("passages", "late", partial(_mean_cost, late)),
        "local": ("local", "local", partial(_mean_cost, partial(local_attention, stored=True))),
    }
    for name, (kind, stage, cost) in stored.items():
        yield _Way(name, Models(indexes[kind], settings).reranker(stage, ""), cost)
    strategies: dict[str, LongStrategy] = {"FirstP": "first", "extract": "extract", "MaxP": "max"}
    if not cross:
        return
    for name, long in strategies.items():
        reranker = make_reranker(cross, settings=settings, options=RerankOptions(long=long))
        if isinstance(reranker, OnnxCrossEncoder):  # the first; the others wrap it
            window = reranker.max_tokens
        cost = partial(_mean_cost, cross_encoder, window=window, windows=long == "max")
        yield _Way(f"cross {name}", reranker, cost)


def _asked(found: Sequence[Ranking], documents: dict[DocId, Document], encoder: OnnxEncoder) -> list[_Asked]:
    """Of each query, how many of the encoder's tokens it and its candidates have."""
    tokenizer = Tokenizer.from_file(str(encoder.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    count = cache(lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
    return [(count(r.query.text), [count(documents[doc_id].full_text) for doc_id in r.doc_ids]) for r in found]


def _mean_cost(
    formula: Callable[[Lengths], Cost], asked: Sequence[_Asked], *, window: int = 0, windows: bool = False
) -> Cost:
    """A query's: candidates are cut to the window where there is one, or divided into windows."""
    costs = []
    for query, candidates in asked:
        rooms = [window - query if window else size for size in candidates]
        read = sum(-(-size // room) if windows else 1 for size, room in zip(candidates, rooms, strict=True))
        kept = candidates if windows else list(map(min, candidates, rooms))
        costs.append(formula(Lengths(query, round(sum(kept) / read), read)))
    return Cost(*(round(sum(column) / len(costs)) for column in zip(*costs, strict=True)))


def _print(place: str, row: _Row, qrels: Qrels, documents: dict[DocId, Document]) -> None:
    result = evaluate(row.rankings, qrels, parse_measures([_MEASURE]))
    lengths = {doc_id: len(document.text.split()) for doc_id, document in documents.items()}
    top = [lengths[hit.doc_id] for ranking in row.rankings for hit in ranking.hits[:10]]
    relevant = [lengths[doc_id] for grades in qrels.values() for doc_id, grade in grades.items() if grade > 0]
    spent = f"{row.seconds / len(row.rankings) * 1000:.1f}" if row.seconds else "-"
    cost = f"{row.cost.tokens:>9}{row.cost.operations / 1e9:>8.2f}" if row.cost else f"{'-':>9}{'-':>8}"
    words = f"{sum(top) / len(top):.0f}/{sum(relevant) / len(relevant):.0f}"
    figures = f"{result.means[_MEASURE]:>8.4f}{spent:>12}{cost}{words:>12}"
    print(f"{place:<16}{len(row.rankings):>8}  {row.name:<20}{figures}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--local", type=Path, required=True, help="a local-attention model, exported or not")
    parser.add_argument("--cross", default="", help="a cross-encoder, exported or not")
    parser.add_argument("--sets", nargs="+", default=["squad-docs/dev", "qmsum/test"])
    parser.add_argument("--untitled", nargs="*", default=["medquad-docs"], help="sets whose titles are left out")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--words", type=int, help="first words of a document that are used; default: all")
    parser.add_argument("--work", type=Path, help="keep the indexes there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
