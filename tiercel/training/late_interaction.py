"""Late interaction: a linear head over an encoder's token vectors, compared by MaxSim.

The head begins as the principal directions of token vectors, so that training starts near the MaxSim of the encoder's
own last hidden states. One pass of the saved model gives the sentence vector, as before, and the token vectors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tiercel.errors import ModelError, UsageError
from tiercel.models.tracing import quiet
from tiercel.training.batches import Batch, TrainingGroup, all_texts, objective_of
from tiercel.training.bi_encoder import Vectors
from tiercel.training.held_tokens import HeldTokens
from tiercel.training.precision import autocast, exactly
from tiercel.training.settings import LateSettings

Tensor: TypeAlias = Any

_TEXTS_AT_ONCE = 32
_TOKENS, _MASK = "token_embeddings", "attention_mask"


class LateStudent:
    """A late-interaction head in training, from a folder of sentence-transformers.

    Where the folder has a linear Dense on its tokens already, that is trained on. With a frozen encoder the token
    vectors of every text are computed once and held.

    Raises ModelError for what cannot be loaded, and UsageError for a dimension above the hidden size, or another than
    that of the Dense that is there.
    """

    def __init__(
        self,
        folder: Path,
        settings: LateSettings,
        groups: Sequence[TrainingGroup],
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._vectors = Vectors(folder, max_tokens=settings.max_tokens)
        self._settings = settings
        self._objective = objective_of(settings)
        model = self._vectors.model
        self._head = _own_head(model, settings, where=folder) or self._first_head(groups)
        self.module = torch.nn.ModuleDict({"head": self._head})
        if not settings.frozen:
            self.module["encoder"] = model
            return
        width = self._head.in_features
        self._held = {side: HeldTokens(partial(self._read, query=side), width, say=say) for side in (True, False)}
        self._held[True].add([group.mined.query.text for group in groups])
        self._held[False].add([group.texts[d.id] for group in groups for d in group.mined.documents])

    def lengths(self, groups: Sequence[TrainingGroup]) -> list[int]:
        """Tokens of the longest document of each group."""
        return self._vectors.lengths(groups)

    def scores(self, batch: Batch) -> Tensor:
        """The mean over query tokens of the best cosine, scaled."""
        queries, documents, mask = self._of_batch(batch)
        owners = batch.owners
        own = [max_sim(queries[[row]], documents[owners == row], mask[owners == row])[0] for row in range(len(queries))]
        return batch.place(torch.cat(own))

    def loss(self, batch: Batch) -> Tensor:
        """Labels over the whole batch, or each group, and the teacher over each group."""
        if not self._settings.in_batch:
            return self._objective.loss(self.scores(batch), batch.labels, batch.teacher, batch.mask)
        matrix = max_sim(*self._of_batch(batch))
        return self._objective.loss(
            batch.own(matrix), batch.labels, batch.teacher, batch.mask, across=batch.across(matrix)
        )

    def save(self, folder: Path) -> None:
        """A SentenceTransformer with the head as its last module."""
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

    def token_vectors(self, texts: Sequence[str], *, query: bool) -> tuple[Tensor, Tensor]:
        """Shape (texts, tokens, dimension), rows of norm 1, 0 where there is no token; their mask."""
        device = self._settings.device
        if self._settings.frozen:
            hidden, mask = (tensor.to(device) for tensor in self._held[query].padded(texts))
        else:
            given = self._vectors.pass_over(texts, query=query, device=device)
            hidden, mask = given[_TOKENS], given[_MASK].bool()
        with exactly(device):
            units = torch.nn.functional.normalize(self._head.linear(hidden.float()), dim=-1)
        return units * mask[..., None], mask

    def _of_batch(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Token vectors of the queries, those of all documents, and the documents' mask.

        A query's are divided by how many they are and multiplied by the scale: their MaxSim is the score.
        """
        queries, query_mask = self.token_vectors(batch.queries, query=True)
        documents, mask = self.token_vectors([text for row in batch.documents for text in row], query=False)
        return queries * (self._settings.scale / query_mask.sum(dim=1))[:, None, None], documents, mask

    def _read(self, texts: Sequence[str], *, query: bool) -> list[Tensor]:
        """The encoder's own token vectors of each text, shape (tokens, hidden)."""
        device = self._settings.device
        self._vectors.model.eval().to(device)
        with torch.no_grad(), autocast(self._settings):
            given = self._vectors.pass_over(texts, query=query, device=device)
        return [rows[mask.bool()].float() for rows, mask in zip(given[_TOKENS], given[_MASK], strict=True)]

    def _first_head(self, groups: Sequence[TrainingGroup]) -> Any:
        from sentence_transformers.base.modules.dense import Dense

        texts = list(all_texts(groups))
        chosen = random.Random(self._settings.seed).sample(texts, min(len(texts), self._settings.pca_texts))
        parts = [chosen[start : start + _TEXTS_AT_ONCE] for start in range(0, len(chosen), _TEXTS_AT_ONCE)]
        vectors = torch.cat([rows.cpu() for part in parts for rows in self._read(part, query=False)])
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
    with exactly(documents.device.type):
        products = torch.einsum("qid,njd->qnij", queries, documents)
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


def _own_head(model: Any, settings: LateSettings, *, where: Path) -> Any | None:
    """The Dense on its tokens that a loaded model ends with, taken out of it; None where it has none."""
    head = model[-1]
    if getattr(head, "module_input_name", "") != _TOKENS:
        return None
    if not isinstance(head.activation_function, torch.nn.Identity):
        raise ModelError("its Dense on token_embeddings is not linear", expected="one that is", where=str(where))
    if head.out_features != settings.dimension:
        raise UsageError(
            f"dimension = {settings.dimension}",
            expected=f"{head.out_features}, as the model's own head",
            where=str(where),
        )
    del model[-1]
    return head
