"""TKL as a network: chunks of a document encoded alone, kernels, saturation, the best regions. Needs torch.

The encoder is the first layers of a transformer with its word embeddings; TK's mixing of both; a projection. It never
sees the query, so a document's vectors can be kept. Geometry and head are in `local_attention.py`, with their source.

Other than the published code:

- Windows follow from each document's own length, so a longer document in the batch changes no score.
- Word embeddings and contextual vectors are mixed as unit vectors: a pre-trained encoder has them of other lengths.
- Saturation is written (s^L - 1) / L * exp(v) + w with L = exp(u) / 100, which is a * s^(1/b) - c with other names for
  a, b and c; it starts at the published a = b = c = 100. Its input is not layer-normalised: of two numbers that leaves
  no more than which one is larger.
- A region that a short document does not have counts as one without any match, not as 0: scores may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from tiercel.errors import ModelError
from tiercel.models.local_attention import CENTRES, KERNEL_WIDTH, Geometry, Head

Tensor: TypeAlias = Any

_SMALL = 0.014  # weights are drawn from -this to this, as published
_FIRST_POWER = 0.01  # 1 / 100, the published start
_ROWS = 64  # chunks that go through the transformer together


class Frame(NamedTuple):
    """Ids of the special tokens that a tokenizer puts before and behind a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class Scored(NamedTuple):
    """Of n pairs.

    Attributes:
        scores: shape (n,).
        best: shape (n, regions), int64: the best window of each region, -1 for a region that is not there.
    """

    scores: Tensor
    best: Tensor


