from __future__ import annotations

import pytest

from tests.evaluation.made import QRELS, make_ranking
from tiercel.evaluation.conventions import convention_of, measures_of
from tiercel.evaluation.measures import evaluate, named_grade, of_grade, parse_measure, parse_measures

DEFAULTS = ("nDCG@10", "RR@10", "R@100")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qrels.dev.small.tsv", "MS MARCO dev small"),
        ("msmarco-passage/dev/small/qrels", "MS MARCO dev small"),
        ("qrels.msmarco-passage.dev-small.txt", "MS MARCO dev small"),
        ("2019qrels-pass.txt", "TREC DL 2019"),
        ("2020qrels-docs.txt", "TREC DL 2020"),
        ("2021.qrels.pass.final.txt", None),
        ("qrels.dl19-passage.txt", "TREC DL 2019"),
        ("dl22/qrels.txt", "TREC DL 2022"),
        ("msmarco-passage/trec-dl-2020/judged", "TREC DL 2020"),
        ("trec_dl_2023.qrels", "TREC DL 2023"),
        ("qrels.txt", None),
        ("scifact", None),
        ("handle2019.txt", None),
        ("dl2024.txt", None),
        ("dl190.txt", None),
        ("dev/large/qrels.tsv", None),
        ("msmarco/qrels/dev.tsv", "MS MARCO dev small"),
        ("sets/msmarco/qrels/dev.tsv.gz", "MS MARCO dev small"),
        ("irds:beir/msmarco/dev", "MS MARCO dev small"),
        ("irds:msmarco-passage/dev/small", "MS MARCO dev small"),
        ("irds:msmarco-passage/dev", None),
        ("msmarco/qrels/train.tsv", None),
        ("fake-msmarco/qrels/dev.tsv", None),
        ("fiqa/qrels/dev.tsv", None),
    ],
)
def test_sets_are_told_by_name(name: str, found: str | None) -> None:
    convention = convention_of(name)
    assert (convention.name if convention else None) == found


def test_the_measures_of_a_set_are_those_that_are_usual_for_it() -> None:
    assert [str(m) for m in measures_of(convention_of("dl19"), [], DEFAULTS)] == [
        "nDCG@10", "RR(rel=2)", "AP(rel=2)", "R(rel=2)@1000",
    ]  # fmt: skip
    assert [str(m) for m in measures_of(convention_of("dev.small"), [], DEFAULTS)] == ["RR@10", "R@1000"]
    assert [str(m) for m in measures_of(None, [], DEFAULTS)] == list(DEFAULTS)


def test_the_grade_of_a_set_is_taken_where_a_measure_names_none() -> None:
    asked = ["RR@10", "AP(rel=1)", "nDCG@5", "RR(rel=2)@10", "Judged@10"]
    found = [str(measure) for measure in measures_of(convention_of("dl20"), asked, DEFAULTS)]
    assert found == ["RR(rel=2)@10", "AP", "nDCG@5", "Judged@10"]  # AP is AP(rel=1)
    assert [str(measure) for measure in measures_of(convention_of("dev.small"), asked[:1], DEFAULTS)] == ["RR@10"]


def test_what_was_applied_is_said() -> None:
    deep, small = convention_of("dl19"), convention_of("dev.small")
    assert deep is not None
    assert small is not None
    assert deep.note(QRELS) == "measured as TREC DL 2019: grade 2 and up is relevant to measures that name no grade"
    assert small.note(QRELS) == ("measured as MS MARCO dev small; 3 queries are judged, where the whole set has 6,980")


@pytest.mark.parametrize(
    ("measure", "grade", "expected"),
    [
        ("RR@10", 2, "RR(rel=2)@10"),
        ("AP", 3, "AP(rel=3)"),
        ("P@5", 1, "P@5"),
        ("nDCG@10", 2, "nDCG@10"),
        ("AP(judged_only=True)@10", 2, "AP(judged_only=True,rel=2)@10"),
    ],
)
def test_a_measure_with_a_grade(measure: str, grade: int, expected: str) -> None:
    assert of_grade(parse_measure(measure), grade) == parse_measure(expected)


def test_a_grade_of_two_by_hand() -> None:
    # q1 has no document of grade 2 and counts 0, of q2 it is a alone, second; q3 is missing.
    rankings = [make_ranking("q1", "a"), make_ranking("q2", "b", "a")]
    result = evaluate(rankings, QRELS, [of_grade(parse_measure("RR@10"), 2)])
    assert result.means["RR(rel=2)@10"] == pytest.approx(1 / 2 / 3)


def test_the_grade_that_measures_name() -> None:
    assert named_grade(parse_measures(["RR@10", "nDCG@10"])) == 1
    assert named_grade(parse_measures(["RR(rel=2)@10", "AP(rel=3)", "R@10"])) == 3
