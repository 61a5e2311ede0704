"""Local attention over long documents, TKL: kernels and regions learnt over chunks of a transformer's first layers.

The encoder begins as the word embeddings and the first layers of a trained one, its vectors projected onto their
principal directions. With a frozen encoder each text is read once, and what is trained is the projection and the head.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.errors import ModelError, UsageError
from tiercel.models.batching import plan_batches
from tiercel.models.checkpoint import check_vocabulary, check_weights, load_with_torch, read_modules
from tiercel.models.local_attention import Geometry, is_local
from tiercel.models.local_checkpoint import frame_of, load_local, save_local
from tiercel.models.local_network import LocalNetwork
from tiercel.models.tracing import quiet
from tiercel.training.batches import Batch, TrainingGroup, all_texts, objective_of
from tiercel.training.held_tokens import HeldTokens
from tiercel.training.late_interaction import principal_directions
from tiercel.training.precision import autocast, exactly
from tiercel.training.settings import LocalSettings

Tensor: TypeAlias = Any

_SLAB_TOKENS = 16_384
"""Tokens of documents that are compared at a time: some 150 MB of activations, for 20 terms of a query."""

_TEXTS_AT_ONCE = 32


class LocalStudent:
    """A local-attention model in training, from one that was trained before or from a folder of another encoder.

    Raises ModelError for what cannot be loaded, and UsageError for settings that do not fit it.
    """

    def __init__(
        self,
        folder: Path,
        settings: LocalSettings,
        groups: Sequence[TrainingGroup],
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._settings = settings
        self._objective = objective_of(settings)
        with quiet():
            self._model, self._tokenizer = _loaded(folder, settings)
        self._model.to(settings.device)
        if not is_local(folder):
            self._begin_projection(groups)
        self.module = self._model
        if not settings.frozen:
            return
        self.module = torch.nn.ModuleDict({"projection": self._model.encoder.projection, "head": self._model.head})
        width = self._model.encoder.network.config.hidden_size
        self._held = {side: HeldTokens(partial(self._read, query=side), width, say=say) for side in (True, False)}
        self._held[True].add([group.mined.query.text for group in groups])
        self._held[False].add([group.texts[d.id] for group in groups for d in group.mined.documents])

    def pace(self, name: str) -> float:
        """The head's few numbers learn faster than the encoder's many."""
        return self._settings.head_rate if name.startswith("head.") else 1.0

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest document of each group."""
        longest = [max((group.texts[d.id] for d in group.mined.documents), key=len) for group in groups]
        return [len(ids) for ids in self._ids(longest, query=False)]

    def scores(self, batch: Batch) -> Tensor:
        """The scores of the regions, scaled."""
        queries, terms = self._vectors(batch.queries, query=True)
        mask = torch.arange(queries.shape[1], device=queries.device)[None, :] < terms[:, None]
        texts = [text for row in batch.documents for text in row]
        owners, found = batch.owners, torch.zeros(batch.pairs, device=queries.device)
        sizes = [len(ids) for ids in self._ids(texts, query=False)]
        for places in plan_batches(sizes, max_batch_tokens=_SLAB_TOKENS):
            documents, lengths = self._vectors([texts[place] for place in places], query=False)
            asked = owners[places]
            with exactly(self._settings.device):
                scores = self._model.head(queries[asked], mask[asked], documents, lengths).scores
            found = found.index_put((torch.tensor(places, device=found.device),), scores)
        return batch.place(found * self._settings.scale)

    def loss(self, batch: Batch) -> Tensor:
        """The mixed loss over each group."""
        return self._objective.loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)

    def save(self, folder: Path) -> None:
        """A folder that `tiercel export` takes."""
        with quiet():
            save_local(self._model, self._tokenizer, folder)

    def _vectors(self, texts: Sequence[str], *, query: bool) -> tuple[Tensor, Tensor]:
        """Unit vectors of texts, shape (texts, most tokens, dimension), and how many tokens each has."""
        if self._settings.frozen:
            mixed, mask = (tensor.to(self._settings.device) for tensor in self._held[query].padded(texts))
            lengths = mask.sum(dim=1)
        else:
            mixed, lengths = self._mixed(texts, query=query)
        with exactly(self._settings.device):
            return self._model.project(mixed.float(), lengths), lengths

    def _mixed(self, texts: Sequence[str], *, query: bool) -> tuple[Tensor, Tensor]:
        ids = self._ids(texts, query=query)
        return self._model.mixed_of_queries(ids) if query else self._model.mixed_of_documents(ids)

    def _read(self, texts: Sequence[str], *, query: bool) -> list[Tensor]:
        """Mixed vectors of each text, shape (tokens, width)."""
        self._model.eval()
        found = []
        with torch.no_grad(), autocast(self._settings):
            for text in texts:
                mixed, lengths = self._mixed([text], query=query)
                found.append(mixed[0, : int(lengths[0])].float())
        return found

    def _ids(self, texts: Sequence[str], *, query: bool) -> list[list[int]]:
        limit = self._model.geometry.query if query else self._settings.max_tokens
        given = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [ids[:limit] for ids in given]

    def _begin_projection(self, groups: Sequence[TrainingGroup]) -> None:
        projection, settings = self._model.encoder.projection, self._settings
        texts = list(all_texts(groups))
        chosen = random.Random(settings.seed).sample(texts, min(len(texts), settings.pca_texts))
        vectors = torch.cat([rows[:_PCA_TOKENS].cpu() for rows in self._read(chosen, query=False)])
        projection.weight.data.copy_(principal_directions(vectors, settings.dimension))


_PCA_TOKENS = 200


def _loaded(folder: Path, settings: LocalSettings) -> tuple[LocalNetwork, Any]:
    if is_local(folder):
        model, tokenizer = load_local(folder)
        if model.encoder.dimension != settings.dimension:
            raise UsageError(f"dimension = {settings.dimension}", expected=f"{model.encoder.dimension}, as it has")
        return model, tokenizer
    place = read_modules(folder)[0][1] if (folder / "modules.json").is_file() else folder
    check_weights(place)
    check_vocabulary(folder)
    expected, next_step = "a transformer with its tokenizer", "Name the folder of another encoder"
    network = load_with_torch(
        lambda: _first_layers(place, settings), expected=expected, next_step=next_step, where=folder
    )
    width = network.config.hidden_size
    if settings.dimension > width:
        raise UsageError(f"dimension = {settings.dimension}", expected=f"at most {width}, the encoder's hidden size")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
    geometry = Geometry(floor=settings.floor)
    model = LocalNetwork(network, geometry, frame_of(tokenizer), settings.dimension)
    torch.nn.init.constant_(model.encoder.mixer, settings.mixer)
    return model, tokenizer


_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def _first_layers(folder: Path, settings: LocalSettings) -> Any:
    """The transformer of a folder with its first layers alone, or with such as are drawn."""
    from transformers import AutoModel

    network = AutoModel.from_pretrained(
        str(folder), **_LOCAL, use_safetensors=True, dtype=torch.float32, attn_implementation="eager"
    )
    stack = max((m for m in network.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    if settings.layers > len(stack):
        raise ModelError(f"it has {len(stack)} layers", expected=f"at least {settings.layers}", where=str(folder))
    del stack[settings.layers :]
    network.config.num_hidden_layers = settings.layers
    if not settings.fresh:
        return network
    drawn = AutoModel.from_config(network.config, attn_implementation="eager")
    drawn.set_input_embeddings(network.get_input_embeddings())
    return drawn
