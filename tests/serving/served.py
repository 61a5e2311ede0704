"""A real server, in a process of its own, for the tests of this folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import environment

KEY = "a-secret"


class Server:
    """`tiercel serve` in a process of its own."""

    def __init__(self, cache: Path, *arguments: str, **variables: str) -> None:
        env = {name: value for name, value in environment().items() if not name.startswith("TIERCEL_")}
        env |= {"TIERCEL_CACHE_DIR": str(cache), "TIERCEL_OFFLINE": "1", "TIERCEL_THREADS": "2", **variables}
        command = [sys.executable, "-m", "tiercel.cli", "serve", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "serving at http://127.0.0.1:" in line, line + self.process.stderr.read()
        self.url = line.split(" at ")[1].strip()
        self.port = int(self.url.rpartition(":")[2])
        self.http = httpx2.Client(base_url=self.url, timeout=120, headers={"Authorization": f"Bearer {KEY}"})
        for _ in range(2400):
            if self.http.get("/ready").status_code == 200:
                return
            assert self.process.poll() is None
            signal.sigtimedwait([], 0.05)
        raise AssertionError("not ready")

    def post(self, path: str, **body: Any) -> Any:
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, status: int, method: str, path: str, **request: Any) -> dict[str, str]:
        response = self.http.request(method, path, **request)
        assert response.status_code == status, response.text
        answer: dict[str, str] = response.json()
        assert set(answer) == {"error", "error_type"}
        return answer

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(by)
        code = self.process.wait(timeout=20)
        self.http.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


Start = Callable[..., Server]
