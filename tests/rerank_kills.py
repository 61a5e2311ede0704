"""Kill a process that reranks a run, again and again, at random moments. Run by test_run_reranking.py.

    python -m tests.rerank_kills FOLDER TRIALS

What was killed is started again with the same arguments, and may be killed again, until it ends. The run must then be,
byte for byte, that of a process that nobody killed. Processes are forked from this one, so a trial takes milliseconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tiercel.data.candidates import HeldDocuments, named_by
from tiercel.protocols import CandidateGroup
from tiercel.run_reranking import CandidateRun, RunTarget, write_reranked
from tiercel.types import DocId, Document, Query, QueryId, Ranking

QUERIES = 400
HITS = 7


class Checksums:
    """Scores a text by its checksum, so that no two runs of it differ; slowly enough to be met in the middle."""

    fingerprint = "checksums"

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        time.sleep(0.002)
        return [
            np.array(
                [crc32(f"{group.query.text} {document.text}".encode()) / 2**29 - 4 for document in group.documents],
                dtype=np.float32,
            )
            for group in groups
        ]


def made_run() -> CandidateRun:
    """Queries of overlapping hits, some of them without any."""
    documents = [Document(DocId(f"d{number}"), f"text {number} é") for number in range(100)]
    rankings = []
    for number in range(QUERIES):
        ids = [documents[(number * 3 + place) % 100].id for place in range(HITS if number % 9 else 0)]
        query = Query(QueryId(f"q{number}"), f"query {number}")
        rankings.append(Ranking.from_scores(query, ids, range(len(ids)), stage="bm25", keep=HITS))
    held = HeldDocuments(named_by(rankings), documents)
    return CandidateRun(rankings, [ranking.query for ranking in rankings], held, corpus_digest=held.digest())


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


def main(folder: Path, trials: int) -> None:
    """Raise for a run that differs; print how many processes were killed, and how many of them had kept something."""
    candidates = made_run()

    def work(path: Path) -> None:
        write_reranked(Checksums(), candidates, RunTarget(str(path), keep=5), asked={"model": Checksums.fingerprint})

    chance = random.Random(5)
    killed = resumed = 0
    for ending in ("trec", "jsonl", "jsonl.gz"):
        started = time.perf_counter()
        whole = folder / f"whole.{ending}"
        assert forked(partial(work, whole)) == 0
        longest = time.perf_counter() - started
        path = folder / f"out.{ending}"
        for _ in range(trials):
            kill_after: float | None = chance.uniform(0, longest)
            while (status := forked(partial(work, path), kill_after=kill_after)) != 0:
                assert status == -signal.SIGKILL
                assert not path.exists() or path.read_bytes() == whole.read_bytes()
                killed += 1
                left = folder / f"out.{ending}.partial"
                resumed += left.exists() and left.read_bytes().count(b"\n") > 1
                kill_after = None if chance.random() < 0.3 else chance.uniform(0, longest)
            assert path.read_bytes() == whole.read_bytes()
            path.unlink()
        # A kill while the run itself is written leaves a hidden file beside it, as with every file that is written.
        assert [name for name in os.listdir(folder) if not name.endswith(".tmp")] == [whole.name]
        whole.unlink()
    print(killed, resumed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
