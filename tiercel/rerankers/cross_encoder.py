"""Candidates scored by reading them together with their query: an exported cross-encoder."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Precision, ScoreKind
from tiercel.errors import ModelError, UsageError
from tiercel.models.batching import batch_budget
from tiercel.models.description import TOKENIZER_FILE, ModelDescription, read_intact
from tiercel.models.pairs import score_pairs
from tiercel.models.texts import MASK_INPUT
from tiercel.models.tokenize import PairBatch, PairTokenizer, TokenPair
from tiercel.models.workers import map_in_order
from tiercel.protocols import CandidateGroup

# Tokens of this many pairs are held at once: at most 64 MB at 512 tokens, and long enough to keep workers busy.
_SLAB_PAIRS = 8192

# Small enough that every worker tokenises its share, large enough that a call is worth its overhead.
_TOKENIZE_DOCUMENTS = 64

# Largest difference of a stored score, in standard deviations of the model's scores. Another processor may round
# int8 products otherwise, and a GPU fp32 ones; kernels that overflow are off by much more.
_PROBE_ROUNDING = 1e-5  # scores are stored with six decimals
_PROBE_TOLERANCE: dict[Precision, float] = {"fp32": 0.05, "fp16": 0.1, "bf16": 0.2, "int8": 0.3}


class OnnxCrossEncoder:
    """A cross-encoder from a folder that `tiercel export` wrote. Satisfies `tiercel.protocols.Reranker`.

    On the CPU pairs of one length share a run, in `threads` workers of one thread each, which take the runs of all
    groups from one queue, longest first, so that none waits for a straggler. Nothing is padded, and a pair's score is
    the same bits whatever is scored beside it. On a GPU pairs of like length, of all groups, are padded into batches of
    at most `batch_tokens`.

    A pair that is too long loses the end of its document; a query only loses its own where it fills the window alone.

    Args:
        folder: holds tiercel.json, model.onnx and tokenizer.json.
        provider: "cpu", "cuda", "tensorrt" or "auto"; refused when it does not run.
        threads: workers on the CPU.
        score: "logit", the model's own number, of any size; "sigmoid" puts it between 0 and 1, where high scores
            that differ may become equal.
        batch_tokens: most padded tokens of one run; None: no padding on the CPU, 32,768 on a GPU.

    Raises:
        UsageError: `score` is neither.
        ModelError: the folder is incomplete, changed since export or of another family, the provider is not there,
            int8 is asked of a GPU or of padded batches, or this machine computes other scores than the export did.
    """

    def __init__(
        self,
        folder: Path,
        *,
        provider: str = "cpu",
        threads: int = 1,
        score: ScoreKind = "logit",
        batch_tokens: int | None = None,
    ) -> None:
        from tiercel.models.sessions import open_exported, resolved_provider

        provider = resolved_provider(provider)
        if score not in get_args(ScoreKind):
            raise UsageError(f"score {score!r}", expected=" or ".join(get_args(ScoreKind)))
        self._description = read_intact(folder, family="cross-encoder")
        self._tokenizer = PairTokenizer(folder / TOKENIZER_FILE, max_tokens=self.max_tokens)
        self._session = open_exported(folder, self._description, provider=provider, workers=threads)
        self._batch_tokens = batch_budget(
            batch_tokens,
            provider=provider,
            is_masked=MASK_INPUT in self._session.inputs,
            takes=f"{self._description.precision} model takes one pair",
            where=str(folder),
        )
        self._threads = threads
        self._kind = score
        self._truncated = 0
        self._truncated_queries = 0
        self._lock = threading.Lock()
        self._check_probe(folder)

    @property
    def description(self) -> ModelDescription:
        """What the export wrote down about the model."""
        return self._description

    @property
    def fingerprint(self) -> str:
        """Changes whenever the scores would: weights, precision, tokenizer, truncation, logit or sigmoid."""
        return self._description.fingerprint + ("" if self._kind == "logit" else f"-{self._kind}")

    @property
    def tokenizer(self) -> PairTokenizer:
        """What cuts its pairs into tokens."""
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        """Most tokens of one pair, special tokens included; the rest of the document is cut."""
        return self._description.max_tokens

    @property
    def truncated(self) -> int:
        """How many documents this reranker has cut so far, once for every query they were scored against."""
        return self._truncated

    @property
    def truncated_queries(self) -> int:
        """How many queries this reranker has cut so far, once for every group."""
        return self._truncated_queries

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        """One float32 array per group, shape (len(group.documents),), both in input order; larger is better.

        An empty group gives shape (0,). Raises ModelError, naming query and document, for a score that is no number.
        """
        scores = [np.empty(len(group.documents), dtype=np.float32) for group in groups]
        for slab in _slabs(groups):
            batches = map_in_order(partial(self._tokenize, groups), slab, workers=self._threads)
            places = [(part.group, row) for part in slab for row in range(part.start, part.stop)]
            values = self._run([pair for batch in batches for pair in batch.pairs])
            for (group, row), value in zip(places, values.tolist(), strict=True):
                scores[group][row] = value
            self._count(slab, batches)
        self._check_finite(groups, scores)
        return scores if self._kind == "logit" else [_sigmoid(array) for array in scores]

    def _tokenize(self, groups: Sequence[CandidateGroup], part: _Part) -> PairBatch:
        group = groups[part.group]
        texts = [document.full_text for document in group.documents[part.start : part.stop]]
        return self._tokenizer.encode(group.query.text, texts)

    def _count(self, slab: Sequence[_Part], batches: Sequence[PairBatch]) -> None:
        with self._lock:
            self._truncated += sum(batch.truncated for batch in batches)
            # A group's query is in each of its parts.
            firsts = (batch for part, batch in zip(slab, batches, strict=True) if part.start == 0)
            self._truncated_queries += sum(batch.query_truncated for batch in firsts)

    def _run(self, pairs: Sequence[TokenPair]) -> NDArray[np.float32]:
        """Logits of the pairs: shape (len(pairs),), float32, in input order."""
        return score_pairs(self._session, pairs, batch_tokens=self._batch_tokens, workers=self._threads)

    def _check_finite(self, groups: Sequence[CandidateGroup], scores: Sequence[NDArray[np.float32]]) -> None:
        for group, array in zip(groups, scores, strict=True):
            for row in np.flatnonzero(~np.isfinite(array)).tolist():
                query, document = group.query.id, group.documents[row].id
                raise ModelError(
                    f"the model gave the score {array[row]} to the pair of query {query!r} and document {document!r}",
                    expected="a finite score",
                    next_step="Export the model again, or use precision fp32",
                    where=self._description.name,
                )

    def _check_probe(self, folder: Path) -> None:
        query, *documents = self._description.probe.texts
        logits = self._run(self._tokenizer.encode(query, documents).pairs)
        difference = float(np.max(np.abs(logits - np.array(self._description.probe.values, dtype=np.float32))))
        deviation = self._description.parity["score_deviation"]
        tolerance = _PROBE_ROUNDING + _PROBE_TOLERANCE[self._description.precision] * deviation
        if not difference <= tolerance:  # also when it is not a number
            raise ModelError(
                f"on this machine the model gives other scores than where it was exported (by {difference:.2g})",
                expected=f"a difference of at most {tolerance:.2g}",
                next_step="Export the model again on this machine, or use precision fp32",
                where=str(folder),
            )


class _Part(NamedTuple):
    """Some of one group's documents, from `start` up to `stop`."""

    group: int
    start: int
    stop: int


def _slabs(groups: Sequence[CandidateGroup]) -> Iterator[list[_Part]]:
    """All documents of all groups, in order, cut into parts to tokenise, and those into slabs to hold at once."""
    slab: list[_Part] = []
    size = 0
    for number, group in enumerate(groups):
        for start in range(0, len(group.documents), _TOKENIZE_DOCUMENTS):
            part = _Part(number, start, min(start + _TOKENIZE_DOCUMENTS, len(group.documents)))
            if size + part.stop - part.start > _SLAB_PAIRS:
                yield slab
                slab, size = [], 0
            slab.append(part)
            size += part.stop - part.start
    if slab:
        yield slab


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # 1 / (1 + exp(-x)) overflows far below zero; its logarithm does not.
    values: NDArray[np.float32] = np.exp(-np.logaddexp(np.float32(0), -logits))
    return values
