"""Is anything learnt? Tasks whose best answer is known, documents that were not trained on, and a test of chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_bm25 import BM25Okapi

from tests.training.made import made_group, ready, texts_by_id
from tiercel.evaluation.significance import paired_differences, randomisation_test
from tiercel.training.batches import batch_of
from tiercel.training.bi_encoder import BiStudent
from tiercel.training.checkpoints import Checkpoints
from tiercel.training.cross_encoder import CrossStudent
from tiercel.training.groups import MinedGroup
from tiercel.training.late_interaction import LateStudent
from tiercel.training.loop import Student, Training
from tiercel.training.settings import BiSettings, CrossSettings, LateSettings, TrainSettings, UniTrainSettings
from tiercel.training.uni_encoder import UniStudent

FILLERS = "river cold deep winter bread house bridge summer tower north".split()
LETTERS = "bcdefghj"


def swapped_roles(count: int, seed: int) -> list[MinedGroup]:
    """Who hunts whom? Both documents have the same words, so what counts words, and a sum of them, cannot tell."""
    chance, groups = random.Random(seed), []
    for number in range(count):
        hunter, prey = chance.sample(LETTERS[:4], 2)
        before, after = chance.choices(FILLERS, k=2)
        right, wrong = (f"{before} {x} hunts {y} {after}" for x, y in ((hunter, prey), (prey, hunter)))
        groups.append(made_group(number, f"{hunter} hunts {prey}", [right], [wrong]))
    return groups


def planted_tokens(count: int, seed: int) -> list[MinedGroup]:
    """Letters have partners, b and c, d and e ...; the answer has the query's partner anywhere, a lure the query."""
    chance, groups = random.Random(seed), []

    def document(letter: int) -> str:
        words = chance.choices(FILLERS, k=10)
        words.insert(chance.randrange(11), LETTERS[letter])
        return " ".join(words)

    for number in range(count):
        asked = chance.randrange(len(LETTERS))
        others = [letter for letter in range(len(LETTERS)) if letter not in (asked, asked ^ 1)]
        negatives = [document(letter) for letter in (asked, *chance.choices(others, k=2))]
        groups.append(made_group(number, LETTERS[asked], [document(asked ^ 1)], negatives))
    return groups


def odd_one_out(count: int, seed: int) -> list[MinedGroup]:
    """Which says another letter than the others do? No score of one candidate alone can tell."""
    chance, groups = random.Random(seed), []
    for number in range(count):
        odd, others = chance.sample("bc", 2)
        fillers = chance.sample(FILLERS, 3)
        right, *wrong = (f"{letter} {filler}" for letter, filler in zip((odd, others, others), fillers, strict=True))
        groups.append(made_group(number, "who is it", [right], wrong))
    return groups


def reciprocal_ranks(rows: Sequence[Sequence[float]]) -> list[float]:
    """Of the first document of each row; of documents with one score it stands in the middle."""
    ranks = [1 + sum((s > row[0]) + 0.5 * (s == row[0]) for s in row[1:]) for row in rows]
    return [1 / rank for rank in ranks]


def of_student(student: Student, groups: Sequence[MinedGroup]) -> list[float]:
    student.module.eval()
    with torch.no_grad():
        rows: list[list[float]] = student.scores(batch_of(groups, texts_by_id(groups))).tolist()
    return reciprocal_ranks(rows)


def of_bm25(groups: Sequence[MinedGroup]) -> list[float]:
    documents = [d.id.split() for group in groups for d in group.documents]
    scores = [iter(BM25Okapi(documents).get_scores(group.query.text.split())) for group in groups]
    size = len(groups[0].documents)
    return reciprocal_ranks([list(all_)[n * size : (n + 1) * size] for n, all_ in enumerate(scores)])


def check_learnt(student: Student, settings: TrainSettings, task: Any, folder: Path) -> float:
    """Train on one draw of a task and ask another; better than before and than BM25, p < .001. The mean RR."""
    trained_on, asked = task(256, 1), task(60, 2)
    before, bm25 = of_student(student, asked), of_bm25(asked)
    Training(student, ready(trained_on, settings), settings, checkpoints=Checkpoints(folder)).run()
    after = of_student(student, asked)
    for baseline in (before, bm25):
        differences = paired_differences(after, baseline)
        assert differences.mean() > 0.1
        assert randomisation_test(differences).p < 0.001
    return sum(after) / len(after)


def test_a_cross_encoder_learns_roles_that_no_count_of_words_can_tell(cross_folder: Path, tmp_path: Path) -> None:
    settings = CrossSettings(epochs=15, batch_groups=16, learning_rate=1e-2, precision="fp32")
    student = CrossStudent(cross_folder, settings, [])
    assert of_bm25(swapped_roles(60, 2)) == pytest.approx([1 / 1.5] * 60)
    assert check_learnt(student, settings, swapped_roles, tmp_path) > 0.95


def test_late_interaction_learns_which_token_answers(encoder_folder: Path, tmp_path: Path) -> None:
    settings = LateSettings(epochs=30, batch_groups=16, learning_rate=1e-2, dimension=32, precision="fp32")
    student = LateStudent(encoder_folder, settings, ready(planted_tokens(256, 1), settings))
    assert check_learnt(student, settings, planted_tokens, tmp_path) > 0.7


def test_a_uni_encoder_reads_candidates_together_where_a_bi_encoder_of_its_size_cannot(
    encoder_folder: Path, tmp_path: Path
) -> None:
    shared: dict[str, Any] = {"seed": 1, "epochs": 14, "negatives": 2, "learning_rate": 5e-3, "precision": "fp32"}
    uni = UniTrainSettings(**shared, max_tokens=8, context_tokens=40)
    student = UniStudent(encoder_folder, uni)
    assert check_learnt(student, uni, odd_one_out, tmp_path / "uni") > 0.95
    bi = BiSettings(**shared)
    other = BiStudent(encoder_folder, bi)
    Training(other, ready(odd_one_out(256, 1), bi), bi, checkpoints=Checkpoints(tmp_path / "bi")).run()
    asked = odd_one_out(60, 2)
    differences = paired_differences(of_student(student, asked), of_student(other, asked))
    assert differences.mean() > 0.1
    assert randomisation_test(differences).p < 0.001
