"""How is an index part read and written so that damage is seen? Arrays, digests, durable files.

A change of an index passes the STEPS below. A process may be stopped before or after any of them, and the index must be
as its last commit left it or as the next one does. `on_step` hears of each; tests stop the process there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError

_BLOCK = 1 << 20

STEPS = (
    "journal written", "journal synced", "segment begun", "segment written", "segment synced", "deletes written",
    "deletes synced", "commit kept", "manifest written", "manifest renamed", "garbage removed",
)  # fmt: skip


def _nobody_listens(step: str) -> None:
    pass


on_step: Callable[[str], None] = _nobody_listens


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and BLAKE2b digest of one file of an index."""

    size_bytes: int
    digest: str


def reached(step: str) -> None:
    """Tell `on_step` that one of STEPS is behind."""
    on_step(step)


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


def seal(folder: Path, part: str) -> dict[str, FileRecord]:
    """Have the system write a folder and all in it to the disk; the records of its files, by relative path, sorted.

    `part` is what STEPS call it.
    """
    reached(f"{part} written")
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        make_durable(path)
        files[path.relative_to(folder).as_posix()] = FileRecord(path.stat().st_size, digest(path))
    for inner in [folder.parent, folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        make_durable(inner)
    reached(f"{part} synced")
    return files


def check_sizes(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Raises IndexStoreError naming the first file of a sealed folder that is missing or of another size."""
    for name, file in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise damaged(path, "the file is missing") from error
        if size != file.size_bytes:
            raise damaged(path, f"it holds {size} bytes, the manifest says {file.size_bytes}")


def check_digests(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Read every byte. Raises IndexStoreError naming the first file that is not as it was sealed."""
    check_sizes(folder, files)
    for name, file in files.items():
        if digest(folder / name) != file.digest:
            raise damaged(folder / name, "its content does not match its digest")


def make_durable(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk before anything else happens."""
    if path.is_dir() and os.name == "nt":  # Windows has no handle for a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
