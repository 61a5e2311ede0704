"""BM25 against its peers: build time and queries per second, one thread, one run.

A Zipf collection is generated, of the length and shape of MS MARCO passages (lognormal, about 45 tokens;
Zipf-Mandelbrot terms, 500,000 distinct). A query is 2 to 6 distinct terms of one document, the 30 most frequent terms
left out as stop words. Every system gets the same texts and queries and returns the scores and internal numbers of the
k best, in order; each is asked in the way that is fastest for it. Peers' defaults are kept but for k1 = 0.9, b = 0.4
where they can be set.
Tiercel's build also stores the documents and reaches the disk; the others index in memory and store nothing.

    python benchmarks/lexical.py [--documents 200000 1000000] [--queries 2000] [--systems tiercel bm25s ...]

Each system runs in a process of its own, so that memory of one does not slow the next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7
TERMS = 500_000
STOP_RANK = 30
DEPTHS = (10, 1000)
SYSTEMS = ("tiercel", "bm25s", "tantivy", "rank-bm25")
RANK_BM25_LIMIT = 200_000
"""rank-bm25 keeps a dictionary per document; above this it needs more memory than the machine has to give."""

Ask = Callable[[Sequence[str], int], int]
"""Runs queries at a depth; returns the number of hits, so that no system can skip the work."""


def collection(documents: int, queries: int) -> tuple[list[str], list[str]]:
    """Texts and queries, the same for the same numbers."""
    random = np.random.default_rng(SEED)
    weights = 1 / (np.arange(1, TERMS + 1) + 2.7) ** 1.07
    cumulative = np.cumsum(weights / weights.sum())
    lengths = np.clip(random.lognormal(np.log(42), 0.4, documents).astype(np.int64), 5, 300)
    ranks = np.minimum(np.searchsorted(cumulative, random.random(int(lengths.sum()))), TERMS - 1)
    words = np.array([word(rank) for rank in range(TERMS)], dtype=object)
    stream = words[ranks].tolist()
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    texts = [" ".join(stream[start:end]) for start, end in zip(starts, ends, strict=True)]
    asked: list[str] = []
    while len(asked) < queries:
        i = int(random.integers(documents))
        terms = np.unique(ranks[starts[i] : ends[i]])
        terms = terms[terms > STOP_RANK]
        if terms.size:
            chosen = random.choice(terms, min(terms.size, int(random.integers(2, 7))), replace=False)
            asked.append(" ".join(words[chosen]))
    return texts, asked


def word(rank: int) -> str:
    """A pronounceable word for a rank: short for frequent terms, as in language."""
    consonants, vowels = "bcdfghklmnprstvz", "aeiou"
    syllables = []
    rank += 1
    while rank:
        syllables.append(consonants[rank % 16] + vowels[rank // 16 % 5])
        rank //= 80
    return "".join(syllables)


def build_tiercel(texts: Sequence[str], folder: Path) -> Ask:
    """Analyser `none`: every word is a term, as for the others."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.lexical import LexicalRetriever, analyze_queries
    from tiercel.index.manifest import IndexSettings
    from tiercel.index.store import Index
    from tiercel.index.writer import IndexWriter
    from tiercel.types import DocId, Document

    plain = analyzer("none")
    with IndexWriter(folder / "index", create=True) as writer:
        documents = (Document(DocId(str(i)), text) for i, text in enumerate(texts))
        writer.build(documents, IndexSettings("none", plain.fingerprint, None))
    (view,) = Index(folder / "index").views
    retriever = LexicalRetriever([view], plain)

    def ask(queries: Sequence[str], depth: int) -> int:
        analyzed = analyze_queries(plain, queries)
        _, _, sizes = retriever.search(view, analyzed, retriever.weigh(analyzed.terms), depth)
        return int(sizes.sum())

    return ask


def build_bm25s(texts: Sequence[str], folder: Path) -> Ask:
    """Numba backend; the time includes its own tokenizer (words, no stop words, no stemmer)."""
    import bm25s

    options: dict[str, Any] = {"stopwords": None, "show_progress": False, "token_pattern": r"\S+"}
    retriever = bm25s.BM25(k1=0.9, b=0.4, method="lucene", backend="numba")
    retriever.index(bm25s.tokenize(list(texts), **options), show_progress=False)

    def ask(queries: Sequence[str], depth: int) -> int:
        tokens = bm25s.tokenize(list(queries), **options)
        found, _ = retriever.retrieve(tokens, k=depth, show_progress=False, n_threads=0)
        return int(found.size)

    return ask


