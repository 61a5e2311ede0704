"""A server that is killed while it searches and writes, and started again."""

from __future__ import annotations

import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import FALCONS

pytest.importorskip("fastapi", reason="the extra serve is not installed")

import httpx2

from tests.serving.served import Start
from tiercel.index.store import Index
from tiercel.types import DocId

_CALLERS = 3  # that search, and as many that add
_KILLS = 2


class Callers:
    """Searches and adds at once until told to stop, whatever becomes of the server."""

    def __init__(self, url: str) -> None:
        self.added: list[str] = []
        self.searches = 0
        self.statuses: set[int] = set()
        self.lost = 0
        self._url = url
        self._change = threading.Condition()
        self._stop = threading.Event()

    def run(self, number: int) -> None:
        """Ask again and again; raises for every failure but a refused or broken connection."""
        with httpx2.Client(base_url=self._url, timeout=60) as http:
            for turn in count():
                if self._stop.is_set():
                    return
                try:
                    self._ask(http, number, turn)
                except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                    self.lost += 1
                    self._stop.wait(0.02)

    def _ask(self, http: httpx2.Client, number: int, turn: int) -> None:
        doc_id = f"{number}-{turn}"
        if adds := number < _CALLERS:
            response = http.post("/documents", json={"documents": [{"id": doc_id, "text": "a small tower"}]})
        else:
            response = http.post("/search", json={"query": "falcon tower"})
        with self._change:
            self.statuses.add(response.status_code)
            if response.status_code == 200:
                self.added += [doc_id] if adds else []
                self.searches += not adds
                self._change.notify_all()

    def wait_for_more(self) -> None:
        """Until three more changes and three more searches are answered."""
        with self._change:
            added, searches = len(self.added) + 3, self.searches + 3
            answered = self._change.wait_for(
                lambda: len(self.added) >= added and self.searches >= searches, timeout=120
            )
            assert answered, (self.added, self.searches, self.statuses)

    def stop(self) -> None:
        """Let each finish what it asks for."""
        self._stop.set()


def test_a_kill_under_load_loses_no_answered_change(start: Start, dense_index: Path, place: Path) -> None:
    path = place / "copy"
    shutil.copytree(dense_index, path)
    served = start(str(path), "--allow-changes")
    callers = Callers(served.url)
    with ThreadPoolExecutor(2 * _CALLERS) as pool:
        asking = [pool.submit(callers.run, number) for number in range(2 * _CALLERS)]
        try:
            for _ in range(_KILLS):
                callers.wait_for_more()
                assert served.stop(signal.SIGKILL) == -signal.SIGKILL
                served = start(str(path), "--allow-changes", "--port", str(served.port))
            callers.wait_for_more()
        finally:
            callers.stop()
    for one in asking:
        one.result()
    assert callers.lost >= _KILLS
    assert 200 in callers.statuses <= {200, 503}
    assert served.stop() in (0, -signal.SIGTERM)
    index = Index(path)
    index.verify()
    assert index.missing([DocId(doc_id) for doc_id in callers.added]) == []
    under_way = _KILLS * _CALLERS  # at a kill; whether these are in nobody was told
    assert 0 <= len(index) - len(FALCONS) - len(callers.added) <= under_way
