"""Kill a process that changes an index, again and again, and look at what it left. Run by test_crashes.py.

    python -m tests.index.crashes FOLDER TRIALS [CODEC]

Every change is stopped at every step that the code names, and TRIALS times at a random moment. After each kill the
index must open, verify, and hold exactly what it held before or after the change; the same change, made again, must
succeed. With a CODEC the index keeps token vectors in that form too. Processes are forked from this one, which has
everything loaded, so a trial takes milliseconds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from tests.index.made import (
    JointWords,
    add_documents,
    asked,
    build_index,
    compact_index,
    delete_documents,
    named,
    settings_of,
    zipf_texts,
)
from tiercel.config import TokenCodec
from tiercel.index import files
from tiercel.index.dense import DenseRetriever
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.manifest import read_manifest
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.types import DocId, Document, Query

ENCODER = JointWords(8)
FIRST = named(zipf_texts(1500, words=80, seed=1))
MORE = [*FIRST[100:300:2], *named(zipf_texts(1200, words=80, seed=2), shape="e{:05d}")]
GONE = [document.id for document in FIRST[::3]]
OTHERS = named(zipf_texts(1100, words=80, seed=3), shape="f{:05d}")

CODEC: TokenCodec | None = None


def build(path: Path, documents: Sequence[Document]) -> None:
    build_index(path, documents, settings_of(encoder=ENCODER, tokens=CODEC), encoder=ENCODER)


CHANGES: dict[str, Callable[[Path], object]] = {
    "build": lambda path: build(path, OTHERS),
    "add": lambda path: add_documents(path, MORE, encoder=ENCODER),
    "delete": lambda path: delete_documents(path, *GONE),
    "compact": compact_index,
}

State = tuple[int, int]


def state(path: Path) -> State:
    """What an index holds, in two numbers: its ids and texts, and what both legs answer. It must be whole."""
    index = Index(path)
    index.verify()
    held = sorted(
        (row["id"], row["text"])
        for view in index.views
        for batch in view.segment.documents.batches(view.live)
        for row in batch.to_pylist()
    )
    queries = asked("w1 w5", "w20")
    lexical = LexicalRetriever(index.views, index.analyzer).retrieve(queries, keep=5)
    dense = DenseRetriever(index.views, ENCODER).retrieve(queries, keep=5)
    late = [] if CODEC is None else late_scores(index, queries, [DocId(doc_id) for doc_id, _ in held[::7]])
    return hash(tuple(held)), hash((*late, *(ranking.hits for ranking in [*lexical, *dense])))


def late_scores(index: Index, queries: Sequence[Query], ids: Sequence[DocId]) -> list[float]:
    """What late interaction makes of these documents, from the stored vectors."""
    reranker = LateInteraction(ENCODER.tokens, stored=StoredTokens(index.views))
    groups = [CandidateGroup(query, [Document(doc_id, "") for doc_id in ids]) for query in queries]
    return [score for scores in reranker.score(groups) for score in scores.tolist()]


def forked(work: Callable[[], object], *, kill_after: float | None = None) -> int:
    """Exit status of a child that does the work: 0 done, 1 failed, -9 killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(change: Callable[[Path], object], path: Path, number: int) -> Callable[[], None]:
    """The change, stopped at the step of this number, counted from 0."""

    def work() -> None:
        left = [number]

        def stop(step: str) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        files.on_step = stop
        change(path)

    return work


def steps_of(change: Callable[[Path], object], path: Path) -> list[str]:
    """The steps that a change passes."""
    passed: list[str] = []
    files.on_step = passed.append
    try:
        change(path)
    finally:
        files.on_step = lambda step: None
    return passed


def check(path: Path, allowed: set[State], where: str) -> None:
    """Fail unless the index is in one of these states; looked at in a process of its own."""

    def work() -> None:
        found = state(path)
        if found not in allowed:
            raise AssertionError(f"{where}: the index holds neither what it held before nor after")
        named_by_it = read_manifest(path).folders
        assert all((path / folder).is_dir() for folder in named_by_it), where

    if forked(work) != 0:
        sys.exit(f"after {where}")


def main(folder: Path, trials: int) -> None:
    """All changes, all steps, then random moments."""
    start = folder / "start"
    build(start, FIRST)
    add_documents(start, FIRST[:10], encoder=ENCODER)
    before = state(start)
    drawn = random.Random(5)
    killed = 0
    seen: set[str] = set()
    durations: dict[str, float] = {}
    after: dict[str, State] = {}
    for name, change in CHANGES.items():
        shutil.copytree(start, folder / name)
        begun = time.perf_counter()
        steps = steps_of(change, folder / name)
        durations[name] = time.perf_counter() - begun
        after[name] = state(folder / name)
        seen.update(steps)
        for number, step in enumerate(steps):
            path = folder / "trial"
            shutil.copytree(start, path)
            assert forked(killed_at(change, path, number)) == -signal.SIGKILL
            killed += 1
            check(path, {before, after[name]}, f"{name} killed at {number} ({step})")
            assert forked(lambda change=change, path=path: change(path)) == 0  # type: ignore[misc]
            check(path, {after[name]}, f"{name} killed at {number} ({step}) and made again")
            shutil.rmtree(path)
    if missing := set(files.STEPS) - seen:
        sys.exit(f"no change passes {missing}")
    for trial in range(trials):
        name = drawn.choice(list(CHANGES))
        path = folder / "trial"
        shutil.copytree(start, path)
        delay = drawn.uniform(0, 1.1) * durations[name]
        killed += forked(lambda name=name, path=path: CHANGES[name](path), kill_after=delay) != 0  # type: ignore[misc]
        check(path, {before, after[name]}, f"{name} killed after {delay:.4f} s (trial {trial})")
        shutil.rmtree(path)
    print(f"{killed} killed")


if __name__ == "__main__":
    CODEC = cast("TokenCodec", sys.argv[3]) if len(sys.argv) > 3 else None
    main(Path(sys.argv[1]), int(sys.argv[2]))
