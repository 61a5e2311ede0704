"""Local-attention models on the disk: a transformer's folder with two files beside it. Needs torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from tiercel.errors import ModelError
from tiercel.models.local_attention import SETTINGS_FILE, Geometry
from tiercel.models.local_network import Frame, LocalNetwork

WEIGHTS_FILE = "local_attention.safetensors"
"""The mixer, the projection and the head."""


def frame_of(tokenizer: Any) -> Frame:
    """What a tokenizer of transformers puts around a text. Raises ModelError for one that puts something into it."""
    with_special = tokenizer("a")["input_ids"]
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    for first in range(len(with_special) - len(text) + 1):
        if with_special[first : first + len(text)] == text:
            return Frame(tuple(with_special[:first]), tuple(with_special[first + len(text) :]))
    raise ModelError("its tokenizer changes a text between special tokens", expected="special tokens around it only")


def save_local(model: LocalNetwork, tokenizer: Any, folder: Path) -> None:
    """Write a folder that `load_local` reads: a transformer and its tokenizer, with two files beside them."""
    from safetensors.torch import save_file

    model.encoder.network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    own = {name: value.contiguous() for name, value in model.state_dict().items() if not _is_networks(name)}
    save_file(own, folder / WEIGHTS_FILE)
    record = {"geometry": dataclasses.asdict(model.geometry), "dimension": model.encoder.dimension}
    (folder / SETTINGS_FILE).write_text(f"{json.dumps(record, indent=1)}\n", encoding="utf-8")


def load_local(folder: Path) -> tuple[LocalNetwork, Any]:
    """The model of a folder, in evaluation mode, and its tokenizer. Raises ModelError for what is not whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        record = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        network = AutoModel.from_pretrained(
            str(folder), **local, use_safetensors=True, dtype=torch.float32, attn_implementation="eager"
        )
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
        model = LocalNetwork(network, Geometry(**record["geometry"]), frame_of(tokenizer), int(record["dimension"]))
        found = model.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"it cannot be loaded ({error})",
            expected="a local-attention model as `tiercel train local` writes it",
            next_step="Train it again",
            where=str(folder),
        ) from error
    if missing := [*found.unexpected_keys, *(name for name in found.missing_keys if not _is_networks(name))]:
        raise ModelError(f"{WEIGHTS_FILE} does not fit ({missing[0]})", next_step="Train it again", where=str(folder))
    return model.eval(), tokenizer


def _is_networks(name: str) -> bool:
    return name.startswith("encoder.network.")
