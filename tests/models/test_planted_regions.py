"""The paper's claim, on documents whose answer stands anywhere: regions find it, the document's beginning does not."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch

from tests.models.local import make_network
from tiercel.models.local_attention import Geometry
from tiercel.models.local_network import LocalNetwork, Scored

_WORDS = range(5, 900)
_TOKENS = 1500
_FIRST = 200


class Planted(NamedTuple):
    """A query, a document that has its words within 30 tokens, at some places, and one that has them far apart."""

    query: list[int]
    right: list[int]
    wrong: list[int]
    places: list[int]


def planted(seed: int) -> Planted:
    chance = random.Random(seed)
    query = chance.sample(_WORDS, 4)
    others = [word for word in _WORDS if word not in query]
    right, wrong = ([chance.choice(others) for _ in range(_TOKENS)] for _ in range(2))
    depth = chance.randrange(_TOKENS - 30)
    places = sorted(chance.sample(range(depth, depth + 30), 4))
    for place, word in zip(places, query, strict=True):
        right[place] = word
    for number, word in enumerate(query):
        wrong[number * 350 + chance.randrange(250)] = word
    return Planted(query, right, wrong, places)


TASKS = [planted(seed) for seed in range(100, 116)]


class _Vectors(NamedTuple):
    """Of the queries, of the right and of the wrong documents."""

    queries: Any
    right: tuple[Any, Any]
    wrong: tuple[Any, Any]

    def scored(self, model: LocalNetwork) -> tuple[Scored, Scored]:
        mask = torch.ones(self.queries.shape[:2], dtype=torch.bool)
        return model.head(self.queries, mask, *self.right), model.head(self.queries, mask, *self.wrong)


def _encoded(model: LocalNetwork, tasks: list[Planted], limit: int) -> _Vectors:
    with torch.no_grad():
        queries, _ = model.vectors_of_queries([task.query for task in tasks])
        right = model.vectors_of_documents([task.right[:limit] for task in tasks])
        return _Vectors(queries, right, model.vectors_of_documents([task.wrong[:limit] for task in tasks]))


def _trained(geometry: Geometry, *, limit: int) -> tuple[LocalNetwork, Scored, Scored]:
    """A head that has seen other tasks, and what it gives for TASKS."""
    model = make_network(geometry, vocabulary=_WORDS.stop)
    with torch.no_grad():
        model.encoder.mixer.fill_(0.9)
        model.head.saturation.zero_()
        model.head.saturation[0, 2] = 3  # a power of 0.2
    seen = _encoded(model, [planted(seed) for seed in range(12)], limit)
    optimizer = torch.optim.Adam([model.head.kernels, model.head.saturation], lr=0.01)
    for _ in range(20):
        right, wrong = seen.scored(model)
        loss = torch.nn.functional.softplus(wrong.scores - right.scores).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return model, *_encoded(model, TASKS, limit).scored(model)


def test_regions_find_what_is_planted_anywhere_and_a_documents_beginning_does_not() -> None:
    model, right, wrong = _trained(Geometry(), limit=_TOKENS)
    assert (right.scores > wrong.scores).float().mean() >= 0.9
    regions = [model.geometry.region(int(best[0]), _TOKENS) for best in right.best]
    held = [
        first <= task.places[0] and task.places[-1] < last for (first, last), task in zip(regions, TASKS, strict=True)
    ]
    assert sum(held) >= 14
    beginning = Geometry(window=_FIRST, regions=1, neighbours=0, saturation="log")
    _, right, wrong = _trained(beginning, limit=_FIRST)
    assert (right.scores > wrong.scores).float().mean() <= 0.7
