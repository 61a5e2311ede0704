"""How long does late interaction take for the candidates of one query, and what does a token cost on disk?

1,000 candidates of 20 to 120 tokens each, 32 query tokens, 128 dimensions, random unit vectors around 2,000 directions.
Printed are the median and the 90th percentile per query, each candidate list drawn anew and all rivals asked in turn:

- the stage `late` over an index that keeps vectors in each form: from ids to rows, fetched from the mapped file,
  decoded and compared;
- MaxSim alone, over float32 vectors that are in memory already: Tiercel's kernel; the maxsim-cpu package; NumPy's
  matrix product (OpenBLAS) and segment maxima; torch's einsum over padded documents. The last two are not told the
  number of threads.

maxsim-cpu and torch are left out where they are not installed.

    python benchmarks/maxsim.py [--documents 5000] [--candidates 1000] [--threads 2] [--rounds 30] [--codecs 2bit,int8]
"""

from __future__ import annotations

import argparse
import importlib
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import TokenCodec
from tiercel.index.analysis import analyzer
from tiercel.index.manifest import IndexSettings, TokensRecord
from tiercel.index.residual import CODECS
from tiercel.index.row_encoder import RowEncoder
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.index.writer import IndexWriter
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.rerankers.maxsim import maxsim
from tiercel.types import DocId, Document, Query, QueryId

DIMENSION = 128
QUERY_TOKENS = 32
SHORTEST, LONGEST = 20, 120
CLUSTERS = 2_000

Matrix = NDArray[np.float32]


class Given:
    """Encodes every query as the next of those that were made before, and a document as what its number names."""

    dimension = DIMENSION
    fingerprint = "given"
    truncated = 0

    def __init__(self, documents: list[Matrix]) -> None:
        self.query: Matrix = np.zeros((0, DIMENSION), dtype=np.float32)
        self._documents = documents

    def encode_queries(self, texts: Sequence[str]) -> list[Matrix]:
        return [self.query for _ in texts]

    def encode_documents(self, texts: Sequence[str]) -> list[Matrix]:
        return [self._documents[int(text)] for text in texts]


def unit(rows: NDArray[np.floating]) -> Matrix:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def collection(documents: int, drawn: np.random.Generator) -> list[Matrix]:
    """Token vectors of each document."""
    centres = unit(drawn.standard_normal((CLUSTERS, DIMENSION)))
    made = []
    for size in drawn.integers(SHORTEST, LONGEST + 1, documents):
        around = unit(drawn.standard_normal((size, DIMENSION)))
        made.append(unit(centres[drawn.integers(0, CLUSTERS, size)] + 0.7 * around))
    return made


def by_blas(query: Matrix, tokens: Matrix, offsets: NDArray[np.int64]) -> Matrix:
    return np.asarray(np.maximum.reduceat(tokens @ query.T, offsets[:-1], axis=0).sum(axis=1))


def by_torch(torch: Any, query: Matrix, padded: Any, mask: Any) -> Any:
    similarities = torch.einsum("qd,ntd->nqt", torch.from_numpy(query), padded)
    return similarities.masked_fill(~mask[:, None], -2).amax(2).sum(1).numpy()


