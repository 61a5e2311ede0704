"""Pairs per second: Tiercel's cross-encoder against sentence-transformers and a plain onnxruntime loop.

The same pairs and threads for all. The model has the weights of all-MiniLM-L6-v2 (6 layers, 384 dimensions) under a
random head: its scores mean nothing, its speed is that of a trained one. Texts have the lengths of MS MARCO passages.

    python benchmarks/rerank.py [--queries N] [--documents N] [--threads N] [--rounds N]

Contestants: CrossEncoder.predict in fp32, which sorts by length and pads batches of 32; onnxruntime with a masked int8
graph, all threads inside one run, and padded batches of 32 in the order given, unsorted and sorted. Rounds are
interleaved; each line gives the median round and the median of the per-round ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Settings
from tiercel.models.export import bundled_sample_texts
from tiercel.models.export_cross_encoder import export
from tiercel.models.parity import compare_scores
from tiercel.models.tokenize import PairTokenizer
from tiercel.models.zoo import DEFAULT_ENCODER, find_source
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
from tiercel.types import DocId, Document, Query, QueryId

_MEAN_WORDS = 60
_SPREAD = 0.45  # standard deviation of the logarithm of a passage's length
_BATCH = 32

_Score = Callable[[Sequence[CandidateGroup]], NDArray[np.float32]]


def main() -> None:
    options = _arguments()
    groups = _groups(options.queries, options.documents)
    with tempfile.TemporaryDirectory() as scratch:
        contestants, lengths = _contestants(options, groups, Path(scratch))
        _print_conditions(options, lengths)
        rates, scores = _measure(contestants, groups, rounds=options.rounds)
    _print_results(rates, {name: array.reshape(options.queries, -1) for name, array in scores.items()})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--documents", type=int, default=50, help="candidates of each query")
    parser.add_argument("--threads", type=int, default=Settings.from_environment().threads)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _groups(queries: int, documents: int) -> list[CandidateGroup]:
    words = " ".join(bundled_sample_texts()).split()
    draw = np.random.default_rng(0)
    # The mean of a lognormal is exp(mu + sigma^2 / 2).
    mu = np.log(_MEAN_WORDS) - _SPREAD**2 / 2
    groups = []
    for number in range(queries):
        query = Query(QueryId(str(number)), " ".join(draw.choice(words, size=int(draw.integers(4, 9)))))
        sizes = np.maximum(1, draw.lognormal(mu, _SPREAD, size=documents).astype(int))
        texts = [" ".join(draw.choice(words, size=int(size))) for size in sizes]
        groups.append(CandidateGroup(query, [Document(DocId(str(i)), text) for i, text in enumerate(texts)]))
    return groups


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _contestants(
    options: argparse.Namespace, groups: Sequence[CandidateGroup], scratch: Path
) -> tuple[dict[str, _Score], list[int]]:
    checkpoint = _checkpoint(scratch / "checkpoint")
    contestants: dict[str, _Score] = {"torch fp32": _torch(checkpoint, threads=options.threads)}
    source = find_source(str(checkpoint), offline=True, family="cross-encoder")
    for precision in ("fp32", "int8"):
        report = export(source, scratch / precision, precision=precision)
        if precision == "fp32":
            for name, is_sorted in (("plain int8", False), ("plain int8 sorted", True)):
                contestants[name] = _plain(report.folder, scratch, threads=options.threads, is_sorted=is_sorted)
        reranker = OnnxCrossEncoder(report.folder, threads=options.threads)
        contestants[f"tiercel {precision}"] = _ours(reranker)
    tokenizer = PairTokenizer(report.folder / "tokenizer.json", max_tokens=reranker.max_tokens)
    encoded = [tokenizer.encode(group.query.text, [document.text for document in group.documents]) for group in groups]
    return contestants, [pair.ids.size for batch in encoded for pair in batch.pairs]


def _checkpoint(folder: Path) -> Path:
    """The weights of the default encoder under a random head of one label, as transformers saves it."""
    with _quiet():
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        place = find_source(DEFAULT_ENCODER, offline=True).folder
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_pretrained(str(place), num_labels=1, local_files_only=True)
        network.classifier.weight.data.normal_(0, 1)
        network.save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(place), local_files_only=True, model_max_length=512).save_pretrained(folder)
    return folder


def _ours(reranker: OnnxCrossEncoder) -> _Score:
    return lambda groups: np.concatenate(reranker.score(groups))


def _torch(checkpoint: Path, *, threads: int) -> _Score:
    with _quiet():
        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(threads)
        model = CrossEncoder(str(checkpoint), device="cpu", local_files_only=True)

    def score(groups: Sequence[CandidateGroup]) -> NDArray[np.float32]:
        with _quiet():
            logits: NDArray[np.float32] = model.predict(
                _pairs(groups), activation_fn=torch.nn.Identity(), batch_size=_BATCH, show_progress_bar=False
            )
        return logits

    return score


def _plain(folder: Path, scratch: Path, *, threads: int, is_sorted: bool) -> _Score:
    """What is usually written: the masked graph quantised as onnxruntime does by itself, batches by count, padded."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from tokenizers import Tokenizer

    path = scratch / "plain-int8.onnx"
    if not path.is_file():
        import onnx

        kinds = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        with _quiet():
            quantize_dynamic(str(folder / "model.onnx"), str(path), weight_type=QuantType.QInt8, extra_options=kinds)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()

    def score(groups: Sequence[CandidateGroup]) -> NDArray[np.float32]:
        pairs = _pairs(groups)
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][1])) if is_sorted else list(range(len(pairs)))
        scores = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(pairs), _BATCH):
            positions = order[start : start + _BATCH]
            encoded = tokenizer.encode_batch([pairs[position] for position in positions])
            feeds = {
                "input_ids": np.array([row.ids for row in encoded], dtype=np.int64),
                "attention_mask": np.array([row.attention_mask for row in encoded], dtype=np.int64),
                "token_type_ids": np.array([row.type_ids for row in encoded], dtype=np.int64),
            }
            scores[positions] = session.run(["score"], feeds)[0]
        return scores

    return score


