"""Which queries are learnt on, and which are held out to tell how good what was learnt is?"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tiercel.errors import InputError
from tiercel.evaluation.measures import check_overlap
from tiercel.types import Qrels, Query, QueryId

LEAST_QUERIES = 10
"""Fewer judged queries than this cannot be halved and still say anything."""


def judged_halves(queries: Sequence[Query], qrels: Qrels, seed: int) -> tuple[list[Query], list[Query]]:
    """The judged queries in two halves, to learn on and held out, which follow from their ids and the seed.

    Each is in the order given. Raises InputError for less than LEAST_QUERIES judged queries.
    """
    check_overlap([query.id for query in queries], [query_id for query_id, judgments in qrels.items() if judgments])
    judged = [query for query in queries if qrels.get(query.id)]
    if len(judged) < LEAST_QUERIES:
        raise InputError(
            f"{len(judged)} judged queries", expected=f"at least {LEAST_QUERIES}: half of them are held out"
        )
    ids = sorted(query.id for query in judged)
    random.Random(seed).shuffle(ids)
    chosen: set[QueryId] = set(ids[: len(ids) // 2])
    return [q for q in judged if q.id in chosen], [q for q in judged if q.id not in chosen]
