"""What of a run is there already? Its rankings, kept beside the target while it is made, so that a stop costs little.

`TARGET.partial` holds JSON lines. The first says what was asked for. Each other one is a batch of rankings, in the
order of the run, written and synced before the next batch is begun; a line that a stop cut short is dropped. The file
holds scores as they are, whatever form the target has, and goes when the target has been written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import orjson
from filelock import FileLock, Timeout

from tiercel.data.files import Source, check_target, source_name, writing
from tiercel.data.runs import ranking_of, record_of
from tiercel.errors import InputError
from tiercel.types import Ranking

ENDING = ".partial"

_BEGIN = b'{"tiercel":"partial run","asked":'
_SHOWN_CHARS = 12  # of a digest


class PartialRun:
    """The batches of rankings that have been made for a target so far. A context manager: it keeps others out.

    Args:
        target: the file that the run will be; a file of its name and ENDING lies beside it.
        asked: everything that decides what the rankings are, by what messages call it.
        restart: forget what is there.

    Attributes:
        batches: how many are there.
        queries: how many rankings they hold.

    Entering raises InputError for a target that cannot be written, for a file of that name that was made for
    something else (naming what differs) or is none of ours, and where another process is at it.
    """

    def __init__(self, target: Source, asked: Mapping[str, str], *, restart: bool = False) -> None:
        self._target = Path(os.path.realpath(target))
        self.path = self._target.with_name(self._target.name + ENDING)
        self.name = source_name(self.path if os.path.islink(target) else f"{target}{ENDING}")
        self.batches = 0
        self.queries = 0
        self._asked = dict(asked)
        self._restart = restart
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        self._file: BinaryIO

    def __enter__(self) -> PartialRun:
        """Take hold of the file and find the end of the last whole batch."""
        check_target(self._target)
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

    def append(self, rankings: Iterable[Ranking]) -> None:
        """Keep one more batch: when this returns it is on the disk."""
        records = [record_of(ranking) for ranking in rankings]
        self._write(orjson.dumps(records, option=orjson.OPT_APPEND_NEWLINE))
        self.batches += 1
        self.queries += len(records)

    def rankings(self) -> Iterator[Ranking]:
        """All that are kept, in order, read batch by batch."""
        self._file.seek(0)
        next(self._file)
        for line in self._file:
            yield from map(ranking_of, orjson.loads(line))

    def forget(self) -> None:
        """The target is written: forget the batches."""
        self.batches = self.queries = 0

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                "another process is making this run",
                where=source_name(self._target),
                next_step="Wait for it, stop it, or name another file with --out",
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
        while (queries := _rankings_in(self._file.readline())) is not None:
            self.batches += 1
            self.queries += queries
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
            next_step="Give the command as it was, or begin anew with --restart",
            where=self.name,
        )

    def _write(self, line: bytes) -> None:
        with writing(self.name, self.path):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())


def _rankings_in(line: bytes) -> int | None:
    """How many rankings a line holds; None for the end of the file and for a line that is not whole."""
    try:
        return len(orjson.loads(line)) if line.endswith(b"\n") else None
    except orjson.JSONDecodeError:
        return None


def _listed(asked: Mapping[str, str], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {asked.get(name, 'not told')[:_SHOWN_CHARS]}" for name in names)
