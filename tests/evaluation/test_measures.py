from __future__ import annotations

import logging
import math
import random
import subprocess
import sys

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.made import QRELS, make_ranking
from tiercel.errors import InputError, UsageError
from tiercel.evaluation.measures import EvaluationResult, Measure, evaluate, parse_measure, parse_measures
from tiercel.types import DocId, Hit, Query, QueryId, Ranking

COMMON = ("nDCG@10", "RR@10", "R@100", "AP", "P@5", "Judged@10", "Success@5")


def of(result: EvaluationResult, measure: str) -> dict[str, float]:
    return {str(query_id): value for query_id, value in result.per_query[measure].items()}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nDCG@10", "nDCG@10"),
        ("ndcg@10", "nDCG@10"),
        ("NDCG@10", "nDCG@10"),
        ("ndcg_cut_10", "nDCG@10"),
        ("ndcg_cut.10", "nDCG@10"),
        ("ndcg", "nDCG"),
        ("RR@10", "RR@10"),
        ("mrr@10", "RR@10"),
        ("MRR", "RR"),
        ("recip_rank", "RR"),
        ("map", "AP"),
        ("map_cut_100", "AP@100"),
        ("AP(rel=2)", "AP(rel=2)"),
        (" AP( rel = 2 )@100 ", "AP(rel=2)@100"),
        ("AP(rel=1)", "AP"),
        ("R@1000", "R@1000"),
        ("recall@100", "R@100"),
        ("recall_100", "R@100"),
        ("P_5", "P@5"),
        ("precision@5", "P@5"),
        ("hit@10", "Success@10"),
        ("hits@10", "Success@10"),
        ("hit_rate@10", "Success@10"),
        ("success@10", "Success@10"),
        ("success_1", "Success@1"),
        ("Judged@10", "Judged@10"),
        ("bpref", "Bpref"),
        ("Rprec", "Rprec"),
        ("IPrec@0.1", "IPrec@0.1"),
        ("SetF(beta=2)", "SetF(beta=2.0)"),
        ("SetRelP", "SetP(relative=True)"),
        ("P(rel=2,judged_only=True)@5", "P(judged_only=True,rel=2)@5"),
        ("P(judged_only=True,rel=2)@5", "P(judged_only=True,rel=2)@5"),
        ("nDCG(gains={2:3})@10", "nDCG(gains={2:3})@10"),
    ],
)
def test_spellings(text: str, name: str) -> None:
    measure = parse_measure(text)
    assert str(measure) == name
    assert parse_measure(name) == measure


def test_each_measure_has_its_own_fixed_provider() -> None:
    providers = {text: parse_measure(text).provider for text in (*COMMON, "RR")}
    assert providers == {
        "nDCG@10": "pytrec_eval",
        "RR@10": "msmarco",
        "RR": "pytrec_eval",
        "R@100": "pytrec_eval",
        "AP": "pytrec_eval",
        "P@5": "pytrec_eval",
        "Judged@10": "judged",
        "Success@5": "pytrec_eval",
    }


def test_the_cutoff_is_known() -> None:
    assert [parse_measure(text).cutoff for text in ("nDCG@7", "AP(rel=2)@100", "AP", "IPrec@0.1")] == [
        7,
        100,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ndgc@10", "'ndgc@10' is not a known measure; expected a measure such as nDCG@10 RR@10"),
        ("ndgc@10", "Did you mean nDCG?"),
        ("recal@10", "Did you mean Recall or StRecall?"),
        ("xyzzy", "'xyzzy' is not a known measure"),
        ("", "'' is not a measure"),
        ("1+1", "is not a measure"),
        ("nDCG @", "is not a measure"),
        ("P(5)", "is not a measure"),
        ("P(rel=x)@5", "is not a measure"),
        ("os.system", "is not a measure"),
        ("P", "'P' needs a cutoff"),
        ("P", "Write it as P@10"),
        ("P@0", "cannot have cutoff=0"),
        ("P@-5", "cannot have cutoff=-5"),
        ("P@1.5", "cannot have cutoff=1.5"),
        ("P(rel=True)@5", "cannot have rel=True"),
        ("P(rel=0)@5", "cannot have rel=0"),
        ("P(depth=3)@5", "has no parameter 'depth'; "),
        ("P(depth=3)@5", "Its parameters are cutoff, rel, judged_only"),
        ("IPrec@2", "cannot have recall=2.0"),
        ("IPrec@0.125", "cannot have recall=0.125"),
        ("nDCG(gains={1:0.5})", "cannot have gains={1: 0.5}"),
        ("nDCG(dcg='exp-log2')@10", "is computed by none of the providers pytrec_eval, msmarco, judged"),
        ("RBP", "is computed by none of the providers"),
        ("NumRet", "'NumRet' is a count, not a measure"),
    ],
)
def test_what_is_no_measure_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_measure(text)
    assert says in str(caught.value)


