"""Candidates scored by reading them together with their query: an exported cross-encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.config import ScoreKind
from tiercel.models.batching import batch_budget
from tiercel.models.description import TOKENIZER_FILE
from tiercel.models.pairs import score_pairs
from tiercel.models.texts import MASK_INPUT
from tiercel.models.tokenize import PairBatch, PairTokenizer, TokenPair
from tiercel.parts import Read, Window, WindowParts
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.logits import LogitModel, as_asked, check_finite, check_probe
from tiercel.types import Document, Query
from tiercel.workers import map_in_order

# Tokens of this many pairs are held at once: at most 64 MB at 512 tokens, and long enough to keep workers busy.
_SLAB_PAIRS = 8192

# Small enough that every worker tokenises its share, large enough that a call is worth its overhead.
_TOKENIZE_DOCUMENTS = 64


class OnnxCrossEncoder(LogitModel):
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
        super().__init__(folder, family="cross-encoder", score=score)
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
        self._check_probe(folder)

    @property
    def tokenizer(self) -> PairTokenizer:
        """What cuts its pairs into tokens."""
        return self._tokenizer

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
        check_finite(groups, scores, model=self._description.name)
        return [as_asked(array, self._kind) for array in scores]

    def explain(self, query: Query, document: Document) -> WindowParts:
        """The document's score, and how much of it was read."""
        ((score,),) = self.score([CandidateGroup(query, [document])])
        text = document.full_text
        window = self._tokenizer.window(query.text, text)
        read = Window(Read(text, window.end), float(score), window.tokens, window.cut_tokens)
        return WindowParts((read,), "first", read.score)

    def _tokenize(self, groups: Sequence[CandidateGroup], part: _Part) -> PairBatch:
        group = groups[part.group]
        texts = [document.full_text for document in group.documents[part.start : part.stop]]
        return self._tokenizer.encode(group.query.text, texts)

    def _count(self, slab: Sequence[_Part], batches: Sequence[PairBatch]) -> None:
        with self._lock:
            self._tokens_read += sum(pair.ids.size for batch in batches for pair in batch.pairs)
            self._truncated += sum(batch.truncated for batch in batches)
            # A group's query is in each of its parts.
            firsts = (batch for part, batch in zip(slab, batches, strict=True) if part.start == 0)
            self._truncated_queries += sum(batch.query_truncated for batch in firsts)

    def _run(self, pairs: Sequence[TokenPair]) -> NDArray[np.float32]:
        """Logits of the pairs: shape (len(pairs),), float32, in input order."""
        return score_pairs(self._session, pairs, batch_tokens=self._batch_tokens, workers=self._threads)

    def _check_probe(self, folder: Path) -> None:
        query, *documents = self._description.probe.texts
        check_probe(self._description, self._run(self._tokenizer.encode(query, documents).pairs), folder)


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
