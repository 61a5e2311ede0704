"""Passages per second: Tiercel's encoder and whole index build against SentenceTransformer.encode.

The same texts and threads for all. `index` is what `tiercel index` does: documents, BM25 and vectors, on the disk.

    python benchmarks/encode.py [--model NAME] [--texts FILE] [--count N] [--threads N] [--rounds N] [--max-tokens N]

Rounds are interleaved (torch, int8, fp32, torch, ...), so that a noisy machine slows all alike; each line gives the
median round and the median of the per-round ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.metadata
import io
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Settings
from tiercel.index.analysis import analyzer
from tiercel.index.manifest import EncoderRecord, IndexSettings
from tiercel.index.row_encoder import RowEncoder
from tiercel.index.store import Index
from tiercel.index.writer import IndexWriter
from tiercel.models.encoder import OnnxEncoder
from tiercel.models.export import bundled_sample_texts
from tiercel.models.export_encoder import export as export_encoder
from tiercel.models.tokenize import Tokenizer
from tiercel.models.zoo import DEFAULT_ENCODER, find_source
from tiercel.types import DocId, Document

_SCIFACT = Path(__file__).resolve().parents[1] / "examples" / "scifact" / "corpus.jsonl.gz"

_Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def main() -> None:
    options = _arguments()
    texts = _texts(options.texts, options.count)
    with tempfile.TemporaryDirectory() as scratch:
        contestants, encoder, folder = _contestants(options, Path(scratch))
        lengths = [
            ids.size for ids in Tokenizer(folder / "tokenizer.json", max_tokens=encoder.max_tokens).encode(texts).ids
        ]
        _print_conditions(options, encoder, lengths)
        rates, vectors = _measure(contestants, texts, rounds=options.rounds)
    _print_results(rates, vectors)


def _arguments() -> argparse.Namespace:
    settings = Settings.from_environment()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_ENCODER)
    parser.add_argument("--texts", type=Path, help="one text per line, or JSONL with title and text; .gz too")
    parser.add_argument("--count", type=int, default=256, help="passages per round")
    parser.add_argument("--threads", type=int, default=settings.threads)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, help="cut texts to this length, in both systems")
    return parser.parse_args()


def _texts(path: Path | None, count: int) -> list[str]:
    chosen = path or (_SCIFACT if _SCIFACT.is_file() else None)
    if chosen is None:
        print("texts: generated from the bundled sample sentences")
        return _generated_texts(count)
    print(f"texts: {chosen.name}")
    opener: Any = gzip.open if chosen.suffix == ".gz" else open
    with opener(chosen, "rt", encoding="utf-8") as lines:
        return [_line_text(line) for line, _ in zip(lines, range(count), strict=False)]


def _line_text(line: str) -> str:
    if not line.startswith("{"):
        return line.strip()
    record = json.loads(line)
    return f"{record.get('title', '')} {record['text']}".strip()


def _generated_texts(count: int) -> list[str]:
    sentences = bundled_sample_texts()
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(sentences, size=int(size))) for size in draw.integers(2, 9, size=count)]


def _contestants(options: argparse.Namespace, scratch: Path) -> tuple[dict[str, _Encode], OnnxEncoder, Path]:
    source = find_source(options.model, offline=True)
    model = _torch_model(source.folder, threads=options.threads, max_tokens=options.max_tokens)
    contestants: dict[str, _Encode] = {
        "torch fp32": lambda texts: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    }
    for precision in ("int8", "fp32"):
        report = export_encoder(source, scratch / precision, precision=precision, max_tokens=options.max_tokens)
        encoder = OnnxEncoder(report.folder, threads=options.threads)
        contestants[f"tiercel {precision}"] = encoder.encode_documents
        contestants[f"index {precision}"] = _indexing(
            encoder, scratch / f"{precision}.tiercel", threads=options.threads
        )
    return contestants, encoder, report.folder


def _indexing(encoder: OnnxEncoder, path: Path, *, threads: int) -> _Encode:
    """What `tiercel index` does with the texts: documents, BM25 and vectors, committed to disk."""
    record = EncoderRecord(
        "", encoder.description.precision, encoder.fingerprint, encoder.dimension, encoder.max_tokens
    )
    settings = IndexSettings("english", analyzer("english").fingerprint, record)

    def index(texts: Sequence[str]) -> NDArray[np.float32]:
        documents = [Document(DocId(str(i)), text) for i, text in enumerate(texts)]
        with IndexWriter(path, create=True, threads=threads) as writer:
            writer.build(documents, settings, encoder=RowEncoder(encoder))
        return Index(path).views[0].segment.vectors.stored.astype(np.float32)

    return index


def _torch_model(folder: Path, *, threads: int, max_tokens: int | None) -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    if max_tokens is not None:
        model.max_seq_length = max_tokens
    return model


def _measure(
    contestants: dict[str, _Encode], texts: list[str], *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, NDArray[np.float32]]]:
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    vectors = {}
    for encode in contestants.values():  # the first run of each pays for memory and code
        encode(texts[:16])
    for _ in range(rounds):
        for name, encode in contestants.items():
            started = time.perf_counter()
            vectors[name] = encode(texts)
            rates[name].append(len(texts) / (time.perf_counter() - started))
    return rates, vectors


def _print_conditions(options: argparse.Namespace, encoder: OnnxEncoder, lengths: list[int]) -> None:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "sentence-transformers", "onnxruntime")
    )
    print(f"machine: {_processor()}, {options.threads} threads; {versions}")
    print(
        f"model: {options.model}; {len(lengths)} passages of {np.mean(lengths):.0f} tokens on average"
        f" (median {np.median(lengths):.0f}, at most {encoder.max_tokens}); {options.rounds} interleaved rounds"
    )


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _print_results(rates: dict[str, list[float]], vectors: dict[str, NDArray[np.float32]]) -> None:
    peer = next(iter(rates))
    print(f"{'':14}{'passages/s':>12}{'slowest':>10}{'fastest':>10}{'ratio':>8}{'min cosine':>12}")
    for name, values in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, rates[peer], strict=True))
        cosine = float(np.sum(vectors[name] * vectors[peer], axis=1).min())
        print(
            f"{name:14}{statistics.median(values):12.1f}{min(values):10.1f}{max(values):10.1f}{ratio:8.2f}{cosine:12.5f}"
        )


if __name__ == "__main__":
    main()