def test_several_measures_each_once_in_order() -> None:
    assert [m.name for m in parse_measures(["P@5", "ndcg@10", "precision@5"])] == ["P@5", "nDCG@10"]
    with pytest.raises(UsageError, match="no measures; expected at least one, such as nDCG@10"):
        parse_measures([])


def test_by_hand() -> None:
    result = evaluate(
        [make_ranking("q1", "a", "x", "b"), make_ranking("q2", "c", "a")],
        QRELS,
        parse_measures(["nDCG@10", "RR@10", "R@100", "AP", "AP(rel=2)", "P@5", "P@2", "Judged@10", "Success@1", "RR"]),
    )
    log3 = math.log2(3)
    # q1: a and b are relevant (1), x unjudged. DCG 1 + 1/log2(4) = 1.5 of 1 + 1/log2(3).
    # q2: c is judged 0, a is 2, b is 1 and not found. DCG 2/log2(3) of 2 + 1/log2(3). q3 was not ranked.
    assert of(result, "nDCG@10") == pytest.approx(
        {"q1": 1.5 / (1 + 1 / log3), "q2": 2 / log3 / (2 + 1 / log3), "q3": 0}
    )
    assert of(result, "RR@10") == of(result, "RR") == {"q1": 1.0, "q2": 0.5, "q3": 0.0}
    assert of(result, "R@100") == {"q1": 1.0, "q2": 0.5, "q3": 0.0}
    # q1: (1/1 + 2/3) / 2; q2: (1/2) / 2, and with only a relevant (1/2) / 1.
    assert of(result, "AP") == pytest.approx({"q1": 5 / 6, "q2": 1 / 4, "q3": 0})
    assert of(result, "AP(rel=2)") == pytest.approx({"q1": 0, "q2": 1 / 2, "q3": 0})
    assert of(result, "P@5") == pytest.approx({"q1": 2 / 5, "q2": 1 / 5, "q3": 0})
    assert of(result, "P@2") == pytest.approx({"q1": 1 / 2, "q2": 1 / 2, "q3": 0})
    assert of(result, "Judged@10") == pytest.approx({"q1": 2 / 3, "q2": 1, "q3": 0})
    assert of(result, "Success@1") == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    # The mean divides by all three judged queries.
    assert result.means["RR@10"] == 0.5
    assert result.means["AP"] == pytest.approx((5 / 6 + 1 / 4) / 3)
    assert (result.queries, result.missing_queries, result.unjudged_queries) == (3, 1, 0)


def test_the_result_names_what_computed_it() -> None:
    result = evaluate([make_ranking("q1", "a")], QRELS, parse_measures(["RR@10", "Judged@1"]))
    assert result.measures == (Measure("RR@10", "msmarco", 10), Measure("Judged@1", "judged", 1))
    assert f"pytrec_eval {pytrec_eval.__version__}" in result.evaluator
    assert "ir_measures " in result.evaluator


def test_an_empty_ranking_counts_as_none() -> None:
    measures = parse_measures(COMMON)
    absent = evaluate([make_ranking("q1", "a")], QRELS, measures)
    empty = evaluate([make_ranking("q1", "a"), make_ranking("q2"), make_ranking("q3")], QRELS, measures)
    assert empty == absent
    assert empty.missing_queries == 2


def test_unjudged_queries_are_left_out_and_counted() -> None:
    measures = parse_measures(COMMON)
    qrels = {**QRELS, QueryId("q9"): {}}
    alone = evaluate([make_ranking("q1", "a")], QRELS, measures)
    among = evaluate([make_ranking("q8", "a"), make_ranking("q1", "a"), make_ranking("q9", "b")], qrels, measures)
    assert among.means == alone.means
    assert among.per_query == alone.per_query
    assert (among.unjudged_queries, among.queries) == (2, 3)


def test_a_query_without_relevant_documents_counts() -> None:
    qrels = {QueryId("q1"): {DocId("a"): 1}, QueryId("q2"): {DocId("a"): 0}}
    result = evaluate(
        [make_ranking("q1", "a"), make_ranking("q2", "a")], qrels, parse_measures(["RR@10", "AP", "nDCG@10"])
    )
    assert dict(result.means) == {"RR@10": 0.5, "AP": 0.5, "nDCG@10": 0.5}


