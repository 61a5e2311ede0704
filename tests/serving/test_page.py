"""The page of a real server, in headless Chromium where there is one."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

import tiercel
from tests.conftest import FALCONS, Models

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from tests.serving.served import Server, Start

Evaluate = Callable[[str], Any]


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    response = server.http.get("/", headers={"Authorization": ""})
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "//" not in response.text.replace("// ", "")
    assert "innerHTML" not in response.text  # what is found is text, whatever it holds
    inputs = set(re.findall(r'<input id="(\w+)"', response.text))
    assert inputs == set(re.findall(r'<label for="(\w+)"', response.text)) == {"query", "where", "pipeline", "k", "key"}


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or pytest.skip("no Chromium here")


def shown(server: Server, tmp_path: Path, **asked: str) -> str:
    """The page's text in headless Chromium, once it has searched."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
        f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=5000",
        f"{server.url}/?{urlencode(asked)}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=90, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_in_a_browser(start: Start, dense_index: Path, tmp_path: Path) -> None:
    server = start(str(dense_index))
    page = shown(server, tmp_path, query="falcons in winter", k="2")
    assert "2 documents" in page
    assert "<strong>Falcons</strong><p>the <mark>falcon</mark> hunts in <mark>winter</mark></p>" in page
    assert re.findall(r"<h3>(\S+) ·", page) == ["bm25", "dense", "bm25+dense"]
    page = shown(server, tmp_path, query="falcon", where="year = 2021")
    assert "1 document<" in page
    assert "<strong>d2</strong>" in page
    assert "Nothing was found." in shown(server, tmp_path, query="falcon", where="year = 1900")
    page = shown(server, tmp_path, query="falcon", pipeline="bm26")
    assert re.search(r'<p id="status"[^>]*class="error">[^<]*no recall leg called', page)
    assert '<main id="answer" hidden=""' in page


@contextmanager
def browsing(url: str, folder: Path) -> Iterator[Evaluate]:
    """Opens the page and runs scripts in it, through DevTools' protocol."""
    client = pytest.importorskip("websockets.sync.client")
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'browser'}", "--remote-debugging-port=0", url,
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            with urlopen(f"http://{line.split('//')[1].split('/')[0]}/json/list") as response:
                (page,) = [target for target in json.load(response) if target["type"] == "page"]
            with client.connect(page["webSocketDebuggerUrl"], proxy=None) as socket:

                def evaluate(script: str) -> Any:
                    parameters = {"expression": script, "returnByValue": True, "awaitPromise": True}
                    socket.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": parameters}))
                    answer = json.loads(socket.recv(timeout=60))["result"]
                    assert "exceptionDetails" not in answer, answer
                    return answer["result"].get("value")

                yield evaluate
        finally:
            process.kill()


def until(evaluate: Evaluate, script: str) -> None:
    for _ in range(600):
        if evaluate(script):
            return
        signal.sigtimedwait([], 0.05)
    raise AssertionError(f"never: {script}")


@pytest.fixture
def late_index(models: Models, place: Path) -> Path:
    """FALCONS with token vectors."""
    options = tiercel.IndexOptions(encoder=models.encoder, tokens="fp16")
    return tiercel.create(place / "late.tiercel", FALCONS, options=options).path


def test_what_late_interaction_compared_is_answered(start: Start, late_index: Path) -> None:
    server = start(str(late_index))
    (found,) = server.post("/search", query="winter falcons", k=2, explain=True)["results"]
    late = next(stage for stage in found["stages"] if stage["name"] == "minmax:late")
    for hit in found["hits"]:
        tokens = hit["tokens"]
        assert tokens["score"] == pytest.approx(sum(pair["similarity"] for pair in tokens["pairs"]), abs=1e-5)
        assert tokens["text"].endswith(hit["text"])
        for pair in tokens["pairs"]:
            assert pair["span"] is None or tokens["text"][slice(*pair["span"])] == pair["found"]
    assert [hit["id"] for hit in found["hits"]] == [doc_id for doc_id, _ in late["hits"]]
    assert "tokens" not in server.post("/search", query="winter falcons", k=2)["results"][0]["hits"][0]
    (plain,) = server.post("/search", query="falcon", pipeline="bm25", explain=True)["results"]
    assert "tokens" not in plain["hits"][0]
    assert server.stop() in (0, -signal.SIGTERM)


def test_the_tokens_that_are_alike_are_shown_to_mouse_and_keyboard(
    start: Start, late_index: Path, tmp_path: Path
) -> None:
    server = start(str(late_index))
    (found,) = server.post("/search", query="winter falcons", k=1, explain=True)["results"]
    pairs = found["hits"][0]["tokens"]["pairs"]
    number, pair = next((number, pair) for number, pair in enumerate(pairs) if pair["span"])
    with browsing(f"{server.url}/?query=winter+falcons&k=1", tmp_path) as evaluate:
        until(evaluate, "document.querySelectorAll('.tokens button').length > 0")
        shown = "[...document.querySelectorAll('.tokens button')].map(button => button.textContent)"
        assert evaluate(shown) == [pair["asked"] for pair in pairs]
        marks = evaluate("[...document.querySelectorAll('mark.token')].map(mark => mark.textContent)")
        assert marks == [found["hits"][0]["tokens"]["text"][slice(*span)] for span in sorted({
            tuple(pair["span"]) for pair in pairs if pair["span"]
        })]  # fmt: skip
        lit = "[...document.querySelectorAll('mark.lit')].map(mark => mark.textContent)"
        button = f"document.querySelectorAll('.tokens button')[{number}]"
        assert evaluate(lit) == []
        evaluate(f"{button}.dispatchEvent(new MouseEvent('mouseenter'))")
        assert evaluate(lit) == [pair["found"]]
        assert f"→ {pair['found']} {pair['similarity']:.3f}" in evaluate("document.querySelector('output').textContent")
        evaluate(f"{button}.dispatchEvent(new MouseEvent('mouseleave'))")
        assert evaluate(lit) == []
        evaluate("document.querySelector('.tokens button[tabindex=\"0\"]').focus()")
        right = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
        for _ in range(number):
            evaluate(right)
        assert evaluate(f"document.activeElement === {button}")
        assert evaluate(lit) == [pair["found"]]
        assert evaluate("document.querySelectorAll('.tokens button[tabindex=\"0\"]').length") == 1
    assert server.stop() in (0, -signal.SIGTERM)
