"""How does an index behave as it grows and changes? BM25 over synthetic passages of MS MARCO's length.

The collection and the queries are those of benchmarks/lexical.py, made in a process of its own and read from a JSONL
file, so that memory is the index's. Printed are

- build time per document at each size against the smallest, and the peak memory of the build;
- resident memory of a process that has opened the index and answered its first query;
- queries per second before and after a tenth of the documents is deleted, and after compacting;
- the time to add 1,000 documents, against the build.

    python benchmarks/scale.py [--documents 100000 1000000]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tiercel.data.corpus import read_documents
from tiercel.types import DocId, Query, QueryId

QUERIES = 1000
ADDED = 1000
ROUNDS = 3
_MB = 1e6


def make(folder: Path, documents: int) -> dict[str, float]:
    """Write the collection, some documents to add later, and the queries."""
    sys.path.insert(0, str(Path(__file__).parent))
    from lexical import collection

    texts, asked = collection(documents + ADDED, QUERIES)
    for name, start, end in (("base", 0, documents), ("more", documents, documents + ADDED)):
        with (folder / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps({"id": str(i), "text": texts[i]}) + "\n" for i in range(start, end))
    (folder / "queries.json").write_text(json.dumps(asked))
    return {}


def build(folder: Path, documents: int) -> dict[str, float]:
    """Build the index, as `tiercel index --encoder none` does."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.manifest import IndexSettings
    from tiercel.index.writer import IndexWriter

    settings = IndexSettings("none", analyzer("none").fingerprint, None)
    with IndexWriter(folder / "warm", create=True) as writer:  # loads the compiled kernels
        writer.build(read_documents([folder / "more.jsonl"]), settings)
    started = time.perf_counter()
    with IndexWriter(folder / "index", create=True) as writer:
        writer.build(read_documents([folder / "base.jsonl"]), settings)
    return {"seconds": time.perf_counter() - started, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def first_query(folder: Path, documents: int) -> dict[str, float]:
    """Resident memory after opening, and after the first query of the file."""
    from tiercel.index.lexical import LexicalRetriever
    from tiercel.index.store import Index

    index = Index(folder / "index")
    retriever = LexicalRetriever(index.views, index.analyzer)
    opened = _resident()
    retriever.retrieve(_queries(folder)[:1], keep=10)
    return {"opened": opened, "asked": _resident()}


def search(folder: Path, documents: int) -> dict[str, float]:
    """Queries per second at k = 10 and k = 1000, the median of three rounds."""
    from tiercel.index.lexical import LexicalRetriever
    from tiercel.index.store import Index

    index = Index(folder / "index")
    retriever = LexicalRetriever(index.views, index.analyzer)
    queries = _queries(folder)
    figures = {"segments": float(len(index.views))}
    for keep in (10, 1000):
        retriever.retrieve(queries[:20], keep=keep)
        rates = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            retriever.retrieve(queries, keep=keep)
            rates.append(len(queries) / (time.perf_counter() - started))
        figures[f"qps_{keep}"] = sorted(rates)[ROUNDS // 2]
    return figures


def add(folder: Path, documents: int) -> dict[str, float]:
    """Add 1,000 documents."""
    from tiercel.index.writer import IndexWriter

    started = time.perf_counter()
    with IndexWriter(folder / "index") as writer:
        writer.add(read_documents([folder / "more.jsonl"]))
    return {"seconds": time.perf_counter() - started}


def delete(folder: Path, documents: int) -> dict[str, float]:
    """Delete every tenth document."""
    from tiercel.index.writer import IndexWriter

    started = time.perf_counter()
    with IndexWriter(folder / "index") as writer:
        writer.delete([DocId(str(i)) for i in range(0, documents, 10)])
    return {"seconds": time.perf_counter() - started}


def compact(folder: Path, documents: int) -> dict[str, float]:
    """Merge everything."""
    from tiercel.index.writer import IndexWriter

    started = time.perf_counter()
    with IndexWriter(folder / "index") as writer:
        writer.compact()
    return {"seconds": time.perf_counter() - started, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


STEPS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    step.__name__: step for step in (make, build, first_query, search, add, delete, compact)
}


def _queries(folder: Path) -> list[Query]:
    return [Query(QueryId(str(i)), text) for i, text in enumerate(json.loads((folder / "queries.json").read_text()))]


def _resident() -> float:
    """Bytes of this process that are in memory now, mapped files included; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0.0)


def _apart(step: str, folder: Path, documents: int) -> dict[str, float]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--documents", str(documents)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(folder: Path, documents: int, smallest: float | None) -> float:
    """Run all steps at one size and print what they found; returns the build's seconds per document."""
    _apart("make", folder, documents)
    built = _apart("build", folder, documents)
    per_document = built["seconds"] / documents
    growth = "" if smallest is None else f" = {per_document / smallest:.2f}x the smallest size's"
    print(f"build            {built['seconds']:.1f} s, {1e6 * per_document:.1f} µs a document{growth}; "
          f"peak memory {built['peak'] / _MB:,.0f} MB")  # fmt: skip
    resident = _apart("first_query", folder, documents)
    print(
        f"resident         {resident['opened'] / _MB:,.0f} MB opened, {resident['asked'] / _MB:,.0f} MB after a query"
    )
    before = _apart("search", folder, documents)
    print(f"search           {before['qps_10']:,.0f} q/s at k=10, {before['qps_1000']:,.0f} at k=1000")
    deleted = _apart("delete", folder, documents)
    after = _apart("search", folder, documents)
    slower = ", ".join(f"{before[name] / after[name]:.2f}x the time" for name in ("qps_10", "qps_1000"))
    print(f"a tenth deleted  in {deleted['seconds']:.1f} s; a query then takes {slower}")
    added = _apart("add", folder, documents)
    print(f"{ADDED:,} added      in {added['seconds']:.2f} s = {added['seconds'] / built['seconds']:.3f} of the build")
    compacted = _apart("compact", folder, documents)
    final = _apart("search", folder, documents)
    times = ", ".join(f"{before[name] / final[name]:.2f}x" for name in ("qps_10", "qps_1000"))
    share = compacted["seconds"] / built["seconds"]
    print(
        f"compacted        in {compacted['seconds']:.1f} s = {share:.2f} of the build, peak memory "
        f"{compacted['peak'] / _MB:,.0f} MB; a query then takes {times} the time of the first"
    )
    return per_document


def main() -> None:
    """Print one block per size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(STEPS[arguments.step](arguments.folder, arguments.documents[0])))
        return
    print(f"{platform.machine()}, {platform.python_version()}, one thread, {QUERIES} queries of 2 to 6 terms")
    smallest = None
    for documents in sorted(arguments.documents):
        print(f"\n{documents:,} passages")
        with tempfile.TemporaryDirectory() as folder:
            per_document = report(Path(folder), documents, smallest)
        smallest = smallest or per_document


if __name__ == "__main__":
    main()