def build_tantivy(texts: Sequence[str], folder: Path) -> Ask:
    """White-space tokenizer, frequencies but no positions, one writer thread, segments merged."""
    import tantivy

    schema = tantivy.SchemaBuilder()
    schema.add_text_field("body", stored=False, tokenizer_name="whitespace", index_option="freq")
    index = tantivy.Index(schema.build())
    writer = index.writer(heap_size=1_000_000_000, num_threads=1)
    for text in texts:
        document = tantivy.Document()
        document.add_text("body", text)
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def ask(queries: Sequence[str], depth: int) -> int:
        return sum(len(searcher.search(index.parse_query(q, ["body"]), depth, count=False).hits) for q in queries)

    return ask


def build_rank_bm25(texts: Sequence[str], folder: Path) -> Ask:
    """BM25Okapi; scores every document of the collection for every query."""
    from rank_bm25 import BM25Okapi

    scorer = BM25Okapi([text.split() for text in texts], k1=0.9, b=0.4)

    def ask(queries: Sequence[str], depth: int) -> int:
        found = 0
        for query in queries:
            scores = scorer.get_scores(query.split())
            found += int(np.argpartition(-scores, depth)[:depth].size)
        return found

    return ask


BUILDERS = {"tiercel": build_tiercel, "bm25s": build_bm25s, "tantivy": build_tantivy, "rank-bm25": build_rank_bm25}


def measure(system: str, documents: int, queries: int) -> dict[str, float]:
    """Build and ask one system in this process; compiled code is warmed up on a small collection first."""
    texts, asked = collection(documents, queries)
    with tempfile.TemporaryDirectory() as folder:
        warm = BUILDERS[system](texts[:2000], Path(folder) / "warm")
        for depth in DEPTHS:
            warm(asked[:10], depth)
        started = time.perf_counter()
        ask = BUILDERS[system](texts, Path(folder))
        figures = {"build_s": time.perf_counter() - started}
        if system == "rank-bm25":
            asked = asked[:20]
        for depth in DEPTHS:
            ask(asked[:20], depth)
            rates = []
            for _ in range(3):
                started = time.perf_counter()
                ask(asked, depth)
                rates.append(len(asked) / (time.perf_counter() - started))
            figures[f"qps_{depth}"] = float(np.median(rates))
    figures["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return figures


def measure_apart(system: str, documents: int, queries: int) -> dict[str, float]:
    """`measure` in a fresh process of one thread."""
    threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TIERCEL_THREADS"), "1")
    command = [sys.executable, __file__, "--one", system, "--documents", str(documents), "--queries", str(queries)]
    done = subprocess.run(command, env={**os.environ, **threads}, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print one table per collection size, with each figure's ratio to Tiercel's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--one", choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.documents[0], arguments.queries)))
        return
    print(f"{platform.machine()}, {platform.python_version()}, one thread, {arguments.queries} queries of 2 to 6 terms")
    for documents in arguments.documents:
        print(f"\n{documents:,} passages")
        print(
            f"{'system':<10}{'build s':>9}{'q/s k=10':>10}{'q/s k=1000':>12}{'peak GB':>9}"
            "   against tiercel: build, k=10, k=1000"
        )
        ours: dict[str, float] = {}
        for system in arguments.systems:
            if system == "rank-bm25" and documents > RANK_BM25_LIMIT:
                print(f"{system:<10} left out above {RANK_BM25_LIMIT:,} passages: too large for memory")
                continue
            figures = measure_apart(system, documents, arguments.queries)
            ours = ours or figures
            ratios = [figures[name] / ours[name] for name in ("build_s", "qps_10", "qps_1000")]
            print(
                f"{system:<10}{figures['build_s']:>9.1f}{figures['qps_10']:>10.0f}{figures['qps_1000']:>12.0f}"
                f"{figures['peak_gb']:>9.1f}   {ratios[0]:.2f}x, {ratios[1]:.2f}x, {ratios[2]:.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