def test_no_query_in_common_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        evaluate([make_ranking("7", "a")], QRELS, parse_measures(["AP"]))
    assert "rankings have 1 queries (such as '7'), judgments have 3 (such as 'q1'), and no id is in both" in str(
        caught.value
    )
    with pytest.raises(InputError, match=r"rankings have 0 queries, judgments have 0, and"):
        evaluate([], {}, parse_measures(["AP"]))


def test_two_rankings_of_one_query_are_an_error() -> None:
    with pytest.raises(InputError, match="query 'q1' has two rankings; expected one per query"):
        evaluate([make_ranking("q1", "a"), make_ranking("q1", "b")], QRELS, parse_measures(["AP"]))


def test_ties_are_counted_in_the_order_of_the_ranking() -> None:
    query = Query(QueryId("q"), "")
    tied = Ranking(query, (Hit(DocId("a"), 1.0), Hit(DocId("b"), 1.0)), "tied")
    for relevant, value in (("a", 1.0), ("b", 0.5)):
        result = evaluate([tied], {query.id: {DocId(relevant): 1}}, parse_measures(["RR", "RR@10", "AP", "P@1"]))
        assert result.means["RR"] == result.means["RR@10"] == result.means["AP"] == value
        assert result.means["P@1"] == (relevant == "a")


def random_run(seed: int) -> tuple[list[Ranking], dict[QueryId, dict[DocId, int]]]:
    dice = random.Random(seed)
    documents = [DocId(f"d{n}") for n in range(40)]
    queries = [Query(QueryId(f"q{n}"), "") for n in range(dice.randint(1, 12))]
    rankings = []
    for query in queries:
        ids = dice.sample(documents, dice.randint(1, 30))
        # Few different scores, so that there are many ties.
        scores = [dice.randint(0, 5) / 2 for _ in ids]
        rankings.append(Ranking.from_scores(query, ids, scores, stage="random", keep=30))
    qrels = {q.id: {d: dice.randint(0, 3) for d in dice.sample(documents, 15)} for q in queries}
    return rankings, qrels


@pytest.mark.parametrize("seed", range(10))
def test_equals_pytrec_eval_called_directly(seed: int) -> None:
    rankings, qrels = random_run(seed)
    names = {
        "nDCG@10": "ndcg_cut_10",
        "AP": "map",
        "P@5": "P_5",
        "R@10": "recall_10",
        "RR": "recip_rank",
        "nDCG": "ndcg",
    }
    names |= {"Success@5": "success_5", "Rprec": "Rprec", "Bpref": "bpref", "AP@7": "map_cut_7"}
    result = evaluate(rankings, qrels, parse_measures(names))
    run = {r.query.id: {d: 1000.0 - rank for rank, d in enumerate(r.doc_ids)} for r in rankings}
    direct = pytrec_eval.RelevanceEvaluator(qrels, set(names.values())).evaluate(run)
    for name, direct_name in names.items():
        assert of(result, name) == {query_id: values[direct_name] for query_id, values in direct.items()}
        assert result.means[name] == pytest.approx(sum(v[direct_name] for v in direct.values()) / len(direct))


@pytest.mark.parametrize("seed", range(10))
def test_reciprocal_rank_with_a_deep_cutoff_equals_the_one_without(seed: int) -> None:
    rankings, qrels = random_run(seed)
    result = evaluate(rankings, qrels, parse_measures(["RR", "RR@30"]))
    assert of(result, "RR") == pytest.approx(of(result, "RR@30"))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False), st.permutations(list(COMMON)))
def test_the_order_of_rankings_and_measures_does_not_show(seed: int, dice: random.Random, names: list[str]) -> None:
    rankings, qrels = random_run(seed)
    first = evaluate(rankings, qrels, parse_measures(COMMON))
    shuffled = rankings[:]
    dice.shuffle(shuffled)
    second = evaluate(shuffled, dict(sorted(qrels.items())), parse_measures(["AP(rel=2)", *names]))
    assert all(second.means[name] == first.means[name] for name in names)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_values_lie_between_none_and_perfect(seed: int) -> None:
    rankings, qrels = random_run(seed)
    result = evaluate(rankings, qrels, parse_measures(COMMON))
    assert all(0 <= value <= 1 for by_query in result.per_query.values() for value in by_query.values())
    assert all(list(by_query) == list(qrels) for by_query in result.per_query.values())


def test_evaluating_adds_no_log_handler() -> None:
    code = (
        "import logging\n"
        "from tiercel.evaluation.measures import parse_measure\n"
        "parse_measure('nDCG@10')\n"
        "print(logging.getLogger('ir_measures').handlers, logging.getLogger().handlers)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[] []", "")
    assert not logging.getLogger("tiercel").handlers
