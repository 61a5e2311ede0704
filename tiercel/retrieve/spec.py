"""The pipeline string, such as `bm25+dense@200,minmax:late@50,cross:BAAI/bge-reranker-v2-m3@10`, and its value.

    pipeline := recall ("," stage)*
    recall   := [fusion ":"] leg ("+" leg)* ["@" keep]      fusion: minmax (not written), rrf, interleave or wsum
    leg      := [weight] name [":" model]                   weight: a decimal number above 0, 1 when not written
    stage    := [fusion ":" [weight]] name [":" model] ["@" keep]
    name     := a letter, then letters, digits, "_" or "-"
    model    := letters, digits and any of . _ / : = % -  (a hub name or a path)

A stage with a fusion is fused with the ranking that it reranks, whose weight is 1: `minmax:2late` counts late twice.
One without puts its own order in place of that ranking's.

None of these characters means anything to a shell inside a word, so no quoting is needed. The grammar knows no stage
by name; `check_names` compares a parsed pipeline with the names an application offers.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn

from tiercel.errors import UsageError
from tiercel.retrieve.fusion import DEFAULT_FUSION, FusionMethod

RECALL_KEEP = 100
"""Survivors of a recall stage that names none: the depth at which reranking is usually reported (BEIR, TREC DL)."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_MODEL = re.compile(r"[\w./:=%-]+")
_WEIGHT = re.compile(r"[0-9]+(\.[0-9]+)?")
# Nine digits are more documents than one index holds, and keep `int` away from its own limit on long numbers.
_KEEP = re.compile(r"[0-9]{1,9}(?![0-9])")

_MODEL_EXPECTED = "a model name or path of letters, digits and . _ / : = % -"
_FUSIONS = " or ".join(FusionMethod)


@dataclass(frozen=True, slots=True)
class Leg:
    """One way to recall: a name, the model it uses ("" for the one the index was built with), its fusion weight."""

    name: str
    model: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_name(self.name, self.model)
        if self.name in set(FusionMethod):
            raise UsageError(
                f"a leg called {self.name!r}, which is the name of a fusion",
                expected=f"legs after it, as in {self.name}:bm25+dense",
            )
        _check_weight(self.weight, "leg")

    def __str__(self) -> str:
        return _weight(self.weight) + _name_and_model(self.name, self.model)


@dataclass(frozen=True, slots=True)
class Recall:
    """The first stage: at least one leg, each once; `keep` is None when the string names no number."""

    legs: tuple[Leg, ...]
    fusion: FusionMethod = DEFAULT_FUSION
    keep: int | None = None

    def __post_init__(self) -> None:
        _check_keep(self.keep)
        if not self.legs:
            raise UsageError("a recall stage without legs", expected="at least one leg, such as bm25")
        seen: set[tuple[str, str]] = set()
        for leg in self.legs:
            if (leg.name, leg.model) in seen:
                raise UsageError(f"the leg {_name_and_model(leg.name, leg.model)!r} twice", expected="each leg once")
            seen.add((leg.name, leg.model))
        if len(self.legs) == 1 and (self.legs[0].weight != 1 or self.fusion is not DEFAULT_FUSION):
            raise UsageError("a fusion or a weight with a single leg", expected="two legs or more to be fused")

    def __str__(self) -> str:
        fusion = "" if self.fusion is DEFAULT_FUSION else f"{self.fusion}:"
        return fusion + "+".join(map(str, self.legs)) + _at(self.keep)


