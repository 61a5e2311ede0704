"""Pairs per second: Tiercel's cross-encoder against sentence-transformers and a plain onnxruntime loop.

The same pairs and threads for all. The model has the weights of all-MiniLM-L6-v2 (6 layers, 384 dimensions) under a
random head, or is named with --model. Texts have the lengths of MS MARCO passages.

    python benchmarks/rerank.py [--queries N] [--documents N] [--threads N] [--rounds N] [--model FOLDER]
    python benchmarks/rerank.py --memory 100000 [--backend openvino]

Contestants: CrossEncoder.predict in fp32, which sorts by length and pads batches of 32; onnxruntime with a masked int8
graph, all threads inside one run, and padded batches of 32 in the order given, unsorted and sorted; Tiercel in every
form that runs here. Rounds are interleaved; each line gives the median round and the medians of the per-round ratios to
torch and to the plain int8 loop in the order given. `peak` is the share of the fastest matrix product of the same
number format that was measured on this machine just before, on as many threads.

--memory scores that many pairs of all lengths and prints the resident memory on the way.
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
from tiercel.models.forms import FORMS, has_backend
from tiercel.models.parity import compare_scores
from tiercel.models.tokenize import PairTokenizer
from tiercel.models.zoo import DEFAULT_ENCODER, find_source
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
from tiercel.types import DocId, Document, Query, QueryId

_MEAN_WORDS = 60
_SPREAD = 0.45  # standard deviation of the logarithm of a passage's length
_BATCH = 32
_PLAIN = "plain int8"
_LAYERS, _HIDDEN = 6, 384  # MiniLM's
_MEMORY_STEP = 1000

_Score = Callable[[Sequence[CandidateGroup]], NDArray[np.float32]]


def main() -> None:
    options = _arguments()
    if options.memory:
        report_memory(options)
        return
    groups = candidates(options.queries, options.documents)
    with tempfile.TemporaryDirectory() as scratch:
        contestants, lengths = _contestants(options, groups, Path(scratch))
        _print_conditions(options, lengths)
        rates, scores = _measure(contestants, groups, rounds=options.rounds)
        peaks = measured_peaks(Path(scratch), threads=options.threads)
    work = statistics.mean(operations(length) for length in lengths)
    shares = {name: work * statistics.median(values) / peaks[_format(name)] for name, values in rates.items()}
    _print_results(rates, {name: array.reshape(options.queries, -1) for name, array in scores.items()}, shares)
    print("peaks: " + ", ".join(f"{name} {peak / 1e9:,.0f} Gop/s" for name, peak in peaks.items()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--documents", type=int, default=50, help="candidates of each query")
    parser.add_argument("--threads", type=int, default=Settings.from_environment().threads)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="folder of a cross-encoder of MiniLM's size")
    parser.add_argument("--memory", type=int, default=0, metavar="PAIRS", help="resident memory over so many pairs")
    parser.add_argument("--backend", choices=("onnxruntime", "openvino"), default="onnxruntime", help="of --memory")
    return parser.parse_args()


def candidates(queries: int, documents: int, *, seed: int = 0) -> list[CandidateGroup]:
    words = " ".join(bundled_sample_texts()).split()
    draw = np.random.default_rng(seed)
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
    folder = options.model or checkpoint(scratch / "checkpoint")
    contestants: dict[str, _Score] = {"torch fp32": _torch(folder, threads=options.threads)}
    source = find_source(str(folder), offline=True, family="cross-encoder")
    for form in (form for form in FORMS if form.provider == "cpu" and has_backend(form.backend)):
        target = scratch / f"{form.backend}-{form.precision}"
        report = export(source, target, precision=form.precision, backend=form.backend)
        if target.name == "onnxruntime-fp32":
            for name, is_sorted in ((_PLAIN, False), (f"{_PLAIN} sorted", True)):
                contestants[name] = _plain(report.folder, scratch, threads=options.threads, is_sorted=is_sorted)
        reranker = OnnxCrossEncoder(report.folder, threads=options.threads)
        contestants[f"{form.backend} {form.precision}"] = _ours(reranker)
    tokenizer = PairTokenizer(report.folder / "tokenizer.json", max_tokens=reranker.max_tokens)
    encoded = [tokenizer.encode(group.query.text, [document.text for document in group.documents]) for group in groups]
    return contestants, [pair.ids.size for batch in encoded for pair in batch.pairs]


def checkpoint(folder: Path) -> Path:
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


def _torch(folder: Path, *, threads: int) -> _Score:
    with _quiet():
        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(threads)
        model = CrossEncoder(str(folder), device="cpu", local_files_only=True)

    def score(groups: Sequence[CandidateGroup]) -> NDArray[np.float32]:
        with _quiet():
            logits: NDArray[np.float32] = model.predict(
                pairs_of(groups), activation_fn=torch.nn.Identity(), batch_size=_BATCH, show_progress_bar=False
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
        pairs = pairs_of(groups)
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


def pairs_of(groups: Sequence[CandidateGroup]) -> list[tuple[str, str]]:
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


def operations(tokens: int) -> float:
    """Multiplications and additions of a pair of this length in MiniLM-L6: products with weights, and attention."""
    return _LAYERS * (2.0 * tokens * 12 * _HIDDEN**2 + 4.0 * tokens**2 * _HIDDEN)


def measured_peaks(scratch: Path, *, threads: int) -> dict[str, float]:
    """Operations per second of a product of 1,024-square matrices, the best of 30; int8 by onnxruntime, else torch."""
    import torch

    side = 1024
    peaks = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        torch.set_num_threads(threads)
        first, second = (torch.randn(side, side, dtype=kind) for _ in range(2))
        peaks[name] = 2 * side**3 / _fastest(lambda first=first, second=second: first @ second)  # type: ignore[misc]
    session, feeds = _int8_product(scratch / "product.onnx", side, threads=threads)
    peaks["int8"] = 2 * side**3 / _fastest(lambda: session.run(None, feeds))
    return peaks


def _int8_product(path: Path, side: int, *, threads: int) -> tuple[Any, dict[str, NDArray[Any]]]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weights = numpy_helper.from_array(draw.integers(-127, 128, size=(side, side)).astype(np.int8), "w")
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, [side, side])
    made = helper.make_tensor_value_info("y", TensorProto.INT32, [side, side])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g", [given], [made], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session, {"x": draw.integers(0, 256, size=(side, side)).astype(np.uint8)}


def _fastest(run: Callable[[], object]) -> float:
    times = []
    for _ in range(30):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def _format(name: str) -> str:
    return next(kind for kind in ("int8", "bf16", "fp32") if kind in name)


def report_memory(options: argparse.Namespace) -> None:
    """Resident memory of this process while it scores pairs of ever other lengths."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or checkpoint(Path(scratch) / "checkpoint")
        source = find_source(str(folder), offline=True, family="cross-encoder")
        report = export(source, Path(scratch) / "model", precision="int8", backend=options.backend)
        reranker = OnnxCrossEncoder(report.folder, threads=options.threads)
        print(f"{options.backend} int8, {options.threads} threads; resident MB once so many pairs are scored")
        for done in range(0, options.memory, _MEMORY_STEP):
            reranker.score(candidates(20, _MEMORY_STEP // 20, seed=done))
            if (done + _MEMORY_STEP) % (10 * _MEMORY_STEP) == 0 or done < 2 * _MEMORY_STEP:
                print(f"{done + _MEMORY_STEP:>9,}{_resident() / 1e6:10.1f}", flush=True)


def _resident() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _print_results(
    rates: dict[str, list[float]], scores: dict[str, NDArray[np.float32]], shares: dict[str, float]
) -> None:
    peer = next(iter(rates))
    heads = f"{'':19}{'pairs/s':>9}{'slowest':>9}{'fastest':>9}{'torch':>7}{'plain':>7}"
    print(f"{heads}{'spearman':>10}{'top 10':>8}{'peak':>7}")
    for name, values in rates.items():
        ratios = [
            statistics.median(ours / theirs for ours, theirs in zip(values, rates[other], strict=True))
            for other in (peer, _PLAIN)
        ]
        parity = compare_scores(scores[peer], scores[name])
        print(
            f"{name:19}{statistics.median(values):9.1f}{min(values):9.1f}{max(values):9.1f}{ratios[0]:7.2f}"
            f"{ratios[1]:7.2f}{parity.spearman:10.4f}{parity.top10_agreement:8.3f}{shares[name]:7.1%}"
        )


if __name__ == "__main__":
    main()
