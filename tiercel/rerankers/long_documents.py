"""Documents longer than a model's window: cut into windows or extracted, scored, and made one score again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from tiercel.config import LongStrategy
from tiercel.data.chunking import Chunking, count_tokens, passages_of
from tiercel.errors import ModelError, UsageError
from tiercel.protocols import CandidateGroup, Reranker
from tiercel.rerankers.extract import Idf, Terms, extract, words
from tiercel.types import Document, Query

if TYPE_CHECKING:
    from tiercel.protocols import FloatVector

LONG_STRATEGIES: tuple[LongStrategy, ...] = get_args(LongStrategy)

WindowKind: TypeAlias = Literal["sentences", "tokens"]

_MARGIN = 0.9  # some windows of a document have more pieces a token than all of it

_LEAST_SHARE = 4  # a window is never cut to less than this part of itself, however long query and title are


class Cost(NamedTuple):
    """What a reranker was given to read.

    Attributes:
        documents: candidates, each as often as it was one.
        pairs: windows, which is how often the model read a query with a text.
        tokens: of query, title and window, over all pairs, as `tiercel.data.chunking` counts them; a model's own
            pieces are more.
    """

    documents: int = 0
    pairs: int = 0
    tokens: int = 0

    @property
    def windows_per_document(self) -> float:
        """How many windows a document had on average; 0 where there were no documents."""
        return self.pairs / self.documents if self.documents else 0.0


class LongDocuments:
    """A Reranker that gives another one no more of a document at a time than fits its window.

    What it gives has the document's id, title and metadata and a slice of its text, so the other reranker must read
    texts, not look them up by id. All windows of all groups go to it in one call. A document that fits is handed on as
    it is and scored as without the wrapper, whatever the strategy.

    `first` scores the first window alone: what a model that truncates does. `max` takes the best window (MaxP of Dai
    and Callan 2019, Deeper Text Understanding for IR with Contextual Neural Language Modeling), `top3` the mean of the
    three best, or of as many as there are. `sum` is their SumP for scores that are logits: raw ones may be negative,
    and adding them would count against a document each poor window that it has. So it adds the odds and takes the
    logarithm, `log(sum(exp(score)))`: a poor window adds next to nothing, and a document with n windows gains log(n)
    over its best one at most, 0.69 for two alike. Where scores are probabilities between 0 and 1, that gain would
    decide alone: `sum` is not for them. `extract` scores one window made of the sentences that cover the query.

    `cost` counts since this was made: what was read, not how long it took.

    Args:
        reranker: scores the windows.
        strategy: one of LONG_STRATEGIES.
        window: tokens that the model reads of query, title and text together, special ones not counted. The text is
            cut to what query and title leave; that is taken to be a quarter of the window at least, and the model
            truncates what is then too much. The history of a query is not counted.
        overlap: tokens that a window repeats of the one before, at most, and never more than half of what query and
            title leave. 0, the default, reads every text once.
        pieces: how many pieces the model makes of a text; `window` is then counted in them. Not given: our tokens.
        kind: "sentences" makes windows of whole sentences, "tokens" fills each one up.
        idf: what a query term weighs, for `extract` alone; not given, each weighs the same.
        terms: cuts query and sentences into terms, for `extract` alone: the analyser that `idf` belongs to.

    Raises UsageError for an unknown strategy or kind, a window below 1 and an overlap of more than half of it.
    """

    def __init__(  # noqa: PLR0913
        self,
        reranker: Reranker,
        strategy: LongStrategy,
        *,
        window: int,
        overlap: int = 0,
        pieces: Callable[[str], int] = count_tokens,
        kind: WindowKind = "sentences",
        idf: Idf = lambda term: 1.0,
        terms: Terms = words,
    ) -> None:
        if strategy not in LONG_STRATEGIES:
            raise UsageError(f"long documents by {strategy!r}", expected=f"one of {', '.join(LONG_STRATEGIES)}")
        if kind not in get_args(WindowKind):
            raise UsageError(f"windows of {kind!r}", expected=f"one of {', '.join(get_args(WindowKind))}")
        if window < 1:
            raise UsageError(f"windows of {window} tokens", expected="1 or more")
        if not 0 <= overlap <= window // 2:
            raise UsageError(
                f"windows that overlap by {overlap} tokens",
                expected=f"0 to {window // 2}, half of the window",
                next_step="Lower the overlap or raise the window" if overlap > 0 else "",
            )
        self._reranker = reranker
        self._strategy: LongStrategy = strategy
        self._window = window
        self._overlap = overlap
        self._pieces = pieces
        self._kind: WindowKind = kind
        self._idf = idf
        self._terms = terms
        self._cost = Cost()

    @property
    def fingerprint(self) -> str:
        """Changes whenever the scores would: the model, the strategy, window, overlap and kind of window.

        The model's is "" where it has none. What `pieces`, `idf` and `terms` do is not in it.
        """
        inner = getattr(self._reranker, "fingerprint", "")
        return f"{inner}-{self._strategy}-{self._window}-{self._overlap}-{self._kind}"

    @property
    def overlap(self) -> int:
        """Tokens that a window repeats of the one before, at most."""
        return self._overlap

    @property
    def cost(self) -> Cost:
        """What the reranker has been given to read since this was made."""
        return self._cost

    def score(self, groups: Sequence[CandidateGroup]) -> list[FloatVector]:
        """One float32 array per group, shape (len(group.documents),), in input order; an empty group: shape (0,).

        Raises ModelError where the wrapped reranker's scores do not fit the windows that it was given.
        """
        cut = [[self._windows(group.query, document) for document in group.documents] for group in groups]
        given = [
            CandidateGroup(group.query, [window for windows in documents for window in windows])
            for group, documents in zip(groups, cut, strict=True)
        ]
        scores = self._reranker.score(given)
        if [array.shape for array in scores] != [(len(group.documents),) for group in given]:
            raise ModelError(
                f"the reranker returned scores of the shapes {_shown([array.shape for array in scores])}",
                expected=f"{_shown([(len(group.documents),) for group in given])}, one number per window",
            )
        self._cost = _added(self._cost, given, documents=sum(map(len, cut)))
        return [
            self._joined(array, [len(windows) for windows in documents])
            for array, documents in zip(scores, cut, strict=True)
        ]

    @property
    def truncated(self) -> int:
        """How many windows the model still cut."""
        return int(getattr(self._reranker, "truncated", 0))

    def _windows(self, query: Query, document: Document) -> list[Document]:
        """At least one; the document itself where it fits."""
        taken = self._pieces(query.text) + self._pieces(document.title)
        room = max(self._window - taken, self._window // _LEAST_SHARE, 1)
        length = self._pieces(document.text)
        if length <= room:
            return [document]
        if self._pieces is not count_tokens:  # as many of our tokens as have so many pieces in this document
            room = max(1, int(_MARGIN * room * count_tokens(document.text) / length))
        if self._strategy == "extract":
            return [extract(query.text, document, budget=room, idf=self._idf, terms=self._terms)]
        passages = passages_of(document, Chunking(self._kind, room, min(self._overlap, room // 2)))
        if self._strategy == "first":
            passages = passages[:1]
        return [replace(document, text=passage.text) for passage in passages]

    def _joined(self, scores: FloatVector, counts: Sequence[int]) -> FloatVector:
        """One score per document out of those of its windows, of which it has so many."""
        join = _JOINS[self._strategy]
        values: list[float] = scores.tolist()
        joined: list[float] = []
        start = 0
        for count in counts:
            of_one = values[start : start + count]
            joined.append(of_one[0] if count == 1 else join(of_one))
            start += count
        return np.array(joined, dtype=np.float32)


def _added(cost: Cost, groups: Sequence[CandidateGroup], *, documents: int) -> Cost:
    pairs = tokens = 0
    for group in groups:
        pairs += len(group.documents)
        tokens += count_tokens(group.query.text) * len(group.documents)
        tokens += sum(count_tokens(window.title) + count_tokens(window.text) for window in group.documents)
    return Cost(cost.documents + documents, cost.pairs + pairs, cost.tokens + tokens)


def _shown(shapes: Sequence[tuple[int, ...]]) -> str:
    return f"{', '.join(map(str, shapes[:4]))}{', …' if len(shapes) > 4 else ''}" or "none"


def _largest(scores: Sequence[float]) -> float:
    """The largest score, or the first that is not finite: the cascade is to see that one and to name the stage."""
    return next((score for score in scores if not math.isfinite(score)), max(scores))


def _log_of_summed_odds(scores: Sequence[float]) -> float:
    """log(sum(exp(score))), the largest taken out first so that nothing overflows."""
    largest = _largest(scores)
    if not math.isfinite(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(score - largest) for score in scores))


def _mean_of_best(scores: Sequence[float]) -> float:
    if not math.isfinite(largest := _largest(scores)):
        return largest
    best = sorted(scores, reverse=True)[:3]
    return math.fsum(best) / len(best)


_JOINS: dict[LongStrategy, Callable[[Sequence[float]], float]] = {
    "first": _largest,  # of one window, as for `extract`
    "max": _largest,
    "sum": _log_of_summed_odds,
    "top3": _mean_of_best,
    "extract": _largest,
}