@dataclass(frozen=True, slots=True)
class RerankStage:
    """A later stage: a reranker and how it changes the ranking that it is given.

    Attributes:
        name: of the kind of reranker.
        model: "" for the application's choice.
        keep: how many survive; None: unsaid.
        fusion: how its scores are fused with the ranking that it reranks; None: they replace it.
        weight: of its own scores in that fusion, where those of the ranking before have 1.
    """

    name: str
    model: str = ""
    keep: int | None = None
    fusion: FusionMethod | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_name(self.name, self.model)
        _check_keep(self.keep)
        _check_weight(self.weight, "stage")
        if self.name in set(FusionMethod):
            raise UsageError(
                f"a stage called {self.name!r}, which is the name of a fusion",
                expected=f"a stage after it, as in {self.name}:late",
            )
        if self.fusion is FusionMethod.INTERLEAVE and self.weight != 1:
            raise UsageError(f"the weight {self.weight:g} of a stage that is interleaved", expected="no weight there")
        if self.fusion is None and self.weight != 1:
            raise UsageError(
                f"the weight {self.weight:g} of a stage that is not fused",
                expected=f"a fusion before it, as in {DEFAULT_FUSION}:{_weight(self.weight)}{self.name}",
            )

    def __str__(self) -> str:
        fusion = "" if self.fusion is None else f"{self.fusion}:{_weight(self.weight)}"
        return fusion + _name_and_model(self.name, self.model) + _at(self.keep)


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A whole pipeline. `parse(str(spec)) == spec`; no stage keeps more than any stage before it."""

    recall: Recall
    reranks: tuple[RerankStage, ...] = ()

    def __post_init__(self) -> None:
        narrowest: int | None = self.recall.keep
        for stage in self.reranks:
            if narrowest is not None and stage.keep is not None and stage.keep > narrowest:
                raise UsageError(
                    f"{str(stage)!r} after a stage that keeps {narrowest}",
                    expected=f"at most @{narrowest}: a later stage cannot widen the list",
                )
            narrowest = stage.keep if stage.keep is not None else narrowest

    def __str__(self) -> str:
        return ",".join([str(self.recall), *map(str, self.reranks)])

    @property
    def keeps(self) -> tuple[int | None, ...]:
        """The number written at each stage, recall first; None where none is written. See `resolve_keeps`."""
        return (self.recall.keep, *(stage.keep for stage in self.reranks))


def parse(text: str) -> PipelineSpec:
    """Read a pipeline string. Raises UsageError with the string, the column (from 1) and what was expected there."""
    return _Parser(text).pipeline()


def resolve_keeps(keeps: Sequence[int | None], keep: int) -> tuple[int, ...]:
    """How many survive each stage when `keep` hits are asked for: the one rule for stages that name no number.

    `keeps` holds what is written at each stage, recall first. A written number stands. Without one, recall keeps
    max(100, keep) and a later stage keeps `keep`, and neither keeps less than a number written after it, which would
    make that number void. The last stage never keeps more than `keep`; it may keep fewer, and then fewer hits come
    back. Raises UsageError when `keep` is below 1.
    """
    if keep < 1:
        raise UsageError(f"{keep} hits were asked for", expected="at least 1")
    resolved: list[int] = []
    deepest_after = 0
    for position in reversed(range(len(keeps))):
        written = keeps[position]
        unsaid = max(RECALL_KEEP, keep) if position == 0 else keep
        resolved.append(max(unsaid, deepest_after) if written is None else written)
        deepest_after = max(deepest_after, written or 0)
    resolved[0] = min(resolved[0], keep)
    return tuple(reversed(resolved))


def check_names(spec: PipelineSpec, *, recall: Collection[str], rerank: Collection[str]) -> None:
    """Raise UsageError for the first leg not in `recall` or stage not in `rerank`, listing those that are known."""
    for leg in spec.recall.legs:
        if leg.name not in recall:
            raise _unknown(spec, leg.name, kind="recall leg", known=recall, others=rerank)
    for stage in spec.reranks:
        if stage.name not in rerank:
            raise _unknown(spec, stage.name, kind="rerank stage", known=rerank, others=recall)


def _unknown(
    spec: PipelineSpec, name: str, *, kind: str, known: Collection[str], others: Collection[str]
) -> UsageError:
    next_step = ""
    if name in others:
        is_leg = kind == "recall leg"
        next_step = (
            f"{name!r} goes {'after a comma' if is_leg else 'before the first comma, joined to other legs by +'}"
        )
    else:
        # The fusions are candidates too: a misspelt fusion reads as a leg with a model.
        by_folded = {candidate.casefold(): candidate for candidate in [*sorted(known), *map(str, FusionMethod)]}
        near = difflib.get_close_matches(name.casefold(), list(by_folded), n=1)
        next_step = f"Did you mean {by_folded[near[0]]!r}?" if near else ""
    return UsageError(
        f"there is no {kind} called {name!r}",
        expected=f"one of {', '.join(sorted(known))}" if known else f"a pipeline without {kind}s",
        next_step=next_step,
        where=f"pipeline {str(spec)!r}",
    )


def _check_name(name: str, model: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"the name {name!r}", expected="a letter, then letters, digits, _ or -")
    if model and not _MODEL.fullmatch(model):
        raise UsageError(f"the model {model!r}", expected=_MODEL_EXPECTED)


def _check_keep(keep: int | None) -> None:
    if keep is not None and not 1 <= keep < 10**9:
        raise UsageError(f"@{keep}", expected="a number of survivors from 1 to 999999999")


def _check_weight(weight: float, what: str) -> None:
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"the weight {weight:g}", expected=f"a number above 0; leave the {what} out instead of 0")


def _weight(weight: float) -> str:
    return "" if weight == 1 else f"{Decimal(repr(weight)).normalize():f}"


def _name_and_model(name: str, model: str) -> str:
    return f"{name}:{model}" if model else name


def _at(keep: int | None) -> str:
    return "" if keep is None else f"@{keep}"


class _Parser:
    """Recursive descent over one string; `self.at` is the position of the next unread character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def pipeline(self) -> PipelineSpec:
        spec = PipelineSpec(self._recall())
        while self._accept(","):
            start = self.at
            stage = self._stage()
            try:
                spec = PipelineSpec(spec.recall, (*spec.reranks, stage))
            except UsageError as error:
                self._fail(start, error.found, error.expected)
        if self.at < len(self.text):
            hint = "; @ and its number go after the last leg" if self.text[self.at] == "+" else ""
            self._fail(self.at, self._next(), f"a comma or the end{hint}")
        return spec

    def _recall(self) -> Recall:
        start = self.at
        fusion = self._fusion() or DEFAULT_FUSION
        legs = [self._leg()]
        while self._accept("+"):
            leg_start = self.at
            legs.append(self._leg())
            try:
                Recall(tuple(legs), fusion)
            except UsageError as error:
                self._fail(leg_start, error.found, error.expected)
        keep = self._keep()
        try:
            return Recall(tuple(legs), fusion, keep)
        except UsageError as error:
            self._fail(start, error.found, error.expected)

    def _leg(self) -> Leg:
        start = self.at
        weight = self._match(_WEIGHT)
        name, model = self._name_and_model("a recall leg, such as bm25")
        try:
            return Leg(name, model, float(weight) if weight else 1.0)
        except UsageError as error:
            self._fail(start, error.found, error.expected)

    def _stage(self) -> RerankStage:
        start = self.at
        fusion = self._fusion()
        weight = self._match(_WEIGHT)
        name, model = self._name_and_model("a rerank stage, such as cross")
        keep = self._keep()
        try:
            return RerankStage(name, model, keep, fusion, float(weight) if weight else 1.0)
        except UsageError as error:
            self._fail(start, error.found, error.expected)

    def _fusion(self) -> FusionMethod | None:
        return next((method for method in FusionMethod if self._accept(f"{method}:")), None)

    def _name_and_model(self, expected: str) -> tuple[str, str]:
        name = self._match(_NAME) or self._fail(self.at, self._next(), expected)
        model = ""
        if self._accept(":"):
            model = self._match(_MODEL) or self._fail(self.at, self._next(), _MODEL_EXPECTED)
        return name, model

    def _keep(self) -> int | None:
        if not self._accept("@"):
            return None
        start = self.at
        digits = self._match(_KEEP) or self._fail(start, self._next(), "how many hits survive, from 1 to 999999999")
        try:
            _check_keep(int(digits))
        except UsageError as error:
            self._fail(start, error.found, error.expected)
        return int(digits)

    def _accept(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match.group()

    def _next(self) -> str:
        return repr(self.text[self.at]) if self.at < len(self.text) else "the end"

    def _fail(self, position: int, found: str, expected: str) -> NoReturn:
        raise UsageError(found, expected=expected, where=f"pipeline {self.text!r}, column {position + 1}") from None
