"""May a source folder be loaded, is it whole, and what does it say of its window? Checks that all families share.

torch, transformers and safetensors are imported inside functions: the extra `tiercel[torch]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from tiercel.errors import ModelError
from tiercel.models.description import TOKENIZER_FILE, Prompts
from tiercel.models.tracing import quiet

_SAVE_AGAIN = "Save or download the model again"

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

_VOCABULARIES = {"tokenizer.json", "vocab.txt", "vocab.json"}


def read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Class and folder of each module that modules.json names, in order. Raises ModelError when it cannot be read."""
    modules_file = folder / "modules.json"
    try:
        return [(str(entry["type"]), folder / str(entry["path"])) for entry in json.loads(modules_file.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"modules.json cannot be read ({error})",
            expected="a sentence-transformers folder",
            next_step="Save the model with sentence-transformers, or name its family with --family",
            where=str(folder),
        ) from error


def check_modules(
    folder: Path, modules: Sequence[tuple[str, Path]], *, next_step: str, known: Collection[str] = ()
) -> None:
    """Refuse what could run foreign code (modules of other packages, pickled weights) and weights that are not whole.

    `known` are modules of other packages that sentence-transformers has a class of its own for. To be called before
    anything is loaded. Raises ModelError.
    """
    for kind, place in modules:
        if not kind.startswith("sentence_transformers.") and kind not in known:
            raise ModelError(
                f"it needs code of its own ({kind})",
                expected="modules of sentence-transformers only",
                next_step=next_step,
                where=str(folder),
            )
        check_weights(place)


def check_kind(folder: Path, kind: str, *, next_step: str) -> None:
    """Refuse a folder that sentence-transformers has saved as another kind of model than `kind`, its class.

    Loaded as that, it would be given modules that nobody has trained. Older folders do not say what they are.
    Raises ModelError.
    """
    found = read_settings(folder).get("model_type", kind)
    if found != kind:
        raise ModelError(f"it was saved as a {found}", expected=f"a {kind}", next_step=next_step, where=str(folder))


def read_settings(folder: Path) -> dict[str, Any]:
    """What config_sentence_transformers.json says; empty where there is none. Raises ModelError when it is damaged."""
    name = "config_sentence_transformers.json"
    return _read_object(folder, name) if (folder / name).is_file() else {}


def read_architecture(folder: Path, *, expected: str) -> str:
    """The class that config.json names, as transformers saves it; "unnamed" where it names none.

    Raises ModelError, with what was `expected`, when it cannot be read.
    """
    config = _read_object(folder, "config.json", expected=expected)
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else "unnamed"


def _read_object(folder: Path, name: str, *, expected: str = "an object of JSON") -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name} cannot be read ({error})", expected=expected, next_step=_SAVE_AGAIN, where=str(folder)
        ) from error
    if not isinstance(found, dict):
        raise ModelError(f"{name} holds no object", expected=expected, next_step=_SAVE_AGAIN, where=str(folder))
    return found


def check_weights(folder: Path) -> None:
    """Refuse pickled weights and damaged or missing parts of safetensors. No weights at all: nothing to refuse."""
    found = sorted(folder.glob("*.safetensors"))
    if list(folder.glob("*.bin")) and not found:
        raise ModelError(
            "its weights are pickled (.bin)",
            expected="safetensors",
            next_step="Save the model again with safetensors",
            where=str(folder),
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"cannot be read ({error})", next_step=_SAVE_AGAIN, where=str(index)) from error
        missing = sorted(named - {path.name for path in found})
        if missing:
            raise ModelError(
                f"the weights {missing[0]} are missing",
                expected=f"the {len(named)} files that {index.name} names",
                next_step=_SAVE_AGAIN,
                where=str(folder),
            )
    for path in found:
        _check_safetensors(path)


def check_has_weights(folder: Path) -> None:
    """Raises ModelError where a folder holds no weights, or such as `check_weights` refuses."""
    check_weights(folder)
    if not list(folder.glob("*.safetensors")):
        raise ModelError("it holds no weights", expected="model.safetensors", next_step=_SAVE_AGAIN, where=str(folder))


def check_complete(folder: Path, loader: str, *, expected: str, unused: str | None = None) -> None:
    """Refuse weights that lack some of those the network needs, when transformers' class `loader` loads them.

    The libraries fill what a checkpoint lacks with random numbers, and say so only in a log line. Names that begin with
    `unused` may be missing. To be called where torch may be imported. Raises ModelError.
    """
    import transformers

    with quiet():
        _, report = getattr(transformers, loader).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    missing = sorted(name for name in report["missing_keys"] if unused is None or not name.startswith(unused))
    if missing:
        raise ModelError(
            f"its weights lack {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            expected=expected,
            next_step=_SAVE_AGAIN,
            where=str(folder),
        )


