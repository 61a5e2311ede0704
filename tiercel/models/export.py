"""A sentence-transformers bi-encoder into ONNX, with proof that its vectors stayed what they were.

torch and sentence-transformers are imported here only, inside functions: the extra `tiercel[torch]`.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import json
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Precision
from tiercel.errors import ModelError
from tiercel.models.description import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    ModelDescription,
    ModelSource,
    Probe,
    Prompts,
    compute_fingerprint,
    write_description,
)
from tiercel.models.encoder import MASK_INPUT, SENTENCE_OUTPUT, embed_one
from tiercel.models.parity import Parity, compare_vectors
from tiercel.models.tokenize import Tokenizer

TOKEN_OUTPUT = "token_embeddings"

# Worst cosine or similarity difference of a traced fp32 graph; honest ones differ by about 1e-6.
PARITY_LIMIT = 1e-3

# The last opset that the TorchScript exporter writes LayerNormalization in and the fuser knows throughout.
_OPSET = 17

_PROBE_TEXT = "A small falcon hunts in tiers: wide and cheap at first, then closer and more exact."

# Encoders whose GELU and LayerNorm subgraphs onnxruntime's fuser recognises.
_FUSABLE = frozenset({"bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"})

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

_USE_ANOTHER = "Use another encoder, such as all-MiniLM-L6-v2"

_Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        folder: where the model lies now.
        description: what its tiercel.json says, parity included.
        graph_parity: parity of the fp32 graph, before any quantisation.
        fused: operators the fuser made, by name; empty when the plain graph was kept.
        size_bytes: size of model.onnx.
        seconds: wall time of the whole export.
    """

    folder: Path
    description: ModelDescription
    graph_parity: Parity
    fused: Mapping[str, int]
    size_bytes: int
    seconds: float


def export_encoder(
    source: ModelSource,
    target: Path,
    *,
    precision: Precision,
    max_tokens: int | None = None,
    progress: _Progress | None = None,
) -> ExportReport:
    """Write the bi-encoder of `source` as an exported model into the new folder `target`.

    The graph gives `sentence_embedding`, float32 of shape (texts, dimension), rows of L2 norm 1, and
    `token_embeddings` of shape (texts, tokens, hidden). Parity with torch fp32 is measured on the
    bundled texts and all of them in one, so that truncation is seen too. `max_tokens` None keeps the model's own
    limit. The folder is made beside and renamed, so it is there whole or not at all.

    Raises:
        ModelError: the extra is missing, the folder is no safetensors bi-encoder, `target` is taken, the graph
            cannot be written, or its fp32 vectors differ by more than `PARITY_LIMIT`.
    """
    started = time.monotonic()
    texts = _parity_texts()
    tell = progress or _silent
    _check_target(target)
    _check_source(source.folder)
    with _partial_folder(target) as folder:
        tell(f"exporting {source.name} to {precision} ONNX, once; it is kept in {target}")
        model = _load(source.folder)
        limit = _token_limit(model, max_tokens, where=str(source.folder))
        _write_tokenizer(model, folder)
        tell("Writing the graph")
        graph = _write_graph(model, folder, masked=precision == "fp32")
        tell(f"Comparing with torch on {len(texts)} texts")
        reference = _torch_vectors(model, texts, max_tokens=limit)
        graph_parity = compare_vectors(reference, _onnx_vectors(folder, texts, max_tokens=limit))
        _check_parity(graph_parity, where=str(source.folder))
        parity = graph_parity
        if precision == "int8":
            tell("Quantising to int8")
            _quantize(folder)
            parity = compare_vectors(reference, _onnx_vectors(folder, texts, max_tokens=limit))
        settings = _Settings(precision, limit, _prompts(model), parity=parity, graph=graph.summary)
        description = _describe(source, folder, settings)
        size_bytes = (folder / GRAPH_FILE).stat().st_size
        write_description(folder, description)
    return ExportReport(target, description, graph_parity, graph.fused, size_bytes, time.monotonic() - started)


def partial_folders(target: Path) -> list[Path]:
    """Unfinished exports to `target`: of a running process, or left by one that was killed."""
    return sorted(target.parent.glob(f".{target.name}.partial-*"))


def bundled_sample_texts() -> list[str]:
    """The English sentences that parity is measured on."""
    text = importlib.resources.files("tiercel.models").joinpath("sample_texts.txt").read_text(encoding="utf-8")
    return text.splitlines()


@dataclass(frozen=True, slots=True)
class _Graph:
    fused: Mapping[str, int]
    summary: str


@dataclass(frozen=True, slots=True)
class _Settings:
    precision: Precision
    max_tokens: int
    prompts: Prompts
    parity: Parity
    graph: str


def _silent(_message: str) -> None:
    """Take a status line and drop it."""


def _parity_texts() -> list[str]:
    texts = bundled_sample_texts()
    return [*texts, " ".join(texts)]


