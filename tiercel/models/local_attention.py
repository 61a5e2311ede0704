"""How does a local-attention model divide a document, and what does its head hold? TKL's numbers, without any network.

Hofstätter, Zamani, Mitra, Craswell & Hanbury, Local Self-Attention over Long Text for Efficient Document Retrieval,
SIGIR 2020. Everything here follows from one document's own length: what else is in a batch has no part in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import UsageError

Saturation: TypeAlias = Literal["learned", "log"]

CENTRES = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9)
"""Cosines that the kernels stand for; the first one counts terms that are alike in every way."""

KERNEL_WIDTH = 0.1
"""Standard deviation of every kernel."""


SETTINGS_FILE = "local_attention.json"
"""In the folder of a trained model: {"geometry": {...}, "dimension": d}. Its presence says what the folder is."""


class Chunk(NamedTuple):
    """Tokens of a document that are encoded together: it reads `first` to `last`, and gives `start` to `end`."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """How documents are divided; the defaults are the published ones.

    Attributes:
        chunk: tokens whose vectors a chunk gives.
        overlap: tokens that it reads before them, and behind them.
        window: tokens of a region.
        stride: tokens from one window to the next.
        regions: how many regions make the score.
        neighbours: windows on either side of a region's best that count with it.
        query: most tokens of a query.
        saturation: "learned", for each term of the query and each length of a window; "log", as plain TK has it.
        floor: sums of a kernel's activations count as at least so much.
    """

    chunk: int = 40
    overlap: int = 5
    window: int = 30
    stride: int = 2
    regions: int = 3
    neighbours: int = 2
    query: int = 30
    saturation: Saturation = "learned"
    floor: float = 1e-10

    def __post_init__(self) -> None:
        for name in ("chunk", "window", "stride", "regions", "query"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}", expected="1 or more")
        for name in ("overlap", "neighbours"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}", expected="0 or more")
        if self.stride > self.window:
            raise UsageError(f"stride = {self.stride}", expected=f"at most {self.window}, the window")
        if self.saturation not in get_args(Saturation):
            raise UsageError(f"saturation = {self.saturation}", expected=" or ".join(get_args(Saturation)))
        if not self.floor > 0:
            raise UsageError(f"floor = {self.floor}", expected="a number above 0")

    @property
    def offsets(self) -> tuple[int, ...]:
        """Windows of a region, from its best one: 0, -1, 1, -2, 2 and so on."""
        return (0, *(side * step for step in range(1, self.neighbours + 1) for side in (-1, 1)))

    @property
    def apart(self) -> int:
        """How many windows the best ones of two regions are apart, at least: so many tokens as a window has."""
        return -(-self.window // self.stride)

    def chunks(self, tokens: int) -> list[Chunk]:
        """The chunks of a document of so many tokens, in order; none for no tokens."""
        return [
            Chunk(
                max(0, start - self.overlap),
                min(tokens, start + self.chunk + self.overlap),
                start,
                min(tokens, start + self.chunk),
            )
            for start in range(0, tokens, self.chunk)
        ]

    def windows(self, tokens: int) -> int:
        """How many windows a document of so many tokens has, at least one; the last one may be short."""
        return 1 + -(-max(0, tokens - self.window) // self.stride)

    def region(self, best: int, tokens: int) -> tuple[int, int]:
        """The tokens, from and to, of the region whose best window is `best`, its neighbours among them."""
        last = self.windows(tokens) - 1
        first, final = max(0, best - self.neighbours), min(last, best + self.neighbours)
        return first * self.stride, min(tokens, final * self.stride + self.window)


@dataclass(frozen=True, slots=True)
class Head:
    """What makes scores of cosines, all float32; d is the length of a vector, k the number of kernels.

    Attributes:
        term: shape (d,): `x1 = term . q`, what the vector of a query's term says of how it saturates.
        saturation: shape (3, 3): a row each for u, v and w: `row[0] * x1 + row[1] * x2 + row[2]`, where x2 is the
            window's share of tokens.
        kernels: shape (k,): what each kernel weighs.
        regions: shape (regions, windows of a region): what each of these windows weighs.
    """

    term: NDArray[np.float32]
    saturation: NDArray[np.float32]
    kernels: NDArray[np.float32]
    regions: NDArray[np.float32]

    def as_json(self) -> dict[str, Any]:
        """Every number exactly, as JSON has them."""
        return {field.name: getattr(self, field.name).tolist() for field in dataclasses.fields(self)}


def is_local(folder: Path) -> bool:
    """Whether a folder holds a trained model that is not exported yet."""
    return (folder / SETTINGS_FILE).is_file()


def head_of(record: Mapping[str, Any]) -> Head:
    """What `Head.as_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
    arrays = {field.name: np.array(record[field.name], dtype=np.float32) for field in dataclasses.fields(Head)}
    return Head(**arrays)