def _pairs(groups: Sequence[CandidateGroup]) -> list[tuple[str, str]]:
    return [(group.query.text, document.full_text) for group in groups for document in group.documents]


def _measure(
    contestants: dict[str, _Score], groups: Sequence[CandidateGroup], *, rounds: int
) -> tuple[dict[str, list[float]], dict[str, NDArray[np.float32]]]:
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    scores: dict[str, NDArray[Any]] = {}
    for score in contestants.values():  # the first run of each pays for memory and code
        score(groups[:1])
    for _ in range(rounds):
        for name, score in contestants.items():
            started = time.perf_counter()
            scores[name] = score(groups)
            rates[name].append(len(scores[name]) / (time.perf_counter() - started))
    return rates, scores


def _print_conditions(options: argparse.Namespace, lengths: list[int]) -> None:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "sentence-transformers", "onnxruntime")
    )
    print(f"{options.threads} threads; {versions}; {DEFAULT_ENCODER} under a random head")
    print(
        f"{options.queries} queries of {options.documents} candidates; {np.mean(lengths):.0f} tokens a pair on average"
        f" (median {np.median(lengths):.0f}, longest {max(lengths)}); {options.rounds} interleaved rounds"
    )


def _print_results(rates: dict[str, list[float]], scores: dict[str, NDArray[np.float32]]) -> None:
    peer = next(iter(rates))
    print(f"{'':19}{'pairs/s':>9}{'slowest':>9}{'fastest':>9}{'ratio':>7}{'max diff':>10}{'spearman':>10}{'top 10':>8}")
    for name, values in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, rates[peer], strict=True))
        parity = compare_scores(scores[peer], scores[name])
        print(
            f"{name:19}{statistics.median(values):9.1f}{min(values):9.1f}{max(values):9.1f}{ratio:7.2f}"
            f"{parity.max_score_difference:10.2g}{parity.spearman:10.4f}{parity.top10_agreement:8.3f}"
        )


if __name__ == "__main__":
    main()