def _check_target(target: Path) -> None:
    if target.exists():
        raise ModelError(
            "exists already",
            expected="a folder that is to be made",
            next_step="Remove it or name another one",
            where=str(target),
        )


def _check_source(folder: Path) -> None:
    """Refuse what could run foreign code (pickled weights, modules of other packages) before anything is loaded."""
    modules_file = folder / "modules.json"
    try:
        modules = [(str(entry["type"]), folder / str(entry["path"])) for entry in json.loads(modules_file.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"modules.json cannot be read ({error})",
            expected="a sentence-transformers folder",
            next_step="Save the model with sentence-transformers, or name the folder that it was saved to",
            where=str(folder),
        ) from error
    for kind, place in modules:
        if not kind.startswith("sentence_transformers."):
            raise ModelError(
                f"it needs code of its own ({kind})",
                expected="modules of sentence-transformers only",
                next_step=_USE_ANOTHER,
                where=str(folder),
            )
        if list(place.glob("*.bin")) and not list(place.glob("*.safetensors")):
            raise ModelError(
                "its weights are pickled (.bin)",
                expected="safetensors",
                next_step="Save the model again with safetensors",
                where=str(place),
            )


@contextlib.contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that becomes it in one rename when the block ends well, and is removed otherwise."""
    folder = target.parent / f".{target.name}.partial-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ModelError(
            f"cannot be made ({error.strerror})", next_step="Choose a place that can be written to", where=str(folder)
        ) from error
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow the warnings, log lines and progress bars of the libraries; their errors pass."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _load(folder: Path) -> Any:
    try:
        with _quiet():
            import onnx  # noqa: F401  (the fuser and the quantiser need it: better missed now than in a minute)
            import torch
            from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise ModelError(
            f"exporting needs the package {error.name}, which is not installed",
            next_step="`pip install 'tiercel[torch]'`",
        ) from error
    try:
        with _quiet():
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                # Eager attention is plain products and a softmax: what the exporter can write and the runtime fuse.
                model_kwargs={"attn_implementation": "eager", "use_safetensors": True, "dtype": torch.float32},
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"sentence-transformers cannot load it ({error})",
            expected="a sentence-transformers bi-encoder with safetensors weights",
            next_step=_USE_ANOTHER,
            where=str(folder),
        ) from error
    if any(getattr(module, "include_prompt", True) is False for module in model):
        raise ModelError(
            "its pooling leaves the prompt out",
            expected="pooling over all tokens",
            next_step=_USE_ANOTHER,
            where=str(folder),
        )
    return model.eval()


def _token_limit(model: Any, max_tokens: int | None, *, where: str) -> int:
    config = model[0].model.config if hasattr(model[0], "model") else model[0].auto_model.config
    own: int | None = model.max_seq_length or getattr(config, "max_position_embeddings", None)
    if own is None and max_tokens is None:
        raise ModelError("it names no longest text", next_step="Name one with max_tokens", where=where)
    if own is not None and max_tokens is not None and max_tokens > own:
        raise ModelError(f"max_tokens is {max_tokens}", expected=f"at most {own}, the model's own limit", where=where)
    return int(max_tokens or own or 0)


def _prompts(model: Any) -> Prompts:
    """The prompts that sentence-transformers' encode_query and encode_document would use."""
    known = {name: prompt or "" for name, prompt in model.prompts.items()}
    default = known.get(model.default_prompt_name or "", "")
    document = next((known[name] for name in _DOCUMENT_PROMPTS if name in known), default)
    return Prompts(query=known.get("query", default), document=document)


def _write_tokenizer(model: Any, folder: Path) -> None:
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "its tokenizer has no fast form", expected="one that can be saved as tokenizer.json", next_step=_USE_ANOTHER
        )
    backend.no_padding()
    backend.no_truncation()
    (folder / TOKENIZER_FILE).write_text(backend.to_str(), encoding="utf-8")


def _write_graph(model: Any, folder: Path, *, masked: bool) -> _Graph:
    """Write model.onnx, fused where the architecture is known; what was done is said, not assumed."""
    plain = folder / "plain.onnx"
    exporter = _trace(model, plain, masked=masked)
    architecture = str(getattr(model[0].auto_model.config, "model_type", "unknown"))
    fused: dict[str, int] = {}
    if architecture in _FUSABLE:
        from tiercel.models.runtime import fuse_graph

        with _quiet():
            fused = fuse_graph(plain, folder / GRAPH_FILE)
    if fused:
        plain.unlink()
        made = ", ".join(f"{count} {name}" for name, count in sorted(fused.items()))
        return _Graph(fused, f"{exporter} exporter, fused: {made}")
    plain.replace(folder / GRAPH_FILE)
    reason = "nothing was recognised" if architecture in _FUSABLE else f"unknown architecture {architecture}"
    return _Graph(fused, f"{exporter} exporter, plain graph: {reason}")


