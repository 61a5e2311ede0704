"""What does training start from? Checkpoints of sentence-transformers and transformers, loaded to be changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.errors import ModelError
from tiercel.models.checkpoint import (
    check_kind,
    check_modules,
    check_vocabulary,
    check_weights,
    load_with_torch,
    read_modules,
)
from tiercel.models.tracing import quiet

Tensor: TypeAlias = Any

_OTHER = "Name the folder of another model, saved with safetensors"


def load_encoder(folder: Path) -> Any:
    """A SentenceTransformer. Raises ModelError for foreign code, pickled weights and what cannot be loaded."""
    check_modules(folder, read_modules(folder), next_step=_OTHER)
    check_kind(folder, "SentenceTransformer", next_step=_OTHER)

    def load() -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu", **_LOCAL, model_kwargs=_weights())

    return load_with_torch(load, expected="a bi-encoder of sentence-transformers", next_step=_OTHER, where=folder)


def load_classifier(folder: Path, *, layers: int = 0) -> tuple[Any, Any]:
    """A network that scores pairs, and its tokenizer; an encoder is given a new head, drawn by torch's seed.

    `layers`: keep so many, spread evenly; 0 for all. Raises ModelError for what cannot be loaded, and where it has not
    so many layers.
    """
    place = read_modules(folder)[0][1] if (folder / "modules.json").is_file() else folder
    check_weights(place)
    check_vocabulary(folder)
    network = load_with_torch(
        lambda: _classifier(place), expected="a network of transformers", next_step=_OTHER, where=folder
    )
    if layers:
        keep_layers(network, layers, where=folder)
    return network, load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder, as transformers loads it."""
    with quiet():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), **_LOCAL)


def keep_layers(network: Any, count: int, *, where: Path) -> None:
    """Cut a transformer to `count` layers, spread evenly from its first to its last. Raises ModelError for too many."""
    lists = [module for module in network.base_model.modules() if isinstance(module, torch.nn.ModuleList)]
    stack = max(lists, key=len)
    if not 1 <= count <= len(stack):
        raise ModelError(f"it has {len(stack)} layers", expected=f"at least {count}", where=str(where))
    kept = [round(position) for position in torch.linspace(0, len(stack) - 1, count).tolist()]
    layers = [stack[position] for position in kept]
    while len(stack):
        del stack[0]
    stack.extend(layers)
    network.config.num_hidden_layers = count


def head_of(network: Any) -> Any:
    """The last linear layer: what gives the logits."""
    return [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]


def features_of(model: Any, texts: Sequence[str], *, prompt: str, max_tokens: int, device: str) -> dict[str, Any]:
    """The token ids and mask of texts behind a prompt, padded to the longest, cut to `max_tokens`.

    The model keeps its own window, which is the one that is saved.
    """
    own, model.max_seq_length = model.max_seq_length, max_tokens
    try:
        features = model.preprocess([f"{prompt}{text}" for text in texts])
    finally:
        model.max_seq_length = own
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def window(model: Any, max_tokens: int) -> int:
    """Tokens that are read: `max_tokens`, or what the model can if that is less."""
    limit = model.max_seq_length
    return max_tokens if limit is None else min(max_tokens, int(limit))


_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def _weights() -> dict[str, Any]:
    return {"use_safetensors": True, "dtype": torch.float32}


def _classifier(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(str(folder), **_LOCAL)
    if not str((config.architectures or [""])[0]).endswith("ForSequenceClassification"):
        config.num_labels = 1
    network, report = AutoModelForSequenceClassification.from_pretrained(
        str(folder), config=config, output_loading_info=True, **_LOCAL, **_weights()
    )
    body = f"{network.base_model_prefix}."
    missing = sorted(name for name in report["missing_keys"] if name.startswith(body) and "pooler" not in name)
    if missing:
        raise ModelError(f"its weights lack {missing[0]}", expected="all but the head's", where=str(folder))
    if network.config.num_labels not in (1, 2):
        raise ModelError(f"it has {network.config.num_labels} labels", expected="one or two", where=str(folder))
    return network
