"""Tiny local-attention models, and plain TK to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.models.tiny import VOCABULARY, quiet, write_tokenizer
from tiercel.models.local_attention import CENTRES, KERNEL_WIDTH, Geometry
from tiercel.models.local_checkpoint import save_local
from tiercel.models.local_network import Frame, LocalNetwork

torch.set_num_threads(1)  # products this small wait for each other's threads far longer than they take

FRAME = Frame((2,), (3,))

REDUCED = Geometry(chunk=48, overlap=0, window=48, regions=1, neighbours=0, saturation="log")
"""With this, a document of up to 48 tokens is scored as plain TK scores it."""


def make_network(
    geometry: Geometry | None = None, *, dimension: int = 32, frame: Frame = FRAME, vocabulary: int = len(VOCABULARY)
) -> LocalNetwork:
    """Two layers of 32, drawn from one seed; kernels that tell a match from none."""
    with quiet():
        from transformers import BertConfig, BertModel

        torch.manual_seed(7)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        config = BertConfig(**sizes, vocab_size=vocabulary, max_position_embeddings=64)
        network = BertModel(config, add_pooling_layer=False)
    for weight in network.parameters():
        if weight.dim() > 1:
            weight.data.mul_(6.0)
    model: LocalNetwork = LocalNetwork(network, geometry or Geometry(), frame, dimension).eval()
    with torch.no_grad():
        model.head.kernels.copy_(torch.linspace(0.1, -0.05, len(CENTRES)))
        model.head.saturation.uniform_(-0.5, 0.5)
        model.head.term.uniform_(-0.5, 0.5)
    return model


def save_network(folder: Path, geometry: Geometry | None = None, *, dimension: int = 8) -> Path:
    """A folder as `tiercel train local` writes it."""
    with quiet():
        from transformers import BertTokenizerFast

        write_tokenizer(folder.parent / f"{folder.name}-words")
        tokenizer = BertTokenizerFast.from_pretrained(folder.parent / f"{folder.name}-words")
        save_local(make_network(geometry, dimension=dimension), tokenizer, folder)
    return folder


def plain_tk(query: Any, document: Any, kernels: Any, floor: float) -> float:
    """TK of one pair with a single logarithmic sum, term by term.

    Hofstätter, Zlabinger & Hanbury, Interpretable & Time-Budget-Constrained Contextualization for Re-Ranking, ECAI
    2020. `query` and `document` have a unit vector in each row.
    """
    score = 0.0
    for term in query.double():
        cosines = document.double() @ term
        for centre, weight in zip(CENTRES, kernels.tolist(), strict=True):
            soft = torch.exp(-((cosines - centre) ** 2) / (2 * KERNEL_WIDTH**2)).sum()
            score += weight * float(torch.log(soft.clamp_min(floor)))
    return score
