"""Who reads which commit, and what may therefore go?

A reader holds a shared lock on `commits/<number>.json`, the copy of its manifest. The lock belongs to the open
file, so it goes with the reader's process however that ends. The writer removes what neither the last commit nor one
that is held names. Where the system has no such locks (Windows), a file in use cannot be removed and goes later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tiercel.index.files import damaged, reached
from tiercel.index.manifest import (
    COMMITS,
    DELETES,
    MANIFEST,
    SEGMENTS,
    Manifest,
    commit_file,
    read_manifest,
)

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


_NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}  # what a file system without them says


class Hold:
    """A reader's claim on a commit: as long as this object lives, what the commit names stays.

    `descriptor` is that of the open, locked file; None holds nothing.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        """Let go."""
        self.release()

    def release(self) -> None:
        """Let go now; again is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def hold_last_commit(index: Path) -> tuple[Manifest, Hold]:
    """The last commit, held. Raises IndexStoreError as `read_manifest` does."""
    while True:
        manifest = read_manifest(index)
        hold = _hold(index, manifest.commit)
        if hold is not None:
            return manifest, hold
        # Removed before it could be held: a writer has gone on, or nobody keeps such files for this copy.
        if read_manifest(index).commit == manifest.commit:
            return manifest, Hold()


def remove_garbage(index: Path, manifest: Manifest | None) -> None:
    """Remove what neither this last commit nor one that a reader holds needs. For the writer only."""
    kept = set() if manifest is None else {*manifest.folders, *_held_folders(index, manifest.commit)}
    if manifest is None and (index / COMMITS).is_dir():
        shutil.rmtree(index / COMMITS, ignore_errors=True)
    for parent in (SEGMENTS, DELETES):
        for folder in sorted((index / parent).iterdir()) if (index / parent).is_dir() else ():
            if f"{parent}/{folder.name}" not in kept:
                shutil.rmtree(folder, ignore_errors=True)
    (index / f"{MANIFEST}.new").unlink(missing_ok=True)
    reached("garbage removed")


def _hold(index: Path, commit: int) -> Hold | None:
    """A shared lock on a commit's file; None if there is no such file any more."""
    try:
        descriptor = os.open(commit_file(index, commit), os.O_RDONLY)
    except OSError:
        return None
    hold = Hold(descriptor)
    if fcntl is not None:
        # A file system without locks is read as a copy that nobody changes.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
    return hold if os.fstat(descriptor).st_nlink else None


def _held_folders(index: Path, last: int) -> Iterator[str]:
    """What the commits before the last need that are still held; the files of the others are removed."""
    for path in sorted((index / COMMITS).glob("*.json")):
        if not path.stem.isdecimal() or int(path.stem) == last:
            continue
        if not _removed_unless_held(path):
            yield from read_manifest(index, int(path.stem)).folders


def _removed_unless_held(path: Path) -> bool:
    """Remove a commit's file, unless a reader has it locked; True if it is gone."""
    # Open for writing: where flock is made of fcntl's locks, as on NFS, an exclusive one is refused otherwise.
    with path.open("r+b") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                return False
        # Removed under the lock: a reader that waits for it finds a file without a name, and looks again.
        path.unlink(missing_ok=True)
        return True


def check_commit_file(index: Path, manifest: Manifest) -> None:
    """Raises IndexStoreError unless a commit's file says what its manifest says."""
    path = commit_file(index, manifest.commit)
    if not path.is_file():
        raise damaged(path, "the file that readers hold on to is missing")
    if read_manifest(index, manifest.commit) != manifest:
        raise damaged(path, "it is not the manifest of its commit")
    if read_manifest(index) == manifest and path.read_bytes() != (index / MANIFEST).read_bytes():
        raise damaged(path, f"it differs from {MANIFEST}")
