"""What a sentence-transformers bi-encoder adds to an export: unit vectors out, cosines compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError
from tiercel.models.checkpoint import (
    check_kind,
    check_modules,
    load_with_torch,
    network,
    read_modules,
    torch_arguments,
)
from tiercel.models.description import TOKENIZER_FILE, ModelSource, Probe, Prompts
from tiercel.models.encoder import MASK_INPUT, SENTENCE_OUTPUT, embed_texts, text_feeds
from tiercel.models.export import ExportReport, FamilyExport, export_model, rounded
from tiercel.models.forms import Wanted, find_form
from tiercel.models.parity import Parity, compare_vectors
from tiercel.models.quantize import Feeds
from tiercel.models.tokenize import Tokenizer
from tiercel.models.tracing import TorchGraph, quiet

TOKEN_OUTPUT = "token_embeddings"

_PROBE_TEXT = "A small falcon hunts in tiers: wide and cheap at first, then closer and more exact."

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def export(
    source: ModelSource,
    target: Path,
    *,
    precision: Precision,
    backend: Backend | None = None,
    max_tokens: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write the bi-encoder of `source` as an exported model into the new folder `target`; see `export_model`.

    The graph gives `sentence_embedding`, float32 of shape (texts, dimension), rows of L2 norm 1, and
    `token_embeddings` of shape (texts, tokens, hidden).
    """
    form = find_form(Wanted(precision, backend, provider=None))
    return export_model(
        EncoderExport(source.folder), source, target, form=form, max_tokens=max_tokens, progress=progress
    )


class EncoderExport(FamilyExport):
    """Exports one bi-encoder."""

    family = "encoder"
    unit = "texts"
    other_model = "Use another encoder, such as all-MiniLM-L6-v2"

    def check_source(self) -> None:
        """Refuse foreign code, pickled or damaged weights, and what sentence-transformers has not saved."""
        check_modules(self.source, read_modules(self.source), next_step=self.other_model)
        check_kind(self.source, "SentenceTransformer", next_step=self.other_model)

    def load(self) -> Any:
        """The SentenceTransformer of the folder."""

        def load() -> Any:
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(self.source), **torch_arguments())

        expected = "a sentence-transformers bi-encoder with safetensors weights"
        model = load_with_torch(load, expected=expected, next_step=self.other_model, where=self.source)
        if any(getattr(module, "include_prompt", True) is False for module in model):
            raise ModelError(
                "its pooling leaves the prompt out",
                expected="pooling over all tokens",
                next_step=self.other_model,
                where=str(self.source),
            )
        return model

    def graph(self, model: Any, *, masked: bool) -> TorchGraph:
        """The model's modules as one: input ids (and mask) in, unit vectors and token vectors out."""
        return TorchGraph(
            module=_graph_module(model),
            inputs=["input_ids", MASK_INPUT] if masked else ["input_ids"],
            outputs={SENTENCE_OUTPUT: {0: "texts"}, TOKEN_OUTPUT: {0: "texts", 1: "tokens"}},
            architecture=str(getattr(network(model).config, "model_type", "unknown")),
        )

    def torch_values(self, model: Any, *, max_tokens: int) -> NDArray[np.float32]:
        """Shape (texts, dimension), float32, rows of norm 1: what sentence-transformers gives, without any prompt."""
        model.max_seq_length = max_tokens
        with quiet():
            vectors: NDArray[np.float32] = model.encode(
                self._measured(),
                prompt="",
                batch_size=self.torch_batch,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return vectors

    def runner(self, folder: Path, *, max_tokens: int) -> Callable[[], NDArray[np.float32]]:
        """Gives shape (texts, dimension), float32, rows of norm 1, without any prompt."""
        return self._runner(folder, self._measured(), max_tokens=max_tokens)

    def count(self) -> int:
        """The texts."""
        return len(self._measured())

    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """The texts that parity is measured on."""
        graph = self.open_graph(folder)
        tokens = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens).encode(self._measured())
        return [text_feeds(graph, ids) for ids in tokens.ids]

    def _measured(self) -> list[str]:
        """The texts and all of them in one, so that truncation is seen too."""
        return [*self.texts, " ".join(self.texts)]

    def _runner(self, folder: Path, texts: Sequence[str], *, max_tokens: int) -> Callable[[], NDArray[np.float32]]:
        graph = self.open_graph(folder)
        tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens)
        return lambda: embed_texts(
            graph, tokenizer.encode(texts).ids, batch_tokens=self.batch_tokens, workers=self.workers
        )

    def compare(self, reference: NDArray[np.float32], other: NDArray[np.float32]) -> Parity:
        """Cosines, similarities and neighbours."""
        return compare_vectors(reference, other)

    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """One text with its vector."""
        return Probe((_PROBE_TEXT,), rounded(self._runner(folder, [_PROBE_TEXT], max_tokens=max_tokens)()[0]))

    def dimension(self, probe: Probe) -> int:
        """Length of the probe's vector."""
        return len(probe.values)

    def prompts(self, model: Any) -> Prompts:
        """The prompts that sentence-transformers' encode_query and encode_document would use."""
        known = {name: prompt or "" for name, prompt in model.prompts.items()}
        default = known.get(model.default_prompt_name or "", "")
        document = next((known[name] for name in _DOCUMENT_PROMPTS if name in known), default)
        return Prompts(query=known.get("query", default), document=document)


def _graph_module(model: Any) -> Any:
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


EXPORT = EncoderExport
