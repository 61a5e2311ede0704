"""What does it cost to score the candidates of one query? Tokens that a transformer reads, and operations.

An operation is a multiplication or an addition; biases, norms, softmax and padding are left out. A layer of hidden size
d and inner size f costs a token 8 d^2 + 4 d f, and 4 d for each token that it attends to (query, key, value, output;
both products of attention).
"""

from __future__ import annotations

from typing import NamedTuple

from tiercel.models.local_attention import Geometry


class Lengths(NamedTuple):
    """Tokens of a query and of each of its candidates, and how many of these there are."""

    query: int
    candidate: int
    number: int


class Backbone(NamedTuple):
    """Layers, hidden size and inner size of a transformer."""

    layers: int
    hidden: int
    inner: int


class Cost(NamedTuple):
    """Tokens read, and operations."""

    tokens: int
    operations: int


MINILM = Backbone(6, 384, 1536)
"""all-MiniLM-L6-v2 and what is made of it."""

TWO_LAYERS = MINILM._replace(layers=2)
"""What local attention keeps of it."""


def encoding(tokens: int, *, attended: int, backbone: Backbone = MINILM) -> int:
    """Operations of a transformer over so many tokens, each of which attends to so many."""
    layers, hidden, inner = backbone
    return layers * tokens * (8 * hidden**2 + 4 * hidden * inner + 4 * hidden * attended)


def cross_encoder(asked: Lengths, *, backbone: Backbone = MINILM) -> Cost:
    """Every candidate is read together with the query."""
    length = asked.query + asked.candidate
    return Cost(asked.number * length, asked.number * encoding(length, attended=length, backbone=backbone))


def uni_encoder(asked: Lengths, *, arrow: bool, backbone: Backbone = MINILM) -> Cost:
    """The query is read once; each candidate attends to it and to itself, and with `arrow` the query to all of them."""
    query, candidate, number = asked
    attended = query + (number * candidate if arrow else 0)
    of_query = encoding(query, attended=attended, backbone=backbone)
    of_candidates = encoding(number * candidate, attended=query + candidate, backbone=backbone)
    return Cost(query + number * candidate, of_query + of_candidates)


def late_interaction(asked: Lengths, *, stored: bool, dimension: int = 128, backbone: Backbone = MINILM) -> Cost:
    """The query is encoded, the candidates too unless their vectors are stored, and all tokens are compared."""
    tokens, operations = _encoded(asked, stored, backbone)
    return Cost(tokens, operations + 2 * asked.number * asked.query * asked.candidate * dimension)


def pair_head(asked: Lengths, *, stored: bool, width: int = 512, backbone: Backbone = MINILM) -> Cost:
    """The same with one vector of each, and a hidden layer of this width over two products with it."""
    tokens, operations = _encoded(asked, stored, backbone)
    return Cost(tokens, operations + asked.number * (4 * backbone.hidden * width + 2 * width))


def local_attention(
    asked: Lengths, *, stored: bool, dimension: int = 384, kernels: int = 11, backbone: Backbone = TWO_LAYERS
) -> Cost:
    """Chunks of the candidates are encoded unless stored; cosines of all tokens, and each through every kernel."""
    query, candidate, number = asked
    geometry = Geometry()
    chunk = geometry.chunk + 2 * geometry.overlap
    read = 0 if stored else number * -(-candidate // geometry.chunk) * chunk
    made = encoding(query, attended=query, backbone=backbone) + encoding(read, attended=chunk, backbone=backbone)
    return Cost(query + read, made + number * query * candidate * (2 * dimension + 4 * kernels))


def _encoded(asked: Lengths, stored: bool, backbone: Backbone) -> Cost:
    """The query by itself, and each candidate too where nothing is stored."""
    query, candidate, number = asked
    read = 0 if stored else number
    of_candidates = read * encoding(candidate, attended=candidate, backbone=backbone)
    return Cost(query + read * candidate, encoding(query, attended=query, backbone=backbone) + of_candidates)
