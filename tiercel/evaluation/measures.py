"""Measures by name, and their values for rankings against judgments, computed by providers pinned here.

One library can compute a measure in several ways, and they differ in ties, in cutoffs and in what a missing query
counts. Which provider computes what is therefore fixed, and every result names it.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.metadata
import logging
import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from tiercel.errors import InputError, UsageError
from tiercel.types import DocId, Qrels, QueryId, Ranking

EXAMPLES = "nDCG@10 RR@10 R@100 AP P@5 AP(rel=2) Success@5 Judged@10"

# What trec_eval's own code computes is left to it. It has no reciprocal rank with a cutoff, for which MS MARCO's
# evaluation script is the reference, and no notion of unjudged documents beyond judged_only.
_PROVIDERS = ("pytrec_eval", "msmarco", "judged")

# Names other tools use, folded to lower case. The library's own names and aliases (MAP, MRR, NDCG ...) come on top.
_ALIASES = {
    "ndcg_cut": "nDCG",
    "map_cut": "AP",
    "recip_rank": "RR",
    "reciprocal_rank": "RR",
    "hit": "Success",
    "hits": "Success",
    "hit_rate": "Success",
}
_QUERIES_AT_ONCE = 500
_TRAILING_CUTOFF = re.compile(r"^([A-Za-z][A-Za-z_]*)[_.]([0-9]+)$")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure in the spelling of ir_measures, the provider that computes it, and its cutoff (None: whole list)."""

    name: str
    provider: str
    cutoff: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Values of one run. Larger is better for every measure.

    Attributes:
        measures: what was computed, in the order asked for; each names its provider.
        per_query: measure name -> query id -> value, for every judged query, in the order of the qrels.
        means: measure name -> arithmetic mean over all judged queries.
        queries: how many queries are judged: the number the means divide by.
        missing_queries: judged queries with no ranking or an empty one; they count 0.
        unjudged_queries: rankings whose query has no judgments; they are left out.
        evaluator: the packages that computed the values, with their versions.
    """

    measures: tuple[Measure, ...]
    per_query: Mapping[str, Mapping[QueryId, float]]
    means: Mapping[str, float]
    queries: int
    missing_queries: int
    unjudged_queries: int
    evaluator: str


def parse_measure(text: str) -> Measure:
    """Read a measure as ir_measures spells it (`nDCG@10`, `AP(rel=2)@100`), or as other tools do.

    Also understood, in upper or lower case: `ndcg_cut_10`, `mrr@10`, `recip_rank`, `map`, `recall_100`,
    `precision@5`, `hit@10`. Raises UsageError, with examples and the nearest name, for anything else, for a parameter
    the measure does not have, and for a measure that no pinned provider computes.
    """
    name, parameters, at_value = _split(text.strip())
    library = _library()
    base = _base_measure(text, name, library)
    if at_value is not None:
        parameters[base.AT_PARAM] = at_value
    full = base(**dict(sorted(_checked_parameters(text, base, {**base.params, **parameters}).items())))
    if not isinstance(full.aggregator(), library.MeanAgg):
        _refuse(text, "is a count, not a measure", "The number of queries stands beside every result")
    for provider in _PROVIDERS:
        if library.providers.registry[provider].supports(full):
            return Measure(str(full), provider, full.params.get("cutoff"))
    _refuse(text, f"is computed by none of the providers {', '.join(_PROVIDERS)}")


def parse_measures(texts: Iterable[str]) -> tuple[Measure, ...]:
    """Each measure once, in the order given. Raises UsageError as `parse_measure` does, and for no measures."""
    measures = tuple(dict.fromkeys(map(parse_measure, texts)))
    if not measures:
        raise UsageError("no measures", expected=f"at least one, such as {EXAMPLES}")
    return measures


def evaluate(rankings: Sequence[Ranking], qrels: Qrels, measures: Sequence[Measure]) -> EvaluationResult:
    """Compute every measure for every judged query, and the means over all judged queries.

    A judged query without hits counts 0; a ranking whose query has no judgments is left out and counted. Rankings may
    come in any order. Evaluators sort hits again and break ties in opposite ways, so they are handed scores that
    decrease by one per rank: only the order of a Ranking counts.

    Raises InputError when no ranking's query is judged or a query has two rankings.
    """
    judged = {query_id: dict(judgments) for query_id, judgments in qrels.items() if judgments}
    run = _by_query(rankings)
    check_overlap(run, judged)
    per_query = _per_query(run, judged, measures)
    return EvaluationResult(
        measures=tuple(measures),
        per_query=MappingProxyType(per_query),
        means=MappingProxyType({name: math.fsum(by.values()) / len(by) for name, by in per_query.items()}),
        queries=len(judged),
        missing_queries=sum(query_id not in run or not run[query_id].hits for query_id in judged),
        unjudged_queries=sum(query_id not in judged for query_id in run),
        evaluator=_versions(),
    )


def binary_measures(measures: Iterable[Measure], qrels: Qrels) -> list[str]:
    """Those that tell only relevant from not, grade 1 and up being relevant, where some judgments have higher grades.

    Empty when no grade is above 1. A measure that names its grade, as `RR(rel=2)@10` does, is not among them.
    """
    if not any(grade > 1 for judgments in qrels.values() for grade in judgments.values()):
        return []
    library = _library()
    of_library = [_of_library(measure, library) for measure in measures]
    return [str(full) for full in of_library if "rel" in full.SUPPORTED_PARAMS and "rel" not in full.params]


def check_overlap(run: Collection[QueryId], judged: Collection[QueryId], *, where: str = "") -> None:
    """Raise InputError, with an id of each side, when no query is in both."""
    if not set(run).isdisjoint(judged):
        return
    ranked = f"rankings have {len(run)} queries" + (f" (such as {next(iter(run))!r})" if run else "")
    judgments = f"judgments have {len(judged)}" + (f" (such as {next(iter(judged))!r})" if judged else "")
    raise InputError(
        f"{ranked}, {judgments}, and no id is in both",
        expected="rankings and judgments of the same queries",
        where=where,
        next_step="Check that both files belong to the same collection and spell ids alike",
    )


def _library() -> Any:
    """ir_measures, without the handler that importing it would leave on its logger."""
    already_there = "ir_measures" in sys.modules
    library = importlib.import_module("ir_measures")
    if not already_there:
        # Where messages go is the application's decision. Nothing else imported the library, so nobody misses it.
        logging.getLogger("ir_measures").removeHandler(library.log_handler)
    return library


def _versions() -> str:
    packages = (("ir_measures", "ir-measures"), ("pytrec_eval", "pytrec-eval-terrier"))
    return ", ".join(f"{name} {importlib.metadata.version(package)}" for name, package in packages)


def _split(text: str) -> tuple[str, dict[str, object], object]:
    """`Name(parameter=value)@cutoff` in its three parts; nothing is looked up.

    The library's own parser is not used: it needs syntax classes that Python 3.12 deprecates and 3.14 drops.
    """
    if match := _TRAILING_CUTOFF.match(text):
        return match[1], {}, int(match[2])
    try:
        node = ast.parse(text, mode="eval").body
        at_value = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            at_value = ast.literal_eval(node.right)
            node = node.left
        parameters: dict[str, object] = {}
        if isinstance(node, ast.Call) and not node.args:
            parameters = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            node = node.func
        if isinstance(node, ast.Name):
            return node.id, parameters, at_value
    except (SyntaxError, ValueError):
        pass
    _refuse(text, "is not a measure")


def _base_measure(text: str, name: str, library: Any) -> Any:
    """The library's measure of that name, an exact spelling before one in another case or of another tool."""
    registry: dict[str, Any] = library.measures.registry
    if name in registry:
        return registry[name]
    names = {**{known.casefold(): known for known in sorted(registry)}, **_ALIASES}
    if name.casefold() in names:
        return registry[names[name.casefold()]]
    near = dict.fromkeys(
        names[match] for match in difflib.get_close_matches(name.casefold(), list(names), n=5, cutoff=0.7)
    )
    _refuse(text, "is not a known measure", f"Did you mean {' or '.join(near)}?" if near else "")