def has_vocabulary(folder: Path) -> bool:
    """Whether a tokenizer lies in a folder or below it; without one, transformers makes up an empty one."""
    return any(path.name in _VOCABULARIES or path.suffix == ".model" for path in folder.rglob("*"))


def check_vocabulary(folder: Path) -> None:
    """Raises ModelError where a folder holds no tokenizer."""
    if not has_vocabulary(folder):
        raise ModelError(
            "no vocabulary of a tokenizer in it",
            expected="tokenizer.json, vocab.txt, vocab.json or a .model file",
            next_step="Copy the tokenizer's files there, or download the model again",
            where=str(folder),
        )


def load_with_torch(load: Callable[[], Any], *, expected: str, next_step: str, where: Path) -> Any:
    """What `load` gives, in evaluation mode; the libraries' many errors become one ModelError.

    Raises:
        ModelError: the extra is not installed, or the libraries cannot load the folder `where` as what is `expected`.
    """
    try:
        with quiet():
            import onnx  # noqa: F401  (the fuser and the quantiser need it: better missed now than in a minute)
            import sentence_transformers  # noqa: F401
            import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(
            f"exporting needs the package {error.name}, which is not installed",
            next_step="`pip install 'tiercel[torch]'`",
        ) from error
    try:
        with quiet():
            return load().eval()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError) as error:
        raise ModelError(
            f"sentence-transformers cannot load it ({error})", expected=expected, next_step=next_step, where=str(where)
        ) from error


def torch_arguments() -> dict[str, Any]:
    """How every source is loaded: from this machine, without code of its own, in fp32."""
    import torch

    return {
        "device": "cpu",
        "local_files_only": True,
        "trust_remote_code": False,
        # Eager attention is plain products and a softmax: what the exporter can write and the runtime fuse.
        "model_kwargs": {"attn_implementation": "eager", "use_safetensors": True, "dtype": torch.float32},
    }


def network(model: Any) -> Any:
    """The transformers network inside the first module of a loaded sentence-transformers model."""
    return model[0].model if hasattr(model[0], "model") else model[0].auto_model


def check_pooling(model: Any, *, next_step: str, where: Path) -> None:
    """Refuse a loaded model that does not pool the tokens of its prompt. Raises ModelError."""
    if any(getattr(module, "include_prompt", True) is False for module in model):
        raise ModelError(
            "its pooling leaves the prompt out",
            expected="pooling over all tokens",
            next_step=next_step,
            where=str(where),
        )


def read_prompts(model: Any) -> Prompts:
    """The prompts that encode_query and encode_document of a loaded model would use."""
    known = {name: prompt or "" for name, prompt in model.prompts.items()}
    default = known.get(model.default_prompt_name or "", "")
    document = next((known[name] for name in _DOCUMENT_PROMPTS if name in known), default)
    return Prompts(query=known.get("query", default), document=document)


def token_limit(network: Any, max_tokens: int | None, *, declared: int | None, where: str) -> int:
    """Most tokens of one run: `max_tokens`, or the limit that the model has `declared`, else that of its positions.

    Raises ModelError when `max_tokens` is above the model's own limit, or neither is there.
    """
    own = declared if declared is not None else getattr(network.config, "max_position_embeddings", None)
    room = _positions(network)
    if own is not None and room is not None:
        own = min(own, room)
    if own is None and max_tokens is None:
        raise ModelError("it names no longest text", next_step="Name one with max_tokens", where=where)
    if own is not None and max_tokens is not None and max_tokens > own:
        raise ModelError(f"max_tokens is {max_tokens}", expected=f"at most {own}, the model's own limit", where=where)
    return int(max_tokens or own or 0)


def write_tokenizer(tokenizer: Any, network: Any, folder: Path, *, next_step: str) -> None:
    """Write tokenizer.json into `folder`, without padding and truncation.

    Raises ModelError when the tokenizer has no such form, or knows tokens that the network has no embedding of.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "its tokenizer has no fast form", expected="one that can be saved as tokenizer.json", next_step=next_step
        )
    largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    embeddings = int(network.get_input_embeddings().weight.shape[0])
    if largest >= embeddings:
        raise ModelError(
            f"its tokenizer gives ids up to {largest}, but its embedding has {embeddings} rows",
            expected="the tokenizer that the model was trained with",
            next_step=next_step,
        )
    backend.no_padding()
    backend.no_truncation()
    (folder / TOKENIZER_FILE).write_text(backend.to_str(), encoding="utf-8")


def _positions(network: Any) -> int | None:
    """How many tokens have a position embedding: RoBERTa leaves the first rows out. None where there is no table."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(module.num_embeddings) - int(unused)
    return None


def _check_safetensors(path: Path) -> None:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        return  # the next step says which extra is missing
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"the weights are damaged or only half there ({error})",
            expected="a whole safetensors file",
            next_step=_SAVE_AGAIN,
            where=str(path),
        ) from error
