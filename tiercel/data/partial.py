"""What of a long work is there already? Its batches, kept in a file while it is done, so that a stop costs little.

The file holds JSON lines. The first says what was asked for. Each other one is a batch, in the order of the work,
written and synced before the next batch is begun; a line that a stop cut short is dropped. The file goes when the work
is done. A run has its rankings, with scores as they are, in `TARGET.partial` beside the file that it will be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import orjson
from filelock import FileLock, Timeout

from tiercel.data.files import Source, check_target, source_name, writing
from tiercel.data.runs import ranking_of, record_of
from tiercel.errors import InputError
from tiercel.types import Ranking

ENDING = ".partial"

_BEGIN = b'{"tiercel":"partial run","asked":'
_DIGEST, _SHOWN = re.compile("([0-9a-f]{12})[0-9a-f]{4,}"), r"\1"  # of a digest, what a message shows


def digest_of(records: Iterable[object]) -> str:
    """Of JSON values in their order: what tells in few characters whether two works were asked for the same."""
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        digest.update(orjson.dumps(record))
    return digest.hexdigest()


class PartialFile:
    """The batches of a work that have been done so far. A context manager: it keeps others out.

    Args:
        path: the file.
        asked: everything that decides what the batches are, by what messages call it.
        restart: forget what is there.
        anew: what to do to begin anew, in words.

    Attributes:
        name: what messages call the file.
        batches: how many are there.

    Entering raises InputError for a file that cannot be written, for one that was made for something else (naming what
    differs) or is none of ours, and where another process is at it.
    """

    def __init__(
        self,
        path: Source,
        asked: Mapping[str, str],
        *,
        restart: bool = False,
        anew: str = "remove the file to begin anew",
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.name = source_name(path)
        self.batches = 0
        self._asked = dict(asked)
        self._restart = restart
        self._anew = anew
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        self._file: BinaryIO

    def __enter__(self) -> Self:
        """Take hold of the file and find the end of the last whole batch."""
        with writing(self.name, Path(self._lock.lock_file)):
            self._acquire()
        with contextlib.ExitStack() as undo:
            undo.callback(self._release)
            with writing(self.name, self.path):
                self._file = undo.enter_context(cast(BinaryIO, self.path.open("rb+" if self.path.exists() else "wb+")))
            self._take_over()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go. A file that holds no batch says nothing and is removed."""
        self._file.close()
        if not self.batches:
            self.path.unlink(missing_ok=True)
        self._release()

    def keep(self, batch: Sequence[Any]) -> None:
        """Keep one more batch, of JSON values: when this returns it is on the disk."""
        self._write(orjson.dumps(batch, option=orjson.OPT_APPEND_NEWLINE))
        self._count(batch)

    def kept(self) -> Iterator[Sequence[Any]]:
        """All that are kept, in order, read one by one; none may be added before the last has been read."""
        self._file.seek(0)
        next(self._file)
        yield from map(orjson.loads, self._file)

    def forget(self) -> None:
        """The work is done: forget the batches."""
        self.batches = 0

    def _count(self, batch: Sequence[Any]) -> None:
        self.batches += 1

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                "another process is at this work",
                where=self.name,
                next_step="Wait for it, stop it, or name another file",
            ) from None

    def _release(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)  # while it is ours
        self._lock.release()

    def _take_over(self) -> None:
        """Stand behind the last whole batch; nothing is behind that."""
        was = self._begun_with()
        if was is None or self._restart:
            self._file.seek(0)
            self._file.truncate()
            self._write(_BEGIN + orjson.dumps(self._asked) + b"}\n")
            return
        self._check(was)
        end = self._file.tell()
        while (batch := _batch_in(self._file.readline())) is not None:
            self._count(batch)
            end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def _begun_with(self) -> dict[str, str] | None:
        """What was asked for; None where the file is new, or was stopped before it said so."""
        first = self._file.readline()
        if first[: len(_BEGIN)] != _BEGIN[: len(first)]:
            raise InputError("this is no partial run", expected="what an interrupted command left", where=self.name)
        return dict(orjson.loads(first)["asked"]) if first.endswith(b"\n") else None

    def _check(self, was: Mapping[str, str]) -> None:
        differing = [name for name in {**was, **self._asked} if was.get(name) != self._asked.get(name)]
        if not differing:
            return
        # What looks alike, as the digest of a model that differs by an option, is told only if it is all there is.
        plain = [name for name in differing if _listed(was, [name]) != _listed(self._asked, [name])]
        raise InputError(
            f"it was begun with {_listed(was, plain or differing)}",
            expected=_listed(self._asked, plain or differing),
            next_step=f"Give the command as it was, or {self._anew}",
            where=self.name,
        )

    def _write(self, line: bytes) -> None:
        with writing(self.name, self.path):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())


class PartialRun(PartialFile):
    """The rankings that have been made for a run so far, in batches.

    Args:
        target: the file that the run will be; a file of its name and ENDING lies beside it.
        asked, restart: as of any work.

    Attributes:
        queries: how many rankings there are.
    """

    def __init__(self, target: Source, asked: Mapping[str, str], *, restart: bool = False) -> None:
        beside = f"{os.path.realpath(target)}{ENDING}"
        super().__init__(beside, asked, restart=restart, anew="begin anew with --restart")
        self.name = source_name(beside if os.path.islink(target) else f"{target}{ENDING}")
        self.queries = 0
        self._target = target

    def __enter__(self) -> Self:
        """Take hold of the file. Raises also for a target that cannot be written."""
        check_target(self._target)
        return super().__enter__()

    def append(self, rankings: Iterable[Ranking]) -> None:
        """Keep one more batch: when this returns it is on the disk."""
        self.keep([record_of(ranking) for ranking in rankings])

    def rankings(self) -> Iterator[Ranking]:
        """All that are kept, in order, read batch by batch."""
        for batch in self.kept():
            yield from map(ranking_of, batch)

    def forget(self) -> None:
        """The target is written: forget the rankings."""
        super().forget()
        self.queries = 0

    def _count(self, batch: Sequence[Any]) -> None:
        super()._count(batch)
        self.queries += len(batch)


def _batch_in(line: bytes) -> list[Any] | None:
    """The batch of a line; None for the end of the file and for a line that is not whole."""
    try:
        return cast(list[Any], orjson.loads(line)) if line.endswith(b"\n") else None
    except orjson.JSONDecodeError:
        return None


def _listed(asked: Mapping[str, str], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {_DIGEST.sub(_SHOWN, asked.get(name, 'not told'))}" for name in names)
