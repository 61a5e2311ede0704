from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.made import made_group, ready, texts_by_id
from tiercel.errors import ModelError
from tiercel.models.uni_checkpoint import UniCheckpoint, load_uni_encoder
from tiercel.models.uni_inputs import UniSettings, UniTokenizer
from tiercel.training.batches import batch_of, make_batch
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.settings import UniTrainSettings
from tiercel.training.uni_encoder import UniStudent
from tiercel.types import DocId, Query


def talk(number: int, turns: list[str], right: str, wrong: list[str]) -> MinedGroup:
    group = made_group(number, turns[-1], [right], wrong)
    return replace(group, query=Query(group.query.id, turns[-1], tuple(turns[:-1])))


GROUPS = [
    talk(0, ["who hunts", "the falcon", "how"], "falcon hunts", ["cold bread", "the river is deep in winter"]),
    talk(1, ["cold"], "winter is cold", ["falcon"]),
]
SMALL = {"context_tokens": 40, "max_tokens": 20, "precision": "fp32"}


def settings_of(**changes: object) -> UniTrainSettings:
    return UniTrainSettings(**{**SMALL, **changes})  # type: ignore[arg-type]


def student_of(folder: Path, settings: UniTrainSettings) -> UniStudent:
    student = UniStudent(folder, settings)
    torch.nn.init.normal_(student.module.head.weight, generator=torch.Generator().manual_seed(5))
    student.module.eval()
    return student


def alone(checkpoint: UniCheckpoint, turns: list[str], texts: list[str]) -> list[float]:
    """Scores of one pass over these candidates and no others, unpadded but for the candidates."""
    network, tokenizer, settings = checkpoint
    cuts = UniTokenizer(tokenizer.backend_tokenizer, settings)
    rows = [torch.from_numpy(ids) for ids in cuts.candidates(texts).ids]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    context = torch.from_numpy(cuts.context(turns).ids)[None]
    with torch.no_grad():
        found: list[float] = network(context, ids[None], None, mask[None])[0].tolist()
    return found


@pytest.mark.parametrize("mask", ["arrow", "one-way"])
def test_scores_are_those_of_a_pass_for_each_group_before_and_after_saving(
    encoder_folder: Path, tmp_path: Path, mask: str
) -> None:
    student = student_of(encoder_folder, settings_of(mask=mask))
    with torch.no_grad():
        scores = student.scores(batch_of(GROUPS, texts_by_id(GROUPS)))
    student.save(tmp_path / "saved")
    saved = load_uni_encoder(tmp_path / "saved")
    assert saved.settings == UniSettings(mask, 10 if mask == "arrow" else 0, 40, 20)  # type: ignore[arg-type]
    for group, row in zip(GROUPS, scores.tolist(), strict=True):
        texts = [str(document.id) for document in group.documents]
        expected = alone(saved, [*group.query.history, group.query.text], texts)
        assert row[: len(texts)] == pytest.approx(expected, abs=1e-4)
    assert scores[1, 2].item() == 0.0


def test_arrow_reads_no_more_together_than_a_step_does_in_the_order_of_the_first_stage(encoder_folder: Path) -> None:
    found = [MinedDocument(DocId(text), "given", rank) for text, rank in (("cold", 3), ("river", 1), ("falcon", 2))]
    group = replace(GROUPS[0], positives=found[:1], negatives=found[1:])
    student = student_of(encoder_folder, settings_of(negatives=1))
    with torch.no_grad():
        (row,) = student.scores(batch_of([group], texts_by_id([group]))).tolist()
    turns = [*group.query.history, group.query.text]
    first, second = (alone(student._checkpoint, turns, texts) for texts in (["river", "falcon"], ["cold"]))
    assert row == pytest.approx([second[0], first[0], first[1]], abs=1e-4)


def test_the_loss_is_softmax_over_the_group_or_over_the_batch(encoder_folder: Path) -> None:
    losses = {}
    for in_batch in (False, True):
        settings = settings_of(negatives=1, in_batch=in_batch, mask="one-way")
        student = student_of(encoder_folder, settings)
        batch = make_batch(ready(GROUPS, settings), settings, 0)
        losses[in_batch] = float(student.loss(batch).detach())
    texts = [text for row in batch.documents for text in row]
    rows = [
        torch.tensor(alone(student._checkpoint, [*group.query.history, group.query.text], texts)) for group in GROUPS
    ]
    own = [torch.log_softmax(rows[0][:2], 0)[0], torch.log_softmax(rows[1][2:], 0)[0]]
    every = [torch.log_softmax(rows[0], 0)[0], torch.log_softmax(rows[1], 0)[2]]
    assert losses[False] == pytest.approx(-float(sum(own)) / 2, abs=1e-4)
    assert losses[True] == pytest.approx(-float(sum(every)) / 2, abs=1e-4)


def test_the_group_size_is_what_a_step_reads_together() -> None:
    assert settings_of(negatives=4).group_size == 5
    assert settings_of(negatives=4, batch_groups=3, in_batch=True).group_size == 15
    assert settings_of(negatives=4, mask="one-way").group_size == 0


def test_lengths_are_those_of_context_and_longest_candidate(encoder_folder: Path) -> None:
    settings = settings_of()
    # [CLS] who hunts [SEP] the falcon [SEP] how [SEP] and [CLS] the river is deep in winter [SEP]
    assert UniStudent(encoder_folder, settings).lengths(ready(GROUPS, settings)) == [9 + 8, 3 + 5]


def test_windows_that_are_too_long_are_refused(encoder_folder: Path) -> None:
    with pytest.raises(ModelError, match="windows of 256 and 64 tokens; expected at most 64 together"):
        UniStudent(encoder_folder, UniTrainSettings())