def _trace(model: Any, path: Path, *, masked: bool) -> str:
    """Write the graph with the exporter whose output can be fused, else with torch's newer one; the one that did."""
    import torch

    ids = torch.ones((2, 7), dtype=torch.long)
    arguments = (ids, torch.ones_like(ids)) if masked else (ids,)
    names = ["input_ids", MASK_INPUT] if masked else ["input_ids"]
    module = _graph_module(model)
    common = {"input_names": names, "output_names": [SENTENCE_OUTPUT, TOKEN_OUTPUT]}
    tokens = {0: "texts", 1: "tokens"}
    axes = dict.fromkeys([*names, TOKEN_OUTPUT], tokens) | {SENTENCE_OUTPUT: {0: "texts"}}
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                module, arguments, str(path), **common, dynamic_axes=axes, opset_version=_OPSET, dynamo=False
            )
        return "TorchScript"
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return _trace_with_dynamo(module, arguments, path, common)


def _trace_with_dynamo(module: Any, arguments: tuple[Any, ...], path: Path, common: Mapping[str, Any]) -> str:
    import torch

    dimensions = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                module,
                arguments,
                str(path),
                **common,
                dynamic_shapes=tuple(dimensions for _ in arguments),
                external_data=False,
                dynamo=True,
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"torch cannot write it as ONNX ({str(error).strip().partition(chr(10))[0]})",
            expected="an architecture that torch.onnx.export supports",
            next_step=_USE_ANOTHER,
        ) from error
    return "dynamo"


def _graph_module(model: Any) -> Any:
    """The model's modules as one torch module: input ids (and mask) in, unit vectors and token vectors out."""
    import torch

    class GraphModule(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stages = torch.nn.ModuleList(list(model))

        def forward(self, input_ids: Any, attention_mask: Any = None) -> tuple[Any, Any]:
            # Without a mask the attention adds none, and pooling takes every token.
            features = {"input_ids": input_ids}
            if attention_mask is not None:
                features["attention_mask"] = attention_mask
            features = self.stages[0](features)
            token_vectors = features[TOKEN_OUTPUT]
            for stage in self.stages[1:]:
                features = stage(features)
            return torch.nn.functional.normalize(features[SENTENCE_OUTPUT], dim=-1), token_vectors

    return GraphModule().eval()


def _quantize(folder: Path) -> None:
    from tiercel.models.runtime import quantize_graph

    wide = folder / "fp32.onnx"
    (folder / GRAPH_FILE).replace(wide)
    with _quiet():
        quantize_graph(wide, folder / GRAPH_FILE)
    wide.unlink()


def _torch_vectors(model: Any, texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float32]:
    """Shape (texts, dimension), float32, rows of norm 1: what sentence-transformers gives, without any prompt."""
    model.max_seq_length = max_tokens
    with _quiet():
        vectors: NDArray[np.float32] = model.encode(
            list(texts), prompt="", batch_size=8, normalize_embeddings=True, show_progress_bar=False
        )
    return vectors


def _onnx_vectors(folder: Path, texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float32]:
    """Shape (texts, dimension), float32, rows of norm 1: what the graph in `folder` gives, without any prompt."""
    from tiercel.models.runtime import Session

    session = Session(folder / GRAPH_FILE)
    tokens = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens).encode(texts)
    return np.stack([embed_one(session, ids) for ids in tokens.ids])


def _check_parity(parity: Parity, *, where: str) -> None:
    if not parity.worst <= PARITY_LIMIT:  # also when it is not a number
        raise ModelError(
            f"the ONNX graph differs from torch by {parity.worst:.2g} (cosine, {parity.texts} texts)",
            expected=f"at most {PARITY_LIMIT:g}",
            next_step=_USE_ANOTHER,
            where=where,
        )


def _describe(source: ModelSource, folder: Path, settings: _Settings) -> ModelDescription:
    probe = _onnx_vectors(folder, [_PROBE_TEXT], max_tokens=settings.max_tokens)[0]
    return ModelDescription(
        name=source.name,
        source=source.origin,
        precision=settings.precision,
        dimension=int(probe.size),
        max_tokens=settings.max_tokens,
        prompts=settings.prompts,
        fingerprint=compute_fingerprint(
            folder, precision=settings.precision, max_tokens=settings.max_tokens, prompts=settings.prompts
        ),
        parity=settings.parity,
        probe=Probe(text=_PROBE_TEXT, vector=tuple(round(float(value), 6) for value in probe)),
        graph=settings.graph,
        licence=_licence(source.folder),
    )


def _licence(folder: Path) -> str:
    """The `license` line of the model card's front matter; "" where there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    front_matter = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
    found = re.search(r"^license:\s*(\S+)", front_matter, flags=re.MULTILINE)
    return found[1] if found else ""
