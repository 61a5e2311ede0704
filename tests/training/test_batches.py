from __future__ import annotations

import torch

from tests.training.made import letters, made_group, ready
from tiercel.training.batches import make_batch, plan
from tiercel.training.settings import TrainSettings


def test_every_group_comes_once_an_epoch_in_batches_of_like_length() -> None:
    settings = TrainSettings(batch_groups=4)
    lengths = [(7 * n) % 50 for n in range(50)]
    batches = plan(lengths, settings, 0)
    assert sorted(n for batch in batches for n in batch) == list(range(50))
    assert batches == plan(lengths, settings, 0)
    assert batches != plan(lengths, settings, 1)
    spreads = [max(lengths[n] for n in batch) - min(lengths[n] for n in batch) for batch in batches]
    assert max(spreads) <= 5


def test_a_batch_by_hand() -> None:
    settings = TrainSettings(negatives=2)
    groups = [made_group(0, "x", ["a"], ["b", "c"]), made_group(1, "y", ["c"], ["d"])]
    batch = make_batch(ready(groups, settings), settings, 0)
    assert batch.documents == [["a", "b", "c"], ["c", "d"]]
    assert batch.labels.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [True, True, False]]
    assert (batch.pairs, batch.owners.tolist()) == (5, [0, 0, 0, 1, 1])
    assert batch.place(torch.arange(5.0)).tolist() == [[0, 1, 2], [3, 4, 0]]
    matrix = torch.arange(10.0).reshape(2, 5)
    assert batch.own(matrix).tolist() == [[0, 1, 2], [8, 9, 0]]
    across = batch.across(matrix)
    assert across.labels.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    # Document c answers y, and came with x as a negative: it is none for y.
    assert across.mask.tolist() == [[True] * 5, [True, True, False, True, True]]


def test_negatives_are_drawn_anew_each_epoch() -> None:
    settings = TrainSettings(negatives=1)
    groups = ready([made_group(0, "x", ["a"], list("bcdefgh"))], settings)
    drawn = {make_batch(groups, settings, epoch).documents[0][1] for epoch in range(20)}
    assert len(drawn) > 3
    assert all(make_batch(ready(letters(), settings), settings, 0).labels[:, 0] == 1)