def module(name: str) -> Any:
    """A package that need not be there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed")
        return None


def store(folder: Path, documents: list[Matrix], codec: TokenCodec, threads: int) -> StoredTokens:
    """Keep the collection in one form, and say what that took and lost."""
    given = Given(documents)
    kept = TokensRecord("given", "late-interaction", "fp32", given.fingerprint, DIMENSION, LONGEST, codec)
    settings = IndexSettings("none", analyzer("none").fingerprint, None, tokens=kept)
    started = time.perf_counter()
    with IndexWriter(folder, create=True, threads=threads) as writer:
        named = (Document(id_of(i), str(i)) for i in range(len(documents)))
        writer.build(named, settings, encoder=RowEncoder(tokens=given))
    seconds = time.perf_counter() - started
    views = Index(folder).views
    vectors = views[0].segment.tokens
    rows = np.arange(min(500, len(documents)))
    cosine = (vectors.gather(rows)[0] * np.concatenate([documents[row] for row in rows])).sum(axis=1).mean()
    print(f"{codec:10} {vectors.codec.bytes_per_token:4} bytes a token, mean cosine {cosine:.5f}, "
          f"indexed in {seconds:.1f} s")  # fmt: skip
    return StoredTokens(views)


def id_of(number: int) -> DocId:
    return DocId(f"document-{number:07}")


PEER = module("maxsim_cpu")
TORCH = module("torch")


def rivals(documents: list[Matrix], chosen: NDArray[np.int64], query: Matrix) -> dict[str, Callable[[], Any]]:
    """MaxSim over vectors in memory: what each wants is made before the clock runs."""
    candidates = [documents[i] for i in chosen]
    tokens = np.concatenate(candidates)
    offsets = np.cumsum([0, *map(len, candidates)], dtype=np.int64)
    found: dict[str, Callable[[], Any]] = {
        "kernel, 1 thread": partial(maxsim, query, tokens, offsets),
        "NumPy": partial(by_blas, query, tokens, offsets),
    }
    if PEER is not None:
        found["maxsim-cpu"] = partial(PEER.maxsim_scores_variable, query, candidates)
    if TORCH is not None:
        padded = TORCH.zeros((len(candidates), LONGEST, DIMENSION))
        mask = TORCH.zeros((len(candidates), LONGEST), dtype=TORCH.bool)
        for row, candidate in enumerate(candidates):
            padded[row, : len(candidate)] = TORCH.from_numpy(candidate)
            mask[row, : len(candidate)] = True
        found["torch, padded"] = partial(by_torch, TORCH, query, padded, mask)
    return found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    time.sleep(0.05)  # the workers of OpenBLAS and torch spin for a while after their last call
    started = time.perf_counter()
    result = call()
    return 1e3 * (time.perf_counter() - started), result


def main() -> None:
    """Print one line per form and rival."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=5_000)
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--codecs", default=",".join(CODECS))
    arguments = parser.parse_args()
    codecs = [codec for codec in CODECS if codec in arguments.codecs.split(",")]
    drawn = np.random.default_rng(0)
    documents = collection(arguments.documents, drawn)
    print(f"{platform.machine()}, {arguments.threads} threads, {sum(map(len, documents)):,} tokens of {DIMENSION} "
          f"dimensions, {arguments.candidates:,} candidates a query")  # fmt: skip
    encoder = Given(documents)
    times: dict[str, list[float]] = {}
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        rerankers = {}
        for codec in codecs:
            stored = store(Path(folder) / codec, documents, codec, arguments.threads)
            rerankers[f"stored {codec}"] = LateInteraction(encoder, stored=stored, threads=arguments.threads)
        for number in range(arguments.rounds + 2):
            chosen = drawn.choice(arguments.documents, min(arguments.candidates, arguments.documents), replace=False)
            encoder.query = unit(drawn.standard_normal((QUERY_TOKENS, DIMENSION)))
            group = CandidateGroup(Query(QueryId("q"), "q"), [Document(id_of(i), "") for i in chosen.tolist()])
            calls: dict[str, Callable[[], Any]] = {
                name: partial(reranker.score, [group]) for name, reranker in rerankers.items()
            }
            calls |= rivals(documents, chosen, encoder.query)
            outcomes = {name: timed(call) for name, call in calls.items()}
            expected = outcomes["kernel, 1 thread"][1]
            for name, (milliseconds, scores) in outcomes.items():
                if number >= 2:  # the first rounds compile
                    times.setdefault(name, []).append(milliseconds)
                apart = float(np.abs(np.asarray(scores).ravel() - expected).max())
                worst[name] = max(worst.get(name, 0.0), apart)
    for name, taken in times.items():
        median, slow = np.percentile(taken, [50, 90])
        print(f"{name:20} p50 {median:6.1f} ms, p90 {slow:6.1f} ms, scores at most {worst[name]:.1e} off")


if __name__ == "__main__":
    main()
