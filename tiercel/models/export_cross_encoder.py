"""What a cross-encoder adds to an export: one score per pair out, rankings compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError
from tiercel.models.checkpoint import (
    check_complete,
    check_has_weights,
    check_kind,
    check_modules,
    check_vocabulary,
    load_with_torch,
    network,
    read_architecture,
    read_modules,
    torch_arguments,
)
from tiercel.models.description import TOKENIZER_FILE, ModelSource, Probe
from tiercel.models.export import ExportReport, FamilyExport, export_model, rounded
from tiercel.models.forms import Wanted, find_form
from tiercel.models.pairs import SCORE_OUTPUT, TYPES_INPUT, pair_feeds, score_pairs
from tiercel.models.parity import Parity, compare_scores
from tiercel.models.quantize import Feeds
from tiercel.models.texts import MASK_INPUT
from tiercel.models.tokenize import PairTokenizer
from tiercel.models.tracing import TEXT_AXES, TorchGraph, quiet

_HEAD = "ForSequenceClassification"

# Every so many of the bundled texts is a query of the pairs that parity is measured on.
_QUERY_STEP = 10

_PROBE_DOCUMENTS = 4


def export(
    source: ModelSource,
    target: Path,
    *,
    precision: Precision,
    backend: Backend | None = None,
    max_tokens: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write the cross-encoder of `source` as an exported model into the new folder `target`; see `export_model`.

    The graph gives `score`, float32 of shape (pairs,): the logit of a model with one label; of one with two, the
    second logit less the first, which orders documents as the probability of the second label does.
    """
    form = find_form(Wanted(precision, backend, provider=None))
    return export_model(
        CrossEncoderExport(source.folder), source, target, form=form, max_tokens=max_tokens, progress=progress
    )


