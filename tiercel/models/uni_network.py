"""A Uni-Encoder: one pass over a context and all its candidates gives a score of each (Song et al., ACL Findings 2023).

The context is read once, and every candidate continues it: its positions begin where the context ends, and it attends
to the context and to itself, never to another candidate. Two masks differ in what the context attends to:

- `arrow`, the paper's: itself and all candidates. A score then depends on which candidates are read together.
- `one-way`, ours: itself alone. A score depends on context and candidate only.

The mask is never written out: context rows and candidate rows are attended to by products of their own, so the cost is
Lc (Lc + K R) + K R (Lc + R) and not (Lc + K R)^2, for a context of Lc tokens and K candidates of R.

torch is imported with this module, which only exports and training import: the extra `tiercel[torch]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch

from tiercel.models.uni_inputs import UniMask

Tensor: TypeAlias = Any

# Added where nothing is to be read: exp() of it is 0 in fp32 and fp16 alike, and rows of it alone are no NaN.
_HIDDEN = -30_000.0


class _Sizes(NamedTuple):
    """Of one pass: queries, tokens of the longest context, candidates, tokens of the longest candidate."""

    queries: Any
    context: Any
    candidates: Any
    tokens: Any


class _Biases(NamedTuple):
    """What is added to attention, so that padding is not read.

    Attributes:
        context: to the context by candidates, shape (queries, 1, 1, Lc); None: no padding there.
        own: to a candidate by itself, shape (queries, 1, candidates, 1, R).
        by_context: to all that the context reads, shape (queries, 1, 1, tokens); None: no padding there.
    """

    context: Tensor | None
    own: Tensor
    by_context: Tensor | None


class UniEncoder(torch.nn.Module):  # type: ignore[misc]
    """A BERT that reads a context with its candidates, and a linear head on the mean of each candidate's tokens.

    Args:
        body: a BertModel of transformers; its layers are used, its own attention is not.
        mask: what the context attends to.
    """

    def __init__(self, body: Any, mask: UniMask) -> None:
        super().__init__()
        self.body = body
        self.head = torch.nn.Linear(body.config.hidden_size, 1)
        self.mask = mask

    def forward(
        self,
        context_ids: Tensor,
        candidate_ids: Tensor,
        context_mask: Tensor | None = None,
        candidate_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores, float of shape (queries, candidates); larger is better.

        Args:
            context_ids: int64 of shape (queries, Lc), padded behind; each is `[CLS] context [SEP]`.
            candidate_ids: int64 of shape (queries, candidates, R), padded behind; each is `[CLS] candidate [SEP]`.
            context_mask: 1 where a token is, 0 where padding is; None: there is no padding.
            candidate_mask: the same of the candidates.

        A candidate that is padding throughout gets a score that means nothing and moves no other.
        """
        states = self.candidate_states(context_ids, candidate_ids, context_mask, candidate_mask)
        if candidate_mask is None:
            return self.head(states.mean(dim=2)).squeeze(-1)
        weights = candidate_mask.to(states.dtype).unsqueeze(-1)
        means = (states * weights).sum(dim=2) / weights.sum(dim=2).clamp(min=1.0)
        return self.head(means).squeeze(-1)

    def candidate_states(
        self,
        context_ids: Tensor,
        candidate_ids: Tensor,
        context_mask: Tensor | None = None,
        candidate_mask: Tensor | None = None,
    ) -> Tensor:
        """The last layer's vectors of the candidates' tokens: shape (queries, candidates, R, hidden)."""
        # While a graph is traced each size is a value of its own.
        sizes = _Sizes(context_ids.shape[0], context_ids.shape[1], candidate_ids.shape[1], candidate_ids.shape[2])
        if candidate_mask is None:
            candidate_mask = torch.ones_like(candidate_ids)
        present = torch.ones_like(context_ids) if context_mask is None else context_mask
        states = self.embed(context_ids, candidate_ids, present)
        biases = self._biases(present, candidate_mask, dtype=states.dtype, is_padded=context_mask is not None)
        *lower, last = self.body.encoder.layer
        for layer in lower:
            states = self._run(layer, states, biases, sizes)
        # Nobody reads what the last layer would make of the context.
        states = self._run(last, states, biases, sizes, candidates_only=True)
        return states.reshape(sizes.queries, sizes.candidates, sizes.tokens, states.shape[-1])

    def embed(self, context_ids: Tensor, candidate_ids: Tensor, context_mask: Tensor) -> Tensor:
        """Context and candidates as one row of vectors each: shape (queries, Lc + K R, hidden)."""
        flat = candidate_ids.reshape(candidate_ids.shape[0], -1)
        positions = self.candidate_positions(candidate_ids, context_mask.sum(dim=1)).reshape(flat.shape)
        own = torch.arange(context_ids.shape[1], device=context_ids.device).expand_as(context_ids)
        return self.body.embeddings(
            input_ids=torch.cat([context_ids, flat], dim=1),
            token_type_ids=torch.cat([torch.zeros_like(context_ids), torch.ones_like(flat)], dim=1),
            position_ids=torch.cat([own, positions], dim=1),
        )

    def candidate_positions(self, candidate_ids: Tensor, lengths: Tensor) -> Tensor:
        """Every candidate begins where its own context ends: int64 of the shape of `candidate_ids`.

        `lengths`: tokens of each context, shape (queries,).
        """
        steps = torch.arange(candidate_ids.shape[2], device=candidate_ids.device)
        return (lengths[:, None, None] + steps).expand_as(candidate_ids)

    def _biases(self, context_mask: Tensor, candidate_mask: Tensor, *, dtype: Any, is_padded: bool) -> _Biases:
        context, own = ((1 - mask.to(dtype)) * _HIDDEN for mask in (context_mask, candidate_mask))
        by_context = context if is_padded else None
        if self.mask == "arrow":
            by_context = torch.cat([context, own.reshape(own.shape[0], -1)], dim=1)
        return _Biases(
            context[:, None, None, :] if is_padded else None,
            own[:, None, :, None, :],
            None if by_context is None else by_context[:, None, None, :],
        )

    def _run(
        self, layer: Any, states: Tensor, biases: _Biases, sizes: _Sizes, *, candidates_only: bool = False
    ) -> Tensor:
        """One layer; `candidates_only`: of the context nothing is given, shape (queries, K R, hidden)."""
        rows = states[:, sizes.context :] if candidates_only else states
        attention = layer.attention
        scaled = attention.self.query(rows) * attention.self.scaling
        heads = [scaled, attention.self.key(states), attention.self.value(states)]
        query, key, value = (self._split(array) for array in heads)
        of_candidates = query if candidates_only else query[:, :, sizes.context :]
        mixed = self._attend_from_candidates(attention.self, of_candidates, key, value, biases, sizes)
        if not candidates_only:
            before = self._attend_from_context(attention.self, query, key, value, biases, sizes)
            mixed = torch.cat([before, mixed], dim=2)
        joined = mixed.transpose(1, 2).reshape(rows.shape)
        return layer.feed_forward_chunk(attention.output(joined, rows))

    def _split(self, array: Tensor) -> Tensor:
        """Shape (queries, tokens, hidden) to (queries, heads, tokens, hidden / heads)."""
        heads = self.body.config.num_attention_heads
        return array.reshape(array.shape[0], array.shape[1], heads, -1).transpose(1, 2)

    def _attend_from_context(
        self, attention: Any, query: Tensor, key: Tensor, value: Tensor, biases: _Biases, sizes: _Sizes
    ) -> Tensor:
        if self.mask == "one-way":
            key, value = key[:, :, : sizes.context], value[:, :, : sizes.context]
        found = _added(query[:, :, : sizes.context] @ key.transpose(-1, -2), biases.by_context)
        return attention.dropout(found.softmax(dim=-1)) @ value

    def _attend_from_candidates(
        self, attention: Any, query: Tensor, key: Tensor, value: Tensor, biases: _Biases, sizes: _Sizes
    ) -> Tensor:
        """The softmax is over context and own tokens together; the products are of the two apart."""
        queries, context, count, tokens = sizes
        shape = (queries, query.shape[1], count, tokens)
        rows = (queries, query.shape[1], count * tokens)
        own_query, own_key, own_value = (
            array.reshape(*shape, -1) for array in (query, key[:, :, context:], value[:, :, context:])
        )
        of_context = _added(query @ key[:, :, :context].transpose(-1, -2), biases.context)
        of_own = own_query @ own_key.transpose(-1, -2) + biases.own
        found = torch.cat([of_context.reshape(*shape, context), of_own], dim=-1)
        shares = attention.dropout(found.softmax(dim=-1))
        from_context = shares[..., :context].reshape(*rows, context) @ value[:, :, :context]
        return from_context + (shares[..., context:] @ own_value).reshape(*rows, -1)


def _added(found: Tensor, bias: Tensor | None) -> Tensor:
    return found if bias is None else found + bias
