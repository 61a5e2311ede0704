"""What a Uni-Encoder adds to an export: a context and its candidates in, a score of each out, rankings compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError
from tiercel.models.batching import GPU_BATCH_TOKENS
from tiercel.models.description import TOKENIZER_FILE, ModelSource, Probe
from tiercel.models.export import ExportReport, FamilyExport, export_model, rounded
from tiercel.models.forms import Wanted, find_form
from tiercel.models.pairs import SCORE_OUTPUT
from tiercel.models.parity import Parity, compare_scores
from tiercel.models.quantize import Feeds
from tiercel.models.sessions import LoadedGraph
from tiercel.models.tokenize import load_tokenizer
from tiercel.models.torch_session import TorchSession
from tiercel.models.tracing import TorchGraph
from tiercel.models.uni_checkpoint import UniCheckpoint, check_uni_encoder, load_uni_encoder, read_uni_settings
from tiercel.models.uni_inputs import UniTokenizer
from tiercel.models.uni_scores import (
    CANDIDATES_INPUT,
    CANDIDATES_MASK_INPUT,
    CONTEXT_INPUT,
    CPU_PASS_TOKENS,
    UniGroup,
    pass_feeds,
    plan_passes,
    score_groups,
)

# Every so many of the bundled texts begins a context of the next few, as turns.
_CONTEXT_STEP, _TURNS = 12, 4

_PROBE_DOCUMENTS = 4


def export(
    source: ModelSource,
    target: Path,
    *,
    precision: Precision,
    backend: Backend | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write the Uni-Encoder of `source` as an exported model into the new folder `target`; see `export_model`.

    The graph reads one context, `context_ids` of shape (tokens,), and its candidates, `candidate_ids` and
    `candidate_mask` of shape (candidates, tokens), padded behind; it gives `score`, float32 of shape (candidates,).
    """
    form = find_form(Wanted(precision, backend, provider=None))
    return export_model(UniEncoderExport(source.folder), source, target, form=form, progress=progress)


class UniEncoderExport(FamilyExport[NDArray[np.float32]]):
    """Exports one Uni-Encoder, from a folder that `save_uni_encoder` wrote."""

    family = "uni-encoder"
    unit = "candidates"
    other_model = "Use a folder of a trained Uni-Encoder, saved with safetensors"

    def check_source(self) -> None:
        """Refuse what was not saved as a Uni-Encoder: a network with an untrained head would score at random."""
        check_uni_encoder(self.source)
        self._settings = read_uni_settings(self.source)

    def load(self) -> UniCheckpoint:
        """The network with its tokenizer and settings."""
        return load_uni_encoder(self.source)

    def network(self, model: UniCheckpoint) -> Any:
        """Its BERT."""
        return model.network.body

    def declared_limit(self, model: UniCheckpoint) -> int:
        """Both windows together."""
        return model.settings.context_tokens + model.settings.candidate_tokens

    def check_packable(self) -> None:
        """Refuse fp16: the packed kernels know no attention but BERT's own."""
        raise ModelError("a Uni-Encoder has no fp16 form", expected="fp32, or int8 on the CPU", where=str(self.source))

    def graph(self, model: UniCheckpoint, *, masked: bool) -> TorchGraph:
        """One context and its candidates in, scores out; the candidates have a mask in every precision."""
        axes = ("candidates", "tokens")
        inputs = {CONTEXT_INPUT: ("context",), CANDIDATES_INPUT: axes, CANDIDATES_MASK_INPUT: axes}
        return TorchGraph(_graph_module(model.network), inputs, {SCORE_OUTPUT: {0: "candidates"}}, "bert")

    def torch_values(self, model: UniCheckpoint, *, max_tokens: int) -> NDArray[np.float32]:
        """Shape (contexts, candidates), float32: what the network gives for the same tokens."""
        graph = TorchSession(self.graph(model, masked=True), device="cpu")
        tokenizer = UniTokenizer(model.tokenizer.backend_tokenizer, self._settings)
        return self._scores(graph, self._groups(tokenizer))

    def runner(self, folder: Path, *, max_tokens: int) -> Callable[[], NDArray[np.float32]]:
        """Gives shape (contexts, candidates), float32."""
        graph, tokenizer = self.open_graph(folder), self._tokenizer(folder)
        return lambda: self._scores(graph, self._groups(tokenizer))

    def count(self) -> int:
        """The candidates of all contexts."""
        return len(self._contexts()) * len(self._candidates())

    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """Every context with the candidates of a pass."""
        return [
            pass_feeds(group.context, [group.candidates[place] for place in one.read])
            for group in self._groups(self._tokenizer(folder))
            for one in plan_passes([ids.size for ids in group.candidates], self._settings, pass_tokens=CPU_PASS_TOKENS)
        ]

    def compare(self, reference: NDArray[np.float32], other: NDArray[np.float32]) -> Parity:
        """Scores, order and the best ten."""
        return compare_scores(reference, other)

    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """A context of one turn and candidates with the score of each."""
        turn, texts = self.texts[0], self._candidates()[:_PROBE_DOCUMENTS]
        tokenizer = self._tokenizer(folder)
        group = UniGroup(tokenizer.context([turn]).ids, tokenizer.candidates(texts).ids)
        return Probe((turn, *texts), rounded(self._scores(self.open_graph(folder), [group])[0]))

    def extra(self, model: UniCheckpoint) -> dict[str, Any]:
        """How it reads: mask, group size and windows."""
        return dataclasses.asdict(model.settings)

    def _scores(self, graph: LoadedGraph, groups: list[UniGroup]) -> NDArray[np.float32]:
        pass_tokens = CPU_PASS_TOKENS if self.form.provider == "cpu" else GPU_BATCH_TOKENS
        scored = score_groups(graph, groups, self._settings, pass_tokens=pass_tokens, workers=self.workers)
        return np.stack(scored.logits)

    def _tokenizer(self, folder: Path) -> UniTokenizer:
        return UniTokenizer(load_tokenizer(folder / TOKENIZER_FILE), self._settings)

    def _groups(self, tokenizer: UniTokenizer) -> list[UniGroup]:
        candidates = tokenizer.candidates(self._candidates()).ids
        return [UniGroup(tokenizer.context(turns).ids, candidates) for turns in self._contexts()]

    def _contexts(self) -> list[list[str]]:
        """Some turns each, and all texts as turns of one, so that a context is cut too."""
        starts = range(0, len(self.texts), _CONTEXT_STEP)
        return [*(self.texts[start : start + _TURNS] for start in starts), list(self.texts)]

    def _candidates(self) -> list[str]:
        """Texts alone, and all of them in one, so that a candidate is cut too."""
        return [*self.texts[1::3], " ".join(self.texts)]


def _graph_module(network: Any) -> Any:
    import torch

    class GraphModule(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, context: Any, candidates: Any, mask: Any) -> Any:
            return self.network(context[None], candidates[None], None, mask[None])[0]

    return GraphModule().eval()


EXPORT = UniEncoderExport
