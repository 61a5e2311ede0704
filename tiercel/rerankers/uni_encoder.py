"""Candidates scored in one pass over their query's whole conversation: an exported Uni-Encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.config import ScoreKind
from tiercel.models.batching import batch_budget
from tiercel.models.description import TOKENIZER_FILE
from tiercel.models.tokenize import load_tokenizer
from tiercel.models.uni_inputs import UniSettings, UniTokenizer
from tiercel.models.uni_scores import CPU_PASS_TOKENS, UniGroup, score_groups
from tiercel.parts import Read, Window, WindowParts
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.logits import LogitModel, as_asked, check_finite, check_probe
from tiercel.types import Document, Query
from tiercel.workers import map_in_order

# Tokens of so many candidates are held at once: at most 16 MB at 256 tokens. A group is never parted.
_SLAB_CANDIDATES = 8192

# Of a cross-encoder's tokens, so many times as many must be saved: below, quality decides, and that one knows more.
_WORTH = 1.5


class OnnxUniEncoder(LogitModel):
    """A Uni-Encoder from a folder that `tiercel export` wrote. Satisfies `tiercel.protocols.Reranker`.

    The context is the query's history, oldest turn first, and then the query. With the mask `one-way` a score follows
    from context and candidate, to rounding, whatever is read beside them. With `arrow` it depends on the candidates
    that are read together, which are `group_size` in the order that they come in: that of the stage before. Scores of
    more than one such group come from passes that knew nothing of each other, so prefer `one-way` there.

    A context that is too long loses its oldest tokens, a candidate its last ones.

    Args:
        folder: holds tiercel.json, model.onnx and tokenizer.json.
        provider: "cpu", "cuda", "tensorrt" or "auto"; refused when it does not run.
        threads: passes that go on at a time on the CPU, of one thread each.
        score: "logit", the model's own number, of any size; "sigmoid" puts it between 0 and 1.
        pass_tokens: with `one-way`, most tokens of the candidates of a pass, padding included; None: 1,024 on the CPU
            and 32,768 on a GPU.

    Raises:
        UsageError: `score` is neither.
        ModelError: the folder is incomplete, changed since export or of another family, the provider is not there,
            int8 is asked of a GPU, or this machine computes other scores than the export did.
    """

    def __init__(
        self,
        folder: Path,
        *,
        provider: str = "cpu",
        threads: int = 1,
        score: ScoreKind = "logit",
        pass_tokens: int | None = None,
    ) -> None:
        from tiercel.models.sessions import open_exported, resolved_provider

        provider = resolved_provider(provider)
        super().__init__(folder, family="uni-encoder", score=score)
        self._settings = UniSettings.of(self._description.extra, where=str(folder))
        self._tokenizer = UniTokenizer(load_tokenizer(folder / TOKENIZER_FILE), self._settings)
        self._graph = open_exported(folder, self._description, provider=provider, workers=threads)
        budget = batch_budget(pass_tokens, provider=provider, is_masked=True, takes="", where=str(folder))
        self._pass_tokens = budget or CPU_PASS_TOKENS
        self._threads = threads if provider == "cpu" else 1
        self._pair_tokens = 0
        self._check_probe(folder)

    @property
    def settings(self) -> UniSettings:
        """How it reads: mask, group size and windows."""
        return self._settings

    @property
    def tokenizer(self) -> UniTokenizer:
        """What cuts contexts and candidates into tokens."""
        return self._tokenizer

    @property
    def group_size(self) -> int:
        """How many candidates are read together, where their scores depend on it; 0 where they do not."""
        return self._settings.group_size

    @property
    def advice(self) -> str:
        """In words, whether another reranker would do better at these lengths; "" where it would not."""
        times = self._pair_tokens / self._tokens_read if self._tokens_read else _WORTH
        if times >= _WORTH:
            return ""
        return (
            f"a cross-encoder would have read {times:.1f} times as many tokens: "
            "a Uni-Encoder pays where contexts are long and candidates short"
        )

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        """One float32 array per group, shape (len(group.documents),), both in input order; larger is better.

        An empty group gives shape (0,). Raises ModelError, naming query and document, for a score that is no number.
        """
        scores: list[NDArray[np.float32]] = []
        for slab in _slabs(groups):
            read = map_in_order(self._read, slab, workers=self._threads)
            scored = score_groups(
                self._graph,
                [one.group for one in read],
                self._settings,
                pass_tokens=self._pass_tokens,
                workers=self._threads,
            )
            scores += scored.logits
            with self._lock:
                self._tokens_read += scored.tokens
                self._pair_tokens += sum(one.pair_tokens for one in read)
                self._truncated += sum(one.truncated for one in read)
                self._truncated_queries += sum(one.context_cut for one in read)
        check_finite(groups, scores, model=self._description.name)
        return [as_asked(array, self._kind) for array in scores]

    def explain(self, query: Query, document: Document) -> WindowParts | None:
        """The document's score, and how much was read; None with `arrow`, where no score is a document's alone."""
        if self.group_size:
            return None
        ((score,),) = self.score([CandidateGroup(query, [document])])
        text = document.full_text
        window = self._tokenizer.window((*query.history, query.text), text)
        read = Window(Read(text, window.end), float(score), window.tokens, window.cut_tokens)
        return WindowParts((read,), "first", read.score)

    def _read(self, group: CandidateGroup) -> _ReadGroup:
        context = self._tokenizer.context((*group.query.history, group.query.text))
        candidates = self._tokenizer.candidates([document.full_text for document in group.documents])
        context_cut = bool(context.cut_tokens and group.documents)
        return _ReadGroup(UniGroup(context.ids, candidates.ids), candidates.truncated, context_cut)

    def _check_probe(self, folder: Path) -> None:
        turn, *texts = self._description.probe.texts
        group = UniGroup(self._tokenizer.context([turn]).ids, self._tokenizer.candidates(texts).ids)
        scored = score_groups(self._graph, [group], self._settings, pass_tokens=self._pass_tokens, workers=1)
        check_probe(self._description, scored.logits[0], folder)


class _ReadGroup(NamedTuple):
    """A group as tokens; how many of its candidates were cut, and whether its context was."""

    group: UniGroup
    truncated: int
    context_cut: bool

    @property
    def pair_tokens(self) -> int:
        """Tokens of a cross-encoder that reads the context again with every candidate."""
        context, candidates = self.group
        return len(candidates) * context.size + sum(ids.size for ids in candidates)


def _slabs(groups: Sequence[CandidateGroup]) -> Iterator[list[CandidateGroup]]:
    """All groups, in order, as many together as are held at once."""
    slab: list[CandidateGroup] = []
    size = 0
    for group in groups:
        if slab and size + len(group.documents) > _SLAB_CANDIDATES:
            yield slab
            slab, size = [], 0
        slab.append(group)
        size += len(group.documents)
    if slab:
        yield slab
