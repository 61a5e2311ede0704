"""Late interaction: a linear head over an encoder's token vectors, compared by MaxSim.

The head begins as the principal directions of token vectors, so that training starts near the MaxSim of the encoder's
own last hidden states. One pass of the saved model gives the sentence vector, as before, and the token vectors.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.errors import UsageError
from tiercel.models.tracing import quiet
from tiercel.training.batches import Batch, TrainingGroup, all_texts, objective_of
from tiercel.training.bi_encoder import Vectors
from tiercel.training.settings import LateSettings

Tensor: TypeAlias = Any

QUERY_WEIGHTS_FILE = "query_token_weights.json"
"""Beside a model with weights: {"weight": [...], "bias": b}. A query token's vector v of norm 1 is multiplied by
softplus(weight.v + bias), divided by the mean of those over the query; MaxSim of the products is the weighted one."""

_TEXTS_AT_ONCE = 32
_TOKENS = "token_embeddings"


class LateStudent:
    """A late-interaction head in training, from a folder of sentence-transformers.

    Where the folder has a linear Dense on its tokens already, that is trained on. With a frozen encoder the token
    vectors of every text are computed once and held in float16: 2 * hidden size bytes a token.

    Raises ModelError for what cannot be loaded, and UsageError for a dimension above the hidden size.
    """

    def __init__(self, folder: Path, settings: LateSettings, groups: Sequence[TrainingGroup]) -> None:
        self._vectors = Vectors(folder, max_tokens=settings.max_tokens)
        self._settings = settings
        self._objective = objective_of(settings)
        self._held: dict[tuple[bool, str], Tensor] = {}
        model = self._vectors.model
        if getattr(model[-1], "module_input_name", "") == _TOKENS:
            self._head = model[-1]
            del model[-1]
        else:
            self._head = self._first_head(groups)
        parts = {"head": self._head}
        if settings.query_weights:
            parts["weights"] = _flat_weights(self._head.out_features)
        if not settings.frozen:
            parts["encoder"] = model
        self.module = torch.nn.ModuleDict(parts)

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest document of each group."""
        return self._vectors.lengths(groups)

    def scores(self, batch: Batch) -> Tensor:
        """The mean over query tokens of the best cosine, weighted and scaled."""
        return batch.own(self._matrix(batch))

    def loss(self, batch: Batch) -> Tensor:
        """Labels over the whole batch, or each group, and the teacher over each group."""
        matrix = self._matrix(batch)
        across = batch.across(matrix) if self._settings.in_batch else None
        return self._objective.loss(batch.own(matrix), batch.labels, batch.teacher, batch.mask, across=across)

    def save(self, folder: Path) -> None:
        """A SentenceTransformer with the head as its last module; weights of query tokens beside it."""
        from sentence_transformers import SentenceTransformer

        model = self._vectors.model
        with quiet():
            whole = SentenceTransformer(
                modules=[*model, self._head],
                device="cpu",
                prompts=model.prompts,
                default_prompt_name=model.default_prompt_name,
            )
            whole.save(str(folder), safe_serialization=True, create_model_card=False)
        if self._settings.query_weights:
            linear = self.module["weights"]
            record = {"weight": linear.weight[0].tolist(), "bias": float(linear.bias.detach())}
            (folder / QUERY_WEIGHTS_FILE).write_text(f"{json.dumps(record)}\n", encoding="utf-8")

    def query_vectors(self, texts: Sequence[str], *, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Shape (texts, tokens, dimension), rows of the norm of their weights, 0 where is no token; their mask."""
        vectors, mask = self._tokens(texts, query=True, device=device)
        if not self._settings.query_weights:
            return vectors, mask
        weights = torch.nn.functional.softplus(self.module["weights"](vectors)[..., 0].float()) * mask
        weights = weights * mask.sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
        return vectors * weights[..., None], mask

    def document_vectors(self, texts: Sequence[str], *, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Shape (texts, tokens, dimension), rows of norm 1, 0 where there is no token; their mask."""
        return self._tokens(texts, query=False, device=device)

    def _matrix(self, batch: Batch) -> Tensor:
        device = batch.mask.device.type
        queries, query_mask = self.query_vectors(batch.queries, device=device)
        documents, mask = self.document_vectors([text for row in batch.documents for text in row], device=device)
        return max_sim(queries, documents, mask) / query_mask.sum(dim=1, keepdim=True) * self._settings.scale

    def _tokens(self, texts: Sequence[str], *, query: bool, device: str) -> tuple[Tensor, Tensor]:
        hidden, mask = self._hidden(texts, query=query, device=device)
        projected = torch.nn.functional.normalize(self._head.linear(hidden).float(), dim=-1)
        return projected * mask[..., None], mask

    def _hidden(self, texts: Sequence[str], *, query: bool, device: str) -> tuple[Tensor, Tensor]:
        if not self._settings.frozen:
            given = self._vectors.pass_over(texts, query=query, device=device)
            return given[_TOKENS], given["attention_mask"].bool()
        waiting = list(dict.fromkeys(text for text in texts if (query, text) not in self._held))
        for start in range(0, len(waiting), _TEXTS_AT_ONCE):
            part = waiting[start : start + _TEXTS_AT_ONCE]
            for text, tokens in zip(part, self._read(part, query=query, device=device), strict=True):
                self._held[query, text] = tokens.half().cpu()
        held = [self._held[query, text] for text in texts]
        filled = torch.nn.utils.rnn.pad_sequence(held, batch_first=True).to(device).float()
        counts = torch.tensor([len(tokens) for tokens in held], device=device)
        return filled, torch.arange(filled.shape[1], device=device)[None, :] < counts[:, None]

    def _read(self, texts: Sequence[str], *, query: bool, device: str) -> list[Tensor]:
        """The encoder's own token vectors of each text, shape (tokens, hidden)."""
        with torch.no_grad():
            self._vectors.model.eval().to(device)
            given = self._vectors.pass_over(texts, query=query, device=device)
        return [rows[mask.bool()] for rows, mask in zip(given[_TOKENS], given["attention_mask"], strict=True)]

    def _first_head(self, groups: Sequence[TrainingGroup]) -> Any:
        from sentence_transformers.base.modules.dense import Dense

        texts = list(all_texts(groups))
        chosen = random.Random(self._settings.seed).sample(texts, min(len(texts), self._settings.pca_texts))
        parts = [chosen[start : start + _TEXTS_AT_ONCE] for start in range(0, len(chosen), _TEXTS_AT_ONCE)]
        vectors = torch.cat([rows for part in parts for rows in self._read(part, query=False, device="cpu")])
        hidden, dimension = vectors.shape[1], self._settings.dimension
        if dimension > hidden:
            raise UsageError(f"dimension = {dimension}", expected=f"at most {hidden}, the encoder's hidden size")
        head = Dense(hidden, dimension, bias=False, activation_function=torch.nn.Identity(), module_input_name=_TOKENS)
        head.linear.weight.data.copy_(principal_directions(vectors, dimension))
        return head


def max_sim(queries: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
    """Sum over query tokens of the largest product with a token of the document.

    `queries` of shape (queries, query tokens, dimension), rows of 0 where there is no token; `documents` of shape
    (documents, tokens, dimension) with their `mask`, at least one token each. Gives shape (queries, documents).
    """
    products = torch.einsum("qid,njd->qnij", queries.float(), documents.float())
    # Not 0 for what is no token: it would beat negative products.
    products = products.masked_fill(~mask[None, :, None, :], float("-inf"))
    return products.amax(dim=-1).sum(dim=-1)


def principal_directions(vectors: Tensor, dimension: int) -> Tensor:
    """The `dimension` directions that keep most of the unit vectors' products, shape (dimension, width), orthonormal.

    The mean is not taken away: products of vectors are to be kept, not of their differences from the mean. With as many
    directions as the vectors are wide, all products are kept.
    """
    units = torch.nn.functional.normalize(vectors.double(), dim=-1)
    _, directions = torch.linalg.eigh(units.T @ units)  # ascending
    return directions.T.flip(0)[:dimension].float()


def _flat_weights(dimension: int) -> Any:
    """A linear function of a token's vector that gives every token the same weight."""
    linear = torch.nn.Linear(dimension, 1)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    return linear
