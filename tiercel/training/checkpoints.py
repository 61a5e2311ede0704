"""Where training stands, on disk: weights, optimiser and position in one safetensors file, replaced in one rename."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tiercel.errors import ModelError, UsageError
from tiercel.training.settings import changes

_RECORD = "record"
_MODEL, _OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True, slots=True)
class State:
    """Tensors by name, and what else there is to know, as JSON values."""

    tensors: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: where they are, and nothing else; made with the first.
        inputs: what the training is made of besides its settings, by name; a resume with others is refused.
    """

    folder: Path
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._state.is_file()

    def read(self) -> State:
        """The last checkpoint. Raises ModelError where it is missing or damaged."""
        return _read(self._state)

    def write(self, state: State) -> None:
        """Replace the last checkpoint; the old one stays until the new one is whole.

        Raises ModelError where the disk refuses.
        """
        self._write(self._state, state)

    def read_best(self) -> State:
        """The weights that the dev measure was best at. Raises ModelError where they are missing or damaged."""
        return _read(self._best)

    def write_best(self, state: State) -> None:
        """Replace them, as `write` does."""
        self._write(self._best, state)

    def check_unchanged(self, state: State, record: Mapping[str, Any]) -> None:
        """Raise UsageError, naming what changed, where a training was begun with another record than this."""
        if changed := changes(state.record["settings"], record):
            raise UsageError(
                f"the training was begun with other settings: {'; '.join(changed)}",
                expected="the same, or the result would be that of neither",
                next_step="Give those it was begun with, or train anew into another folder",
                where=str(self.folder),
            )

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    @property
    def _best(self) -> Path:
        return self.folder / "best.safetensors"

    def _write(self, path: Path, state: State) -> None:
        beside = path.with_name(f"{path.name}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as stream:
                stream.write(save(_plain(state.tensors), metadata={_RECORD: json.dumps(dict(state.record))}))
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise ModelError(
                f"the checkpoint cannot be written ({error.strerror or error})",
                expected="room on the disk and leave to write",
                next_step=f"Make room and {'go on with --resume' if self.is_begun else 'train again'}",
                where=str(path),
            ) from error


def gathered(module: Any, optimizer: Any = None) -> dict[str, Any]:
    """Weights, and the numbers of an optimiser, as tensors by name."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in module.state_dict().items()}
    for position, numbers in optimizer.state_dict()["state"].items() if optimizer is not None else ():
        tensors |= {f"{_OPTIMIZER}{position}.{name}": tensor for name, tensor in numbers.items()}
    return tensors


def restore(state: State, module: Any, optimizer: Any) -> None:
    """Put back what `gathered` took."""
    load_weights(state, module)
    numbers: dict[int, dict[str, Any]] = {}
    for name, tensor in state.tensors.items():
        if name.startswith(_OPTIMIZER):
            position, _, key = name.removeprefix(_OPTIMIZER).partition(".")
            numbers.setdefault(int(position), {})[key] = tensor
    optimizer.load_state_dict({"state": numbers, "param_groups": optimizer.state_dict()["param_groups"]})


def load_weights(state: State, module: Any) -> None:
    """Put the weights back."""
    named = {n.removeprefix(_MODEL): tensor for n, tensor in state.tensors.items() if n.startswith(_MODEL)}
    module.load_state_dict(named)


def _plain(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Copies on the CPU: tied weights share memory, which the file format refuses."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _read(path: Path) -> State:
    try:
        with safe_open(path, "pt") as opened:
            record = json.loads((opened.metadata() or {})[_RECORD])
            return State({name: opened.get_tensor(name) for name in opened.keys()}, record)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(
            f"there is no checkpoint to go on from ({error})",
            expected="one that an interrupted training left",
            next_step="Train without --resume",
            where=str(path),
        ) from error
