"""Pairs per second on a GPU: Tiercel's packed fp16 graph against torch fp16 and sentence-transformers fp16.

    make gpu-check, or python benchmarks/gpu.py [--pairs N] [--rounds N]

Two cross-encoders: the weights of all-MiniLM-L6-v2 under a random head, and 12 layers of 768 dimensions with random
weights. Contestants: onnxruntime's CUDA provider (fp16, packed, inputs bound to the device), torch fp16 with its own
attention (SDPA) on the same batches bounded by tokens, and CrossEncoder.predict in fp16 with batches of 32. Scores are
compared with torch fp32 on the CPU. Exit code 5 where there is no GPU, or no provider that runs on it; 1 where the
packed graph ranks otherwise than torch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from rerank import candidates, checkpoint, pairs_of

from tiercel.models.batching import GPU_BATCH_TOKENS
from tiercel.models.checkpoint import network
from tiercel.models.export_cross_encoder import CrossEncoderExport, export
from tiercel.models.pairs import score_pairs
from tiercel.models.parity import compare_scores
from tiercel.models.runtime import why_not
from tiercel.models.tokenize import PairTokenizer
from tiercel.models.torch_session import TorchSession
from tiercel.models.zoo import find_source
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder

_DOCUMENTS = 100
_MIN_SPEARMAN = 0.99

_Score = Callable[[Sequence[CandidateGroup]], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if reason := _no_gpu():
        print(f"no GPU check: {reason}", file=sys.stderr)
        sys.exit(5)
    groups = candidates(max(1, options.pairs // _DOCUMENTS), _DOCUMENTS)
    worst = 1.0
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in (("MiniLM-L6", checkpoint), ("12 layers of 768, random", _base_checkpoint)):
            worst = min(worst, _compare(name, make(Path(scratch) / name), groups, rounds=options.rounds))
    if worst < _MIN_SPEARMAN:
        print(f"the packed graph ranks otherwise than torch: {worst:.4f}", file=sys.stderr)
        sys.exit(1)


def _no_gpu() -> str:
    """In words, what is missing; "" where both runtimes reach a GPU."""
    if reason := why_not("cuda"):
        return f"onnxruntime does not run on cuda ({reason}); `pip install 'tiercel[gpu]'` in place of onnxruntime"
    import torch

    return "" if torch.cuda.is_available() else "torch finds no CUDA device; install a torch that is built for it"


def _base_checkpoint(folder: Path) -> Path:
    """A BERT of 12 layers and 768 dimensions with random weights, and MiniLM's tokenizer."""
    checkpoint(folder)
    with _quiet():
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        net = BertForSequenceClassification(BertConfig(num_labels=1))
        net.classifier.weight.data.normal_(0, 1)
        net.save_pretrained(folder)
    return folder


def _compare(name: str, folder: Path, groups: Sequence[CandidateGroup], *, rounds: int) -> float:
    """Print one table; the rank correlation of the packed graph with torch fp32."""
    target = folder.with_name(f"{folder.name}-fp16")
    export(find_source(str(folder), offline=True, family="cross-encoder"), target, precision="fp16")
    packed = OnnxCrossEncoder(target, provider="cuda")
    contestants: dict[str, _Score] = {
        "onnxruntime cuda fp16, packed": lambda groups: np.concatenate(packed.score(groups)),
        "torch fp16 SDPA, by tokens": _torch(folder, target),
        "sentence-transformers fp16": _sentence_transformers(folder, device="cuda"),
    }
    reference = _sentence_transformers(folder, device="cpu")(groups[:3]).reshape(3, -1)
    rates: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for score in contestants.values():
        score(groups)
    for _ in range(rounds):
        for contestant, score in contestants.items():
            started = time.perf_counter()
            count = len(score(groups))
            rates[contestant].append(count / (time.perf_counter() - started))
    print(f"\n{name}: {len(groups) * _DOCUMENTS} pairs, {rounds} interleaved rounds")
    print(f"{'':32}{'pairs/s':>10}{'ratio':>8}{'spearman':>10}{'top 10':>8}")
    peer = "sentence-transformers fp16"
    found = {}
    for contestant, values in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, rates[peer], strict=True))
        found[contestant] = compare_scores(reference, contestants[contestant](groups[:3]).reshape(3, -1))
        parity = found[contestant]
        print(
            f"{contestant:32}{statistics.median(values):10,.0f}{ratio:8.2f}"
            f"{parity.spearman:10.4f}{parity.top10_agreement:8.3f}"
        )
    print(f"fastest: {max(rates, key=lambda contestant: statistics.median(rates[contestant]))}")
    return found["onnxruntime cuda fp16, packed"].spearman


def _torch(folder: Path, exported: Path) -> _Score:
    family = CrossEncoderExport(folder)
    model = family.load()
    with _quiet():
        network(model).set_attn_implementation("sdpa")
    session = TorchSession(family.graph(model, masked=True), device="cuda")
    tokenizer = PairTokenizer(exported / "tokenizer.json", max_tokens=512)

    def score(groups: Sequence[CandidateGroup]) -> NDArray[np.float32]:
        texts = [(group.query.text, [document.full_text for document in group.documents]) for group in groups]
        pairs = [pair for query, documents in texts for pair in tokenizer.encode(query, documents).pairs]
        return score_pairs(session, pairs, batch_tokens=GPU_BATCH_TOKENS, workers=1)

    return score


def _sentence_transformers(folder: Path, *, device: str) -> _Score:
    with _quiet():
        import torch
        from sentence_transformers import CrossEncoder

        kind: Any = torch.float32 if device == "cpu" else torch.float16
        model = CrossEncoder(str(folder), device=device, local_files_only=True, model_kwargs={"dtype": kind})

    def score(groups: Sequence[CandidateGroup]) -> NDArray[np.float32]:
        with _quiet():
            logits: NDArray[np.float32] = model.predict(
                pairs_of(groups), activation_fn=torch.nn.Identity(), batch_size=32, show_progress_bar=False
            )
        return logits.astype(np.float32)

    return score


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main()