class CrossEncoderExport(FamilyExport[NDArray[np.float32]]):
    """Exports one cross-encoder, from a folder of sentence-transformers or of transformers alone."""

    family = "cross-encoder"
    unit = "pairs"
    other_model = "Use another cross-encoder, of one label and saved with safetensors"

    def check_source(self) -> None:
        """Refuse foreign code, weights that are pickled, damaged or missing, and models that do not classify pairs."""
        if (self.source / "modules.json").is_file():
            check_modules(self.source, read_modules(self.source), next_step=self.other_model)
        check_kind(self.source, "CrossEncoder", next_step=self.other_model)
        architecture = read_architecture(self.source, expected="a folder of a cross-encoder")
        check_vocabulary(self.source)
        if not architecture.endswith(_HEAD):
            raise ModelError(
                f"its architecture is {architecture}, without a head that scores pairs",
                expected=f"one that ends with {_HEAD}",
                next_step=self.other_model,
                where=str(self.source),
            )
        check_has_weights(self.source)

    def load(self) -> Any:
        """The CrossEncoder of the folder."""
        expected = "a cross-encoder with safetensors weights"
        model = load_with_torch(self._load, expected=expected, next_step=self.other_model, where=self.source)
        labels = int(network(model).config.num_labels)
        if labels not in (1, 2):
            raise ModelError(
                f"it has {labels} labels",
                expected="one, or two of which the second means relevant",
                next_step=self.other_model,
                where=str(self.source),
            )
        if model.default_prompt_name is not None:
            raise ModelError(
                f"it puts a prompt before its pairs ({model.default_prompt_name})",
                expected="a cross-encoder without prompts",
                next_step=self.other_model,
                where=str(self.source),
            )
        return model

    def _load(self) -> Any:
        from sentence_transformers import CrossEncoder

        expected = "all weights of a trained cross-encoder"
        check_complete(self.source, "AutoModelForSequenceClassification", expected=expected)
        return CrossEncoder(str(self.source), **torch_arguments())

    def graph(self, model: Any, *, masked: bool) -> TorchGraph:
        """The model's modules as one: input ids (and mask, and token types where the model has such) in, scores out."""
        names = ["input_ids"]
        if masked:
            names.append(MASK_INPUT)
        if _has_types(model):
            names.append(TYPES_INPUT)
        architecture = str(getattr(network(model).config, "model_type", "unknown"))
        inputs = dict.fromkeys(names, TEXT_AXES)
        return TorchGraph(_graph_module(model, names), inputs, {SCORE_OUTPUT: {0: "texts"}}, architecture)

    def torch_values(self, model: Any, *, max_tokens: int) -> NDArray[np.float32]:
        """Shape (queries, documents), float32: what sentence-transformers gives."""
        import torch

        model.max_seq_length = max_tokens
        # sentence-transformers cuts the longer text of a pair: queries this short stay whole, as they do here.
        self._queries = [_shortened(model, text, max_tokens // 4) for text in self.texts[::_QUERY_STEP]]
        documents = self._documents()
        pairs = [(query, document) for query in self._queries for document in documents]
        with quiet():
            logits = model.predict(
                pairs, activation_fn=torch.nn.Identity(), batch_size=self.torch_batch, show_progress_bar=False
            )
        scores: NDArray[np.float32] = logits[:, 1] - logits[:, 0] if logits.ndim == 2 else logits
        return scores.reshape(len(self._queries), len(documents))

    def runner(self, folder: Path, *, max_tokens: int) -> Callable[[], NDArray[np.float32]]:
        """Gives shape (queries, documents), float32."""
        return self._runner(folder, self._queries, self._documents(), max_tokens=max_tokens)

    def count(self) -> int:
        """The pairs."""
        return len(self._queries) * len(self._documents())

    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """Every query with some of the documents, each document once."""
        graph = self.open_graph(folder)
        tokenizer = PairTokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens)
        documents = self._documents()
        batches = [
            tokenizer.encode(query, documents[number :: len(self._queries)])
            for number, query in enumerate(self._queries)
        ]
        return [pair_feeds(graph, [pair]) for batch in batches for pair in batch.pairs]

    def _documents(self) -> list[str]:
        """Texts alone, some of them joined, and all of them in one, so that truncation is seen too."""
        texts = self.texts
        joined = [" ".join(texts[i : i + 2 + i % 5]) for i in range(0, len(texts), 6)]
        return [*texts[1::3], *joined, " ".join(texts)]

    def _runner(
        self, folder: Path, queries: Sequence[str], documents: Sequence[str], *, max_tokens: int
    ) -> Callable[[], NDArray[np.float32]]:
        graph = self.open_graph(folder)
        tokenizer = PairTokenizer(folder / TOKENIZER_FILE, max_tokens=max_tokens)

        def run() -> NDArray[np.float32]:
            pairs = [pair for query in queries for pair in tokenizer.encode(query, documents).pairs]
            scores = score_pairs(graph, pairs, batch_tokens=self.batch_tokens, workers=self.workers)
            return scores.reshape(len(queries), len(documents))

        return run

    def compare(self, reference: NDArray[np.float32], other: NDArray[np.float32]) -> Parity:
        """Scores, order and the best ten."""
        return compare_scores(reference, other)

    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """A query and documents with the score of each."""
        query, documents = self._queries[0], self._documents()[-_PROBE_DOCUMENTS - 1 : -1]
        scores = self._runner(folder, [query], documents, max_tokens=max_tokens)()
        return Probe((query, *documents), rounded(scores[0]))

    def extra(self, model: Any) -> dict[str, Any]:
        """How many labels the score is made of."""
        return {"labels": int(network(model).config.num_labels)}


def _shortened(model: Any, text: str, tokens: int) -> str:
    while len(model.tokenizer.tokenize(text)) > tokens:
        text = text[: len(text) * 3 // 4]
    return text


def _has_types(model: Any) -> bool:
    """Whether the tokenizer gives token types and the network tells them apart."""
    types = int(getattr(network(model).config, "type_vocab_size", 0) or 0)
    return types > 1 and TYPES_INPUT in model.tokenizer.model_input_names


def _graph_module(model: Any, names: Sequence[str]) -> Any:
    import torch

    class GraphModule(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stages = torch.nn.ModuleList(list(model))

        def forward(self, first: Any, second: Any = None, third: Any = None) -> Any:
            given = [array for array in (first, second, third) if array is not None]
            features = dict(zip(names, given, strict=True))
            for stage in self.stages:
                features = stage(features)
            logits = features["scores"]
            return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]

    return GraphModule().eval()


EXPORT = CrossEncoderExport