def _checked_parameters(text: str, base: Any, parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters with whole numbers made floats where a float is due; UsageError where one does not fit."""
    known = base.SUPPORTED_PARAMS
    checked: dict[str, object] = {}
    for name, value in parameters.items():
        if name not in known:
            _refuse(text, f"has no parameter {name!r}", f"Its parameters are {', '.join(known)}" if known else "")
        value = float(value) if known[name].dtype is float and type(value) is int else value
        if not _fits(name, value, known[name]):
            _refuse(text, f"cannot have {name}={value!r}")
        checked[name] = value
    for name, info in known.items():
        if info.required and name not in checked:
            _refuse(text, f"needs a {name}", f"Write it as {base.NAME}@10" if name == "cutoff" else "")
    return checked


def _fits(name: str, value: object, info: Any) -> bool:
    """Whether the library and its providers can compute with this value; they check less, and later."""
    # `type` and not `isinstance`: True would pass for the whole number 1.
    if type(value) is not info.dtype or not info.validate(value):
        return False
    if name == "recall" and isinstance(value, float):
        return 0 <= value <= 1 and round(value, 2) == value  # the provider rounds to two decimals
    if isinstance(value, dict):
        return all(type(number) is int for number in (*value, *value.values()))
    return name not in {"cutoff", "rel"} or (isinstance(value, int) and value >= 1)


def _refuse(text: str, reason: str, next_step: str = "") -> NoReturn:
    raise UsageError(f"{text!r} {reason}", expected=f"a measure such as {EXAMPLES}", next_step=next_step) from None


def _by_query(rankings: Sequence[Ranking]) -> dict[QueryId, Ranking]:
    by_query: dict[QueryId, Ranking] = {}
    for ranking in rankings:
        if ranking.query.id in by_query:
            raise InputError(f"query {ranking.query.id!r} has two rankings", expected="one per query")
        by_query[ranking.query.id] = ranking
    return by_query


def _scores(ranking: Ranking, depth: int | None) -> dict[DocId, float]:
    """Scores that decrease by one per rank: exact in the 32-bit floats of trec_eval up to 16 million hits."""
    hits = ranking.hits[:depth]
    return {hit.doc_id: float(len(hits) - rank) for rank, hit in enumerate(hits)}


def _per_query(
    run: Mapping[QueryId, Ranking],
    judged: Mapping[QueryId, Mapping[DocId, int]],
    measures: Sequence[Measure],
) -> dict[str, Mapping[QueryId, float]]:
    library = _library()
    # A query without hits is withheld: one provider would divide by its length. It gets the default of 0 below.
    answered = [query_id for query_id, ranking in run.items() if ranking.hits and query_id in judged]
    values: dict[str, dict[QueryId, float]] = {m.name: dict.fromkeys(judged, 0.0) for m in measures}
    for provider in _PROVIDERS:
        named = [measure for measure in measures if measure.provider == provider]
        if not named:
            continue
        wanted = [_of_library(measure, library) for measure in named]
        # No measure with a cutoff looks below it, and a deep run need not be there a second time.
        depth = None if any(m.cutoff is None for m in named) else max(m.cutoff or 0 for m in named)
        for start in range(0, len(answered), _QUERIES_AT_ONCE):
            part = answered[start : start + _QUERIES_AT_ONCE]
            evaluator = library.providers.registry[provider].evaluator(wanted, {q: judged[q] for q in part})
            for metric in evaluator.iter_calc({q: _scores(run[q], depth) for q in part}):
                values[str(metric.measure)][metric.query_id] = float(metric.value)
    return {name: MappingProxyType(by_query) for name, by_query in values.items()}


def _of_library(measure: Measure, library: Any) -> Any:
    name, parameters, at_value = _split(measure.name)
    base = library.measures.registry[name]
    if at_value is not None:
        parameters[base.AT_PARAM] = at_value
    return base(**parameters)
