"""What a local-attention model adds to an export: its chunk encoder as a graph, its head as numbers beside it.

The graph reads a chunk of a document, or a query, between special tokens, and gives a vector of each token. Dividing
documents, kernels and regions are no part of it: they depend on the data, and need no network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError
from tiercel.models.checkpoint import check_has_weights, check_vocabulary, load_with_torch
from tiercel.models.description import ModelSource, Probe
from tiercel.models.export import ExportReport, FamilyExport, export_model, rounded
from tiercel.models.export_encoder import text_network
from tiercel.models.forms import Wanted, find_form
from tiercel.models.local_attention import is_local
from tiercel.models.parity import EncodedTexts, Parity, compare_tokens
from tiercel.models.quantize import Feeds
from tiercel.models.texts import IDS_INPUT, MASK_INPUT, TOKEN_OUTPUT, TextNetwork, probe_vectors, read_sides
from tiercel.models.tracing import TEXT_AXES, TorchGraph, quiet

MAX_TOKENS = 100_000
"""Most tokens of a document where nothing else is said: some 300 pages, and 50 MB of vectors of 128 dimensions."""

# Every so many of the bundled texts is a query of the scores that parity is measured on.
_QUERY_STEP = 6


def export(
    source: ModelSource,
    target: Path,
    *,
    precision: Precision,
    backend: Backend | None = None,
    max_tokens: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write the local-attention model of `source` as an exported one into the new folder `target`; see `export_model`.

    The graph gives `token_embeddings`, float32 of shape (chunks, tokens, dimension), rows of L2 norm 1. `max_tokens`
    cuts documents, by default to 100,000; queries keep the model's own length.
    """
    form = find_form(Wanted(precision, backend, provider=None))
    return export_model(
        LocalAttentionExport(source.folder), source, target, form=form, max_tokens=max_tokens, progress=progress
    )


class _Loaded(NamedTuple):
    """What is exported."""

    local: Any
    tokenizer: Any


class LocalAttentionExport(FamilyExport[EncodedTexts]):
    """Exports one local-attention model."""

    family = "local-attention"
    unit = "texts"
    other_model = "Name a folder that `tiercel train local` has written"

    def check_source(self) -> None:
        """Refuse folders of other models, and weights that are pickled, damaged or missing."""
        if not is_local(self.source):
            raise ModelError(
                "it is no local-attention model",
                expected="a folder as `tiercel train local` writes it",
                next_step=self.other_model,
                where=str(self.source),
            )
        check_has_weights(self.source)
        check_vocabulary(self.source)

    def load(self) -> _Loaded:
        """The network and its tokenizer."""

        def load() -> Any:
            from tiercel.models.local_checkpoint import load_local

            model, self._tokenizer = load_local(self.source)
            return model

        expected = "a local-attention model with safetensors weights"
        local = load_with_torch(load, expected=expected, next_step=self.other_model, where=self.source)
        frame = [len(local.frame.before), len(local.frame.after)]
        self._extra: dict[str, Any] = {
            "frame": frame,
            "query": {"max_tokens": local.geometry.query + sum(frame)},
            "geometry": dataclasses.asdict(local.geometry),
            "head": local.head.weights().as_json(),
        }
        return _Loaded(local, self._tokenizer)

    def network(self, model: _Loaded) -> Any:
        """The transformer of its encoder."""
        return model.local.encoder.network

    def limit(self, model: Any, max_tokens: int | None) -> int:
        """Any: documents are read chunk by chunk."""
        return MAX_TOKENS if max_tokens is None else max_tokens

    def check_packable(self) -> None:
        """Refuse: its attention is not known to fit the packed graph."""
        raise ModelError(
            "local attention in fp16",
            expected="precision fp32 on a GPU",
            next_step="Export it with --precision fp32",
            where=str(self.source),
        )

    def graph(self, model: _Loaded, *, masked: bool) -> TorchGraph:
        """The chunk encoder: input ids (and mask) in, unit vectors of tokens out."""
        return TorchGraph(
            module=model.local.encoder.eval(),
            inputs=dict.fromkeys([IDS_INPUT, MASK_INPUT] if masked else [IDS_INPUT], TEXT_AXES),
            outputs={TOKEN_OUTPUT: {0: "texts", 1: "tokens"}},
            architecture=str(getattr(self.network(model).config, "model_type", "unknown")),
        )

    def torch_values(self, model: _Loaded, *, max_tokens: int) -> EncodedTexts:
        """What the network gives, each text on its own."""
        import torch

        queries, documents = self._measured()
        room = max_tokens - sum(self._extra["frame"])
        local, tokenizer = model.local, model.tokenizer
        with quiet(), torch.no_grad():
            return EncodedTexts(
                [self._vectors(local.vectors_of_queries, tokenizer, text, room) for text in queries],
                [self._vectors(local.vectors_of_documents, tokenizer, text, room) for text in documents],
            )

    def _vectors(self, encode: Any, tokenizer: Any, text: str, room: int) -> NDArray[np.float32]:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:room]
        vectors: NDArray[np.float32] = encode([ids])[0][0].numpy()
        return vectors

    def runner(self, folder: Path, *, max_tokens: int) -> Callable[[], EncodedTexts]:
        """Gives what the graph gives for the same texts."""
        network = self._network(folder, max_tokens)

        def side(texts: Sequence[str], *, query: bool) -> list[NDArray[np.float32]]:
            return [tokens for slab in network.run(texts, [TOKEN_OUTPUT], query=query) for (tokens,) in slab]

        def run() -> EncodedTexts:
            queries, documents = self._measured()
            return EncodedTexts(side(queries, query=True), side(documents, query=False))

        return run

    def count(self) -> int:
        """Queries and documents."""
        return sum(map(len, self._measured()))

    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """The chunks of the texts that parity is measured on, and the queries."""
        network = self._network(folder, max_tokens)
        queries, documents = self._measured()
        return [*network.feeds(queries, query=True), *network.feeds(documents, query=False)]

    def _measured(self) -> tuple[Sequence[str], Sequence[str]]:
        """Queries and documents: texts, and all of them in one, which has many chunks."""
        return self.texts[::_QUERY_STEP], [*self.texts, " ".join(self.texts)]

    def compare(self, reference: EncodedTexts, other: EncodedTexts) -> Parity:
        """Vectors of tokens, and MaxSim over them: the head has no numbers of its own in the graph."""
        return compare_tokens(reference, other)

    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """A query and a document of several chunks with the mean of their tokens' vectors."""
        queries, documents = self._measured()
        texts = (queries[0], documents[-1])
        return Probe(texts, rounded(probe_vectors(self._network(folder, max_tokens), texts).ravel()))

    def dimension(self, probe: Probe) -> int:
        """Length of a token's vector."""
        return len(probe.values) // len(probe.texts)

    def extra(self, model: Any) -> dict[str, Any]:
        """How texts are divided, and every number of the head."""
        return self._extra

    def _network(self, folder: Path, max_tokens: int) -> TextNetwork:
        return text_network(self, folder, read_sides(max_tokens, self._extra))


EXPORT = LocalAttentionExport
