from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiercel.errors import ModelError, UsageError
from tiercel.training.checkpoints import Checkpoints, State, gathered, restore


def stepped() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_weights_and_the_optimisers_numbers_come_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new")
    module, optimizer = stepped()
    assert Checkpoints(tmp_path / "new").is_begun is False
    checkpoints.write(State(gathered(module, optimizer), {"progress": [1, None, 0]}))
    assert checkpoints.is_begun
    other, its = stepped()
    state = checkpoints.read()
    restore(state, other, its)
    assert state.record == {"progress": [1, None, 0]}
    assert torch.equal(other.weight, module.weight)
    for first, second in zip(optimizer.state.values(), its.state.values(), strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_tied_weights_are_written_twice(tmp_path: Path) -> None:
    module = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    module[1].weight = module[0].weight
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write_best(State(gathered(module), {}))
    assert len(checkpoints.read_best().tensors) == 4


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="there is no checkpoint to go on from"):
        Checkpoints(tmp_path).read()


def test_what_changed_is_named(tmp_path: Path) -> None:
    state = State({}, {"settings": {"seed": 1, "model": "a"}})
    Checkpoints(tmp_path).check_unchanged(state, {"seed": 1, "model": "a"})
    with pytest.raises(UsageError, match=r"begun with other settings: model = 'b' \(was 'a'\); expected the same"):
        Checkpoints(tmp_path).check_unchanged(state, {"seed": 1, "model": "b"})
