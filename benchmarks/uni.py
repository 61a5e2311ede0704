"""Candidates per second: the Uni-Encoder with both masks against the cross-encoder, on long contexts.

The same texts, weights, runtime (onnxruntime) and threads for all. The model has the weights of all-MiniLM-L6-v2 (6
layers, 384 dimensions) under a random head: this measures speed and says nothing about quality.

    python benchmarks/uni.py [--context N] [--candidate N] [--candidates N] [--queries N] [--threads N] [--rounds N]

Lengths are exact, special tokens included. With `arrow` all candidates of a query are read together. Rounds are
interleaved; each line gives the median round, the medians of the per-round ratios to the cross-encoder of the same
precision, by the clock and by the processor's time, which other work on the machine moves less, and of a query the
tokens that are read and the multiplications and additions, counted from the shapes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rerank import _HIDDEN, _LAYERS, _quiet, checkpoint, operations

from tiercel.config import Precision, Settings
from tiercel.models import export_cross_encoder, export_uni_encoder
from tiercel.models.uni_checkpoint import load_uni_encoder, save_uni_encoder
from tiercel.models.uni_inputs import UniMask, UniSettings
from tiercel.models.zoo import find_source
from tiercel.protocols import CandidateGroup, Reranker
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
from tiercel.rerankers.uni_encoder import OnnxUniEncoder
from tiercel.types import DocId, Document, Query, QueryId

_PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
_MASKS: tuple[UniMask, ...] = ("one-way", "arrow")
_SPECIAL = 2


def main() -> None:
    options = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        contestants = _contestants(options, Path(scratch))
        groups = _groups(options, Path(scratch) / "checkpoint")
        rates, busy, read = _measure(contestants, groups, rounds=options.rounds)
    print(
        f"context {options.context}, {options.candidates} candidates of {options.candidate} tokens, "
        f"{options.queries} queries, {options.threads} threads, {options.rounds} interleaved rounds"
    )
    print(f"{'':22}{'candidates/s':>13}{'slowest':>9}{'fastest':>9}{'ratio':>7}{'cpu':>7}{'tokens':>8}{'Gop':>7}")
    for name, values in rates.items():
        peer = f"cross {name.split()[-1]}"
        ratio, cpu = (
            statistics.median(ours / theirs for ours, theirs in zip(of[name], of[peer], strict=True))
            for of in (rates, busy)
        )
        print(
            f"{name:22}{statistics.median(values):13.1f}{min(values):9.1f}{max(values):9.1f}{ratio:7.2f}{cpu:7.2f}"
            f"{read[name]:8,.0f}{_work(name.split()[0], options) / 1e9:7.1f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=256, help="tokens of a context")
    parser.add_argument("--candidate", type=int, default=32, help="tokens of a candidate")
    parser.add_argument("--candidates", type=int, default=10, help="of each query")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--threads", type=int, default=Settings.from_environment().threads)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def _contestants(options: argparse.Namespace, scratch: Path) -> dict[str, Reranker]:
    folder = checkpoint(scratch / "checkpoint")
    sources = {"cross": folder}
    for mask in _MASKS:
        size = options.candidates if mask == "arrow" else 0
        settings = UniSettings(mask, size, context_tokens=options.context, candidate_tokens=options.candidate)
        sources[mask] = scratch / mask
        with _quiet():
            save_uni_encoder(load_uni_encoder(folder, settings), sources[mask])
    contestants: dict[str, Reranker] = {}
    for precision in _PRECISIONS:
        for name, source in sources.items():
            exporter = export_cross_encoder if name == "cross" else export_uni_encoder
            loader = OnnxCrossEncoder if name == "cross" else OnnxUniEncoder
            target = scratch / f"{name}-{precision}"
            exporter.export(find_source(str(source), offline=True), target, precision=precision)
            contestants[f"{name} {precision}"] = loader(target, threads=options.threads)
    return contestants


def _groups(options: argparse.Namespace, folder: Path) -> list[CandidateGroup]:
    """Texts of words that are a token each, so that all lengths are exact."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha())
    draw = np.random.default_rng(0)

    def text(tokens: int) -> str:
        return " ".join(draw.choice(words, size=tokens - _SPECIAL))

    return [
        CandidateGroup(
            Query(QueryId(str(number)), text(options.context)),
            [Document(DocId(str(i)), text(options.candidate)) for i in range(options.candidates)],
        )
        for number in range(options.queries)
    ]


def _measure(
    contestants: dict[str, Reranker], groups: Sequence[CandidateGroup], *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """Candidates per second of each round, by the clock and by the processor's time, and tokens that a query reads."""
    read = {}
    for name, reranker in contestants.items():  # the first run of each pays for memory and code
        before = reranker.tokens_read  # type: ignore[attr-defined]
        reranker.score(groups)
        read[name] = (reranker.tokens_read - before) / len(groups)  # type: ignore[attr-defined]
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    busy: dict[str, list[float]] = {name: [] for name in contestants}
    count = sum(len(group.documents) for group in groups)
    for _ in range(rounds):
        for name, reranker in contestants.items():
            started, begun = time.perf_counter(), time.process_time()
            reranker.score(groups)
            rates[name].append(count / (time.perf_counter() - started))
            busy[name].append(count / (time.process_time() - begun))
    return rates, busy, read


def _work(name: str, options: argparse.Namespace) -> float:
    """Multiplications and additions of a query in MiniLM-L6: products with weights, and attention."""
    context, tokens, count = options.context, options.candidate, options.candidates
    work: float
    if name == "cross":  # one [CLS] less than a context and a candidate have
        work = count * operations(context + tokens - 1)
        return work
    rows = count * tokens
    attended = {"one-way": context * context, "arrow": context * (context + rows)}[name]
    products = 2.0 * 12 * _HIDDEN**2
    whole = products * (context + rows) + 4.0 * _HIDDEN * (attended + rows * (context + tokens))
    # Of the context the last layer makes keys and values alone.
    last = products * (rows + context / 6) + 4.0 * _HIDDEN * rows * (context + tokens)
    work = (_LAYERS - 1) * whole + last
    return work


if __name__ == "__main__":
    main()
