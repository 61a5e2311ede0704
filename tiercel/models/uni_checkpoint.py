"""A Uni-Encoder in a folder: BERT as transformers saves it, the head beside it, and how it reads.

    config.json, model.safetensors, tokenizer files    as transformers saves a BertModel
    head.safetensors                                   `weight` of shape (1, hidden), `bias` of shape (1,)
    uni_encoder.json                                   the fields of `UniSettings`

torch, transformers and safetensors are imported inside functions: the extra `tiercel[torch]`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiercel.errors import ModelError
from tiercel.models.checkpoint import (
    check_has_weights,
    check_modules,
    check_vocabulary,
    load_with_torch,
    read_architecture,
    read_modules,
    torch_arguments,
)
from tiercel.models.tracing import quiet
from tiercel.models.uni_inputs import UniSettings

if TYPE_CHECKING:
    from tiercel.models.uni_network import UniEncoder

SETTINGS_FILE = "uni_encoder.json"
HEAD_FILE = "head.safetensors"

_OTHER = "Name the folder of another BERT, saved with safetensors"
_CLASSIFIER = "BertForSequenceClassification"


class UniCheckpoint(NamedTuple):
    """A loaded model: the network in evaluation mode, the tokenizer of transformers, and how texts are read."""

    network: UniEncoder
    tokenizer: Any
    settings: UniSettings


def is_uni_encoder(folder: Path) -> bool:
    """Whether `save_uni_encoder` has written a model there."""
    return (folder / SETTINGS_FILE).is_file()


def check_uni_encoder(folder: Path) -> None:
    """Refuse, before anything is loaded, what is no whole Uni-Encoder. Raises ModelError."""
    read_uni_settings(folder)
    check_source(folder, folder)


def read_uni_settings(folder: Path) -> UniSettings:
    """How the model in `folder` reads. Raises ModelError where that is no Uni-Encoder, or damaged."""
    path = folder / SETTINGS_FILE
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{SETTINGS_FILE} cannot be read ({error})", expected="a folder of a Uni-Encoder", where=str(folder)
        ) from error
    if not isinstance(fields, dict):
        raise ModelError("holds no object", expected="the settings of a Uni-Encoder", where=str(path))
    return UniSettings.of(fields, where=str(path))


def load_uni_encoder(folder: Path, settings: UniSettings | None = None) -> UniCheckpoint:
    """The Uni-Encoder of a folder: one that was saved, or a bi-encoder's or cross-encoder's BERT that is to become one.

    A saved one and a cross-encoder keep their heads; a bi-encoder is given a new one, drawn by torch's seed. `settings`
    None: those of the folder, which then has to hold a Uni-Encoder.

    Raises ModelError for what cannot be loaded, for networks that are no BERT, and for windows that have more tokens
    together than the network has positions.
    """
    if settings is None:
        settings = read_uni_settings(folder)
    place = read_modules(folder)[0][1] if (folder / "modules.json").is_file() else folder
    check_source(folder, place)
    mask = settings.mask

    def load() -> UniEncoder:
        from tiercel.models.uni_network import UniEncoder

        body, head = _body_and_head(place)
        network = UniEncoder(body, mask)
        if head is not None:
            network.head.load_state_dict(head)
        return network

    network = load_with_torch(load, expected="a BERT of transformers", next_step=_OTHER, where=folder)
    positions = int(network.body.config.max_position_embeddings)
    if settings.context_tokens + settings.candidate_tokens > positions:
        raise ModelError(
            f"windows of {settings.context_tokens} and {settings.candidate_tokens} tokens",
            expected=f"at most {positions} together, the network's positions",
            where=str(folder),
        )
    return UniCheckpoint(network, _tokenizer(place), settings)


def check_source(folder: Path, place: Path) -> None:
    """Refuse foreign code, weights that are pickled, damaged or missing, and what is no BERT, before it is loaded.

    `place`: where in the folder its transformers network lies. Raises ModelError.
    """
    if (folder / "modules.json").is_file():
        check_modules(folder, read_modules(folder), next_step=_OTHER)
    architecture = read_architecture(place, expected="a folder of a BERT")
    if not architecture.startswith("Bert"):
        raise ModelError(
            f"its architecture is {architecture}",
            expected="BERT, whose positions and segments a Uni-Encoder needs",
            next_step=_OTHER,
            where=str(folder),
        )
    check_has_weights(place)
    check_vocabulary(folder)


def save_uni_encoder(checkpoint: UniCheckpoint, folder: Path) -> None:
    """Write the model into `folder`, so that `load_uni_encoder` gives it again, bit for bit."""
    from safetensors.torch import save_file

    network, tokenizer, settings = checkpoint
    with quiet():
        network.body.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in network.head.state_dict().items()}, folder / HEAD_FILE)
    text = json.dumps(dataclasses.asdict(settings), indent=2, sort_keys=True)
    (folder / SETTINGS_FILE).write_text(f"{text}\n", encoding="utf-8")


def _body_and_head(place: Path) -> tuple[Any, dict[str, Any] | None]:
    """A BertModel without a pooler, and the weights of its head; None where it has none."""
    import transformers

    is_classifier = read_architecture(place, expected="") == _CLASSIFIER
    loader = transformers.BertForSequenceClassification if is_classifier else transformers.BertModel
    arguments = {name: value for name, value in torch_arguments().items() if name not in ("device", "model_kwargs")}
    network, report = loader.from_pretrained(
        str(place), output_loading_info=True, **arguments, **torch_arguments()["model_kwargs"]
    )
    missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
    if missing:
        raise ModelError(
            f"its weights lack {missing[0]}", expected="all of a BERT's", next_step=_OTHER, where=str(place)
        )
    body = network.bert if is_classifier else network
    body.pooler = None
    if is_uni_encoder(place):
        from safetensors.torch import load_file

        return body, load_file(place / HEAD_FILE)
    return body, _classifier_head(network, place) if is_classifier else None


def _classifier_head(network: Any, place: Path) -> dict[str, Any]:
    """Of two labels the second less the first, as a cross-encoder's score is."""
    weight, bias = network.classifier.weight.detach(), network.classifier.bias.detach()
    if len(bias) not in (1, 2):
        raise ModelError(f"it has {len(bias)} labels", expected="one or two", next_step=_OTHER, where=str(place))
    return {"weight": weight[-1:] - weight[:-1].sum(0), "bias": bias[-1:] - bias[:-1].sum(0)}


def _tokenizer(place: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
