"""How is an index part read and written so that damage is seen? Arrays, digests, durable files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError

_BLOCK = 1 << 20


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy, little-endian, never pickled."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def map_array(path: Path) -> NDArray[Any]:
    """Map an array of `write_array` into memory, read-only. Raises IndexStoreError naming a damaged file."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:  # the last two: a broken header
        raise damaged(path, str(error)) from error
    return np.asarray(mapped)


def damaged(path: Path, problem: str, otherwise: str = "") -> IndexStoreError:
    """The error for a file of an index that is not as it was written; `otherwise` says what it may be instead."""
    step = f"{otherwise}; else build it again." if otherwise else "Build the index again."
    return IndexStoreError(problem, where=str(path), expected="the file as it was written", next_step=step)


def digest(path: Path) -> str:
    """BLAKE2b (16 bytes, hex) of a file's content."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def make_durable(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk before anything else happens."""
    if path.is_dir() and os.name == "nt":  # Windows has no handle for a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
