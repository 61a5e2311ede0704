"""Work spread over threads, results in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(function: Callable[[_Item], _Result], items: Sequence[_Item], *, workers: int) -> list[_Result]:
    """Results in the order of `items`, which the workers take from one queue, first item first.

    One item (a query) or one worker is not worth starting threads for.
    """
    if workers == 1 or len(items) == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))
