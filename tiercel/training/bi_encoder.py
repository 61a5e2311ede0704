"""Bi-encoders: one vector for each text, trained against mined negatives, those of the batch, and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.models.tracing import quiet
from tiercel.training.batches import Batch, TrainingGroup, objective_of
from tiercel.training.precision import exactly
from tiercel.training.settings import BiSettings
from tiercel.training.sources import features_of, load_encoder, window

Tensor: TypeAlias = Any

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class Vectors:
    """The vectors of a SentenceTransformer while it is trained: rows of norm 1, with its own prompts."""

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        self.model = load_encoder(folder)
        self.window = window(self.model, max_tokens)
        known = {name: prompt or "" for name, prompt in self.model.prompts.items()}
        default = known.get(self.model.default_prompt_name or "", "")
        self.query_prompt = known.get("query", default)
        self.document_prompt = next((known[name] for name in _DOCUMENT_PROMPTS if name in known), default)

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest document of each group, as the tokenizer counts them."""
        longest = [max((g.texts[d.id] for d in g.mined.documents), key=len) for g in groups]
        return [min(len(ids), self.window) for ids in self.model.tokenizer(longest, verbose=False)["input_ids"]]

    def pass_over(self, texts: Sequence[str], *, query: bool, device: str) -> dict[str, Any]:
        """All features that the model's modules give for texts: sentence_embedding, token_embeddings, their mask."""
        prompt = self.query_prompt if query else self.document_prompt
        features = features_of(self.model, texts, prompt=prompt, max_tokens=self.window, device=device)
        given: dict[str, Any] = self.model(features)
        return given

    def encode(self, texts: Sequence[str], *, query: bool, device: str) -> Tensor:
        """Shape (texts, dimension), rows of norm 1."""
        vectors = self.pass_over(texts, query=query, device=device)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    def of_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Those of the queries, shape (groups, dimension), and of their documents, shape (pairs, dimension)."""
        documents = [document for row in batch.documents for document in row]
        device = batch.mask.device.type
        return self.encode(batch.queries, query=True, device=device), self.encode(documents, query=False, device=device)

    def save(self, folder: Path) -> None:
        """As sentence-transformers saves it."""
        with quiet():
            self.model.save(str(folder), safe_serialization=True, create_model_card=False)


class BiStudent:
    """A bi-encoder in training, from a folder of sentence-transformers. Raises ModelError for what cannot be loaded."""

    def __init__(self, folder: Path, settings: BiSettings) -> None:
        self._vectors = Vectors(folder, max_tokens=settings.max_tokens)
        self._settings = settings
        self._objective = objective_of(settings)
        self.module = self._vectors.model

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest document of each group."""
        return self._vectors.lengths(groups)

    def scores(self, batch: Batch) -> Tensor:
        """Cosines times the scale."""
        return batch.own(self._matrix(batch))

    def loss(self, batch: Batch) -> Tensor:
        """Labels over the whole batch, or each group, and the teacher over each group."""
        matrix = self._matrix(batch)
        across = batch.across(matrix) if self._settings.in_batch else None
        return self._objective.loss(batch.own(matrix), batch.labels, batch.teacher, batch.mask, across=across)

    def save(self, folder: Path) -> None:
        """As sentence-transformers saves it."""
        self._vectors.save(folder)

    def _matrix(self, batch: Batch) -> Tensor:
        queries, documents = self._vectors.of_batch(batch)
        with exactly(self._settings.device):
            return queries @ documents.T * self._settings.scale
