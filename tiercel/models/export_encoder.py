"""What a sentence-transformers bi-encoder adds to an export: unit vectors out, cosines compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Backend, Precision
from tiercel.models.checkpoint import (
    check_kind,
    check_modules,
    check_pooling,
    load_with_torch,
    network,
    read_modules,
    read_prompts,
    torch_arguments,
)
from tiercel.models.description import HEAD_FILE, ModelSource, Probe, Prompts
from tiercel.models.export import ExportReport, FamilyExport, export_model, rounded
from tiercel.models.forms import Wanted, find_form
from tiercel.models.pair_head import read_head, write_head
from tiercel.models.parity import Parity, compare_vectors
from tiercel.models.quantize import Feeds
from tiercel.models.texts import (
    IDS_INPUT,
    MASK_INPUT,
    SENTENCE_OUTPUT,
    TOKEN_OUTPUT,
    Sides,
    TextNetwork,
    probe_vectors,
    read_sides,
)
from tiercel.models.tracing import TEXT_AXES, TorchGraph, quiet

_PROBE_TEXT = "A small falcon hunts in tiers: wide and cheap at first, then closer and more exact."


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
    `token_embeddings` of shape (texts, tokens, hidden): the last hidden states as they are. Where the folder has a
    Dense of sentence-transformers on `token_embeddings` behind its pooling, they have gone through that projection.
    """
    form = find_form(Wanted(precision, backend, provider=None))
    return export_model(
        EncoderExport(source.folder), source, target, form=form, max_tokens=max_tokens, progress=progress
    )


class EncoderExport(FamilyExport[NDArray[np.float32]]):
    """Exports one bi-encoder."""

    family = "encoder"
    unit = "texts"
    other_model = "Use another encoder, such as all-MiniLM-L6-v2"

    def check_source(self) -> None:
        """Refuse foreign code, pickled or damaged weights, and what sentence-transformers has not saved."""
        check_modules(self.source, read_modules(self.source), next_step=self.other_model)
        check_kind(self.source, "SentenceTransformer", next_step=f"Name its family with --family. {self.other_model}")

    def load(self) -> Any:
        """The SentenceTransformer of the folder."""

        def load() -> Any:
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(self.source), **torch_arguments())

        expected = "a sentence-transformers bi-encoder with safetensors weights"
        model = load_with_torch(load, expected=expected, next_step=self.other_model, where=self.source)
        check_pooling(model, next_step=self.other_model, where=self.source)
        return model

    def graph(self, model: Any, *, masked: bool) -> TorchGraph:
        """The model's modules as one: input ids (and mask) in, unit vectors and token vectors out."""
        return text_graph(model, model, {SENTENCE_OUTPUT: True, TOKEN_OUTPUT: False}, masked=masked)

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
        network = self._network(folder, max_tokens=max_tokens)

        def run() -> NDArray[np.float32]:
            results = network.run(self._measured(), [SENTENCE_OUTPUT], query=False)
            return np.stack([vector for result in results for (vector,) in result])

        return run

    def count(self) -> int:
        """The texts."""
        return len(self._measured())

    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """The texts that parity is measured on."""
        return self._network(folder, max_tokens=max_tokens).feeds(self._measured(), query=False)

    def _measured(self) -> Sequence[str]:
        """The texts and all of them in one, so that truncation is seen too."""
        return [*self.texts, " ".join(self.texts)]

    def _network(self, folder: Path, *, max_tokens: int) -> TextNetwork:
        return text_network(self, folder, read_sides(max_tokens, {}))

    def compare(self, reference: NDArray[np.float32], other: NDArray[np.float32]) -> Parity:
        """Cosines, similarities and neighbours."""
        return compare_vectors(reference, other)

    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """One text with its vector."""
        vectors = probe_vectors(self._network(folder, max_tokens=max_tokens), [_PROBE_TEXT])
        return Probe((_PROBE_TEXT,), rounded(vectors[0]))

    def dimension(self, probe: Probe) -> int:
        """Length of the probe's vector."""
        return len(probe.values)

    def copy(self, folder: Path) -> None:
        """A head over two vectors, where the encoder was trained with one."""
        if (self.source / HEAD_FILE).is_file():
            write_head(folder, read_head(self.source))

    def prompts(self, model: Any) -> Prompts:
        """The prompts that sentence-transformers' encode_query and encode_document would use."""
        return read_prompts(model)


def graph_module(stages: Iterable[Any], outputs: Mapping[str, bool]) -> Any:
    """Modules of sentence-transformers as one: input ids (and mask) in, the named features out, in that order.

    `outputs` says of each feature whether its vectors are to be made unit vectors.
    """
    import torch

    class Mean(torch.nn.Module):  # type: ignore[misc]
        """Pooling by the mean, as a product: onnxruntime adds the rows of several texts in another order than of one.

        A product it computes text by text, so that a text has the same bits in whatever run.
        """

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            tokens = features[TOKEN_OUTPUT]
            mask = features[MASK_INPUT] if MASK_INPUT in features else torch.ones(tokens.shape[:2])
            counted = mask.to(tokens.dtype)
            total = (counted.unsqueeze(1) @ tokens).squeeze(1)
            return {**features, SENTENCE_OUTPUT: total / counted.sum(dim=1, keepdim=True)}

    class GraphModule(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stages = torch.nn.ModuleList(
                [Mean() if getattr(stage, "pooling_mode", "") == "mean" else stage for stage in stages]
            )

        def forward(self, input_ids: Any, attention_mask: Any = None) -> tuple[Any, ...]:
            # Without a mask the attention adds none, and pooling takes every token.
            features = {IDS_INPUT: input_ids}
            if attention_mask is not None:
                features[MASK_INPUT] = attention_mask
            for stage in self.stages:
                features = stage(features)
            return tuple(
                torch.nn.functional.normalize(features[name], dim=-1) if is_unit else features[name]
                for name, is_unit in outputs.items()
            )

    return GraphModule().eval()


def text_network(export: FamilyExport[Any], folder: Path, sides: Sides) -> TextNetwork:
    """The graph and the tokenizer in `folder`, run as the export asks."""
    graph = export.open_graph(folder)
    return TextNetwork(folder, sides, graph, workers=export.workers, batch_tokens=export.batch_tokens)


def text_graph(model: Any, stages: Iterable[Any], outputs: Mapping[str, bool], *, masked: bool) -> TorchGraph:
    """What is traced of a loaded model of texts; `stages` and `outputs` as `graph_module` has them."""
    axes = {SENTENCE_OUTPUT: {0: "texts"}, TOKEN_OUTPUT: {0: "texts", 1: "tokens"}}
    return TorchGraph(
        module=graph_module(stages, outputs),
        inputs=dict.fromkeys([IDS_INPUT, MASK_INPUT] if masked else [IDS_INPUT], TEXT_AXES),
        outputs={name: axes[name] for name in outputs},
        architecture=str(getattr(network(model).config, "model_type", "unknown")),
    )


EXPORT = EncoderExport