class LocalEncoder(torch.nn.Module):  # type: ignore[misc]
    """Token ids to unit vectors.

    Args:
        network: a transformer of transformers; its pooler is taken away.
        dimension: length of a vector.
    """

    def __init__(self, network: Any, dimension: int) -> None:
        super().__init__()
        if hasattr(network, "pooler"):
            network.pooler = None
        width = network.config.hidden_size
        self.network = network
        self.mixer = torch.nn.Parameter(torch.tensor(0.5))
        self.projection = torch.nn.Linear(width, dimension, bias=False)
        torch.nn.init.orthogonal_(self.projection.weight)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.projection.out_features)

    def mixed(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Mixed vectors before the projection, shape (rows, tokens, width)."""
        words = torch.nn.functional.normalize(self.network.get_input_embeddings()(input_ids), dim=-1)
        context = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.mixer * words + (1 - self.mixer) * torch.nn.functional.normalize(context, dim=-1)

    def projected(self, mixed: Tensor) -> Tensor:
        """Unit vectors of mixed ones."""
        return torch.nn.functional.normalize(self.projection(mixed), dim=-1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Float32 of shape (rows, tokens, dimension), rows of norm 1; ids and mask of shape (rows, tokens)."""
        return self.projected(self.mixed(input_ids, attention_mask))


class RegionHead(torch.nn.Module):  # type: ignore[misc]
    """Vectors of queries and documents to scores."""

    def __init__(self, geometry: Geometry, dimension: int) -> None:
        super().__init__()
        self.geometry = geometry
        self.term = torch.nn.Parameter(torch.empty(dimension).uniform_(-_SMALL, _SMALL))
        self.saturation = torch.nn.Parameter(torch.empty(3, 3).uniform_(-_SMALL, _SMALL))
        self.kernels = torch.nn.Parameter(torch.empty(len(CENTRES)).uniform_(-_SMALL, _SMALL))
        self.regions = torch.nn.Parameter(torch.ones(geometry.regions, len(geometry.offsets)))
        self.register_buffer("centres", torch.tensor(CENTRES), persistent=False)
        with torch.no_grad():
            self.saturation[:, 2] = 0
            # Published is a small number here too; a product of two small ones learns nothing for a long time.
            self.saturation[1, 0] = 1

    def forward(self, queries: Tensor, query_mask: Tensor, documents: Tensor, lengths: Tensor) -> Scored:
        """Scores of n pairs.

        Args:
            queries: shape (n, terms, dimension), rows of norm 1.
            query_mask: bool, shape (n, terms): where a term is.
            documents: shape (n, tokens, dimension), rows of norm 1; what stands behind a document's end is not read.
            lengths: int64, shape (n,): tokens of each document.
        """
        windows = self.windows(queries, query_mask, documents, lengths)
        empty = self._weighed(self._empty(queries), query_mask)[:, 0]
        return self._regions(windows, empty, self._counts(lengths))

    def windows(self, queries: Tensor, query_mask: Tensor, documents: Tensor, lengths: Tensor) -> Tensor:
        """The score of every window, shape (n, most windows); any number where a document has none."""
        geometry, tokens = self.geometry, documents.shape[1]
        sums = self._sums(queries, documents, torch.arange(tokens, device=lengths.device)[None, :] < lengths[:, None])
        starts = torch.arange(sums.shape[-1], device=lengths.device) * geometry.stride
        held = (lengths[:, None] - starts[None, :]).clamp(0, geometry.window)
        return self._weighed(self._saturated(sums, queries, held / geometry.window), query_mask)

    def _counts(self, lengths: Tensor) -> Tensor:
        beyond = (lengths - self.geometry.window).clamp_min(0)
        return 1 + -(-beyond // self.geometry.stride)

    def _sums(self, queries: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
        """Activations of each kernel, summed over each window: shape (n, terms, kernels, windows)."""
        geometry = self.geometry
        count = geometry.windows(documents.shape[1])
        missing = (count - 1) * geometry.stride + geometry.window - documents.shape[1]
        cosines = queries @ documents.transpose(1, 2)
        distances = (cosines[:, :, None, :] - self.centres[None, None, :, None]) / KERNEL_WIDTH
        activations = torch.exp(-0.5 * distances.square()) * mask[:, None, None, :]
        rows = torch.nn.functional.pad(activations.flatten(0, 2)[:, None, :], (0, missing))
        pooled = torch.nn.functional.avg_pool1d(rows, geometry.window, geometry.stride) * geometry.window
        return pooled[:, 0].reshape(*activations.shape[:3], count)

    def _empty(self, queries: Tensor) -> Tensor:
        """What a window without any token gives, shape (n, terms, kernels, 1)."""
        sums = queries.new_zeros(*queries.shape[:2], len(CENTRES), 1)
        return self._saturated(sums, queries, queries.new_zeros(len(queries), 1))

    def _saturated(self, sums: Tensor, queries: Tensor, shares: Tensor) -> Tensor:
        logs = sums.clamp_min(self.geometry.floor).log()
        if self.geometry.saturation == "log":
            return logs
        of_term = (queries @ self.term)[:, :, None]
        u, v, w = (row[0] * of_term + row[1] * shares[:, None, :] + row[2] for row in self.saturation)
        power = (_FIRST_POWER * u.exp())[:, :, None, :]
        return v.exp()[:, :, None, :] * torch.expm1(power * logs) / power + w[:, :, None, :]

    def _weighed(self, values: Tensor, query_mask: Tensor) -> Tensor:
        """Values of terms and kernels to one for each window: shape (n, windows)."""
        return torch.einsum("nqkw,k,nq->nw", values, self.kernels, query_mask.to(values.dtype))

    def _regions(self, windows: Tensor, empty: Tensor, counts: Tensor) -> Scored:
        geometry = self.geometry
        places = torch.arange(windows.shape[1], device=windows.device)[None, :]
        open_ = places < counts[:, None]
        offsets = torch.tensor(geometry.offsets, device=windows.device)
        total, chosen = torch.zeros_like(empty), []
        for weights in self.regions:
            best = windows.detach().masked_fill(~open_, float("-inf")).argmax(dim=1)
            is_there = open_.any(dim=1)
            near = torch.minimum((best[:, None] + offsets).clamp_min(0), counts[:, None] - 1)
            values = torch.where(is_there[:, None], windows.gather(1, near), empty[:, None])
            total = total + values @ weights
            chosen.append(torch.where(is_there, best, -1))
            open_ = open_ & ((places - best[:, None]).abs() >= geometry.apart)
        return Scored(total, torch.stack(chosen, dim=1))

    def weights(self) -> Head:
        """The numbers, for a head without torch."""
        named = ("term", "saturation", "kernels", "regions")
        return Head(*(getattr(self, name).detach().cpu().numpy().astype(np.float32) for name in named))


class LocalNetwork(torch.nn.Module):  # type: ignore[misc]
    """Encoder and head.

    Args:
        network: a transformer of transformers.
        geometry: how documents are divided.
        frame: special tokens that every chunk and every query stands between, as the transformer was trained.
        dimension: length of a vector.

    Raises ModelError where the transformer has not so many positions as a chunk or a query has tokens.
    """

    def __init__(self, network: Any, geometry: Geometry, frame: Frame, dimension: int) -> None:
        super().__init__()
        longest = max(geometry.chunk + 2 * geometry.overlap, geometry.query) + len(frame.before) + len(frame.after)
        limit = getattr(network.config, "max_position_embeddings", longest)
        if longest > limit:
            raise ModelError(f"chunks or queries of {longest} tokens", expected=f"at most {limit}, its positions")
        self.geometry = geometry
        self.frame = frame
        self.encoder = LocalEncoder(network, dimension)
        self.head = RegionHead(geometry, self.encoder.dimension)

    def vectors_of_documents(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Vectors of the tokens of documents, and how many each has.

        Shapes (documents, most tokens, dimension), 0 where there is no token, and (documents,). Ids have no special
        tokens. Chunks of all documents are encoded together; none that is empty.
        """
        mixed, lengths = self.mixed_of_documents(ids)
        return self.project(mixed, lengths), lengths

    def vectors_of_queries(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The same of queries, which are encoded whole and lose what is behind `geometry.query` tokens."""
        mixed, lengths = self.mixed_of_queries(ids)
        return self.project(mixed, lengths), lengths

    def mixed_of_documents(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """As `vectors_of_documents`, before the projection."""
        chunks = [(row, chunk) for row in ids for chunk in self.geometry.chunks(len(row))]
        encoded = self._encoded([row[chunk.first : chunk.last] for row, chunk in chunks])
        cores = [rows[c.start - c.first : c.end - c.first] for (_, c), rows in zip(chunks, encoded, strict=True)]
        return self._together(cores, ids)

    def mixed_of_queries(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """As `vectors_of_queries`, before the projection."""
        cut = [row[: self.geometry.query] for row in ids]
        return self._together(self._encoded([row for row in cut if row]), cut)

    def project(self, mixed: Tensor, lengths: Tensor) -> Tensor:
        """Unit vectors, 0 where there is no token."""
        mask = torch.arange(mixed.shape[1], device=mixed.device)[None, :] < lengths[:, None]
        return self.encoder.projected(mixed) * mask[..., None]

    def _encoded(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Mixed vectors of each row's tokens, the frame's left out."""
        return [vectors for first in range(0, len(rows), _ROWS) for vectors in self._slab(rows[first : first + _ROWS])]

    def _slab(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        device = self.head.kernels.device
        framed = [torch.tensor([*self.frame.before, *row, *self.frame.after], device=device) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(framed, batch_first=True)
        counts = torch.tensor([len(row) for row in framed], device=device)
        mask = torch.arange(ids.shape[1], device=device)[None, :] < counts[:, None]
        mixed = self.encoder.mixed(ids, mask.long())
        first = len(self.frame.before)
        return [vectors[first : first + len(row)] for vectors, row in zip(mixed, rows, strict=True)]

    def _together(self, parts: Sequence[Tensor], texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Parts that lie one after the other, as one padded row for each text."""
        device, width = self.head.kernels.device, self.encoder.network.config.hidden_size
        lengths = [len(text) for text in texts]
        flat = torch.cat([torch.zeros(0, width, device=device), *parts])
        rows = torch.nn.utils.rnn.pad_sequence(list(flat.split(lengths)), batch_first=True)
        return rows, torch.tensor(lengths, device=device)
