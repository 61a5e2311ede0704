from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.conftest import write_lines
from tests.training.made import LetterStudent
from tiercel.errors import InputError, ModelError, UsageError
from tiercel.learning import TrainData, dev_measure, legs_of_runs, starting_model
from tiercel.models.zoo import bundled_folder
from tiercel.types import QueryId

FOUND = {"leg": "bm25", "rank": 1, "scores": {"bm25": 1.0}}


@pytest.fixture
def dev(tmp_path: Path) -> TrainData:
    """Of the first query the answer is one of two that were found; of the second it was not found."""
    groups = [
        {"query_id": "q1", "query": "x", "positives": [{"id": "a", **FOUND}], "negatives": [{"id": "b", **FOUND}]},
        {"query_id": "q2", "query": "x", "positives": [{"id": "a"}], "negatives": [{"id": "b", **FOUND}]},
    ]
    write_lines(tmp_path / "docs.jsonl", *({"_id": name, "text": name} for name in "ab"))
    file = write_lines(tmp_path / "dev.jsonl", *groups)
    return TrainData([str(file)], [str(tmp_path / "docs.jsonl")])


def student_that_scores(first: float, second: float) -> LetterStudent:
    student = LetterStudent()
    torch.nn.init.zeros_(student.module[0].weight)
    for letter, score in (("a", first), ("b", second)):
        student.module[0].weight.data[ord("x") * 128 + ord(letter)] = score
    torch.nn.init.ones_(student.module[2].weight)
    student.module.eval()
    return student


def test_the_dev_measure_ranks_what_was_found_and_misses_the_rest(dev: TrainData) -> None:
    value = dev_measure(dev, "nDCG@10")
    assert value(student_that_scores(2.0, 1.0)) == pytest.approx(1 / 2)
    assert value(student_that_scores(1.0, 2.0)) == pytest.approx(1 / math.log2(3) / 2)


def test_scores_that_are_no_numbers_are_refused(dev: TrainData) -> None:
    with pytest.raises(ModelError, match=r"dev.jsonl:1: the model's scores for the dev query 'q1' are no numbers"):
        dev_measure(dev, "nDCG@10")(student_that_scores(math.nan, 1.0))


def test_dev_groups_without_scores_are_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "docs.jsonl", *({"_id": name, "text": name} for name in "ab"))
    line = {"query_id": "q", "query": "x", "positives": [{"id": "a"}], "negatives": [{"id": "b"}]}
    file = write_lines(tmp_path / "dev.jsonl", line)
    with pytest.raises(InputError, match=r"dev.jsonl: no document was found by a leg"):
        dev_measure(TrainData([str(file)], [str(tmp_path / "docs.jsonl")]), "nDCG@10")


def test_corpora_are_one_or_as_many_as_files(dev: TrainData) -> None:
    both = TrainData([*dev.groups, *dev.groups], dev.corpora).read()
    assert [texts for _, texts in both] == [{"a": "a", "b": "b"}] * 2
    with pytest.raises(UsageError, match="2 corpora for 1 files of groups"):
        TrainData(dev.groups, ["x", "y"])


def test_runs_are_legs_by_their_files_names(tmp_path: Path) -> None:
    (tmp_path / "first.trec").write_text("q1 Q0 b 1 2.0 t\nq1 Q0 a 2 1.0 t\n")
    legs = legs_of_runs([str(tmp_path / "first.trec")])
    assert [hit.doc_id for hit in legs["first"][QueryId("q1")].hits] == ["b", "a"]
    with pytest.raises(UsageError, match="runs called first, first"):
        legs_of_runs([str(tmp_path / "first.trec")] * 2)


def test_a_bundled_model_is_trained_from_the_weights_that_it_was_made_of(tmp_path: Path) -> None:
    assert (starting_model("tiercel-minilm", offline=True) / "modules.json").is_file()
    exported = bundled_folder("tiercel-minilm")
    assert exported is not None
    with pytest.raises(ModelError, match="it is exported, and has no weights to train"):
        starting_model(str(exported), offline=True)
