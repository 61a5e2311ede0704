"""Commands as a user gives them: in this process, in one of their own, and on a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tiercel.cli import main

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The tab-separated cells of stdout."""
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self) -> Any:
        """The one JSON value that stdout holds."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, a cache folder and an environment that holds no setting."""
    for name in list(os.environ):
        if name.startswith("TIERCEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(tmp_path / ".cache"))
    monkeypatch.setenv("TIERCEL_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process."""

    def run_command(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(arguments)
        captured = capsys.readouterr()
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return run_command


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command that has to be refused with this exit code: one line on stderr, nothing on stdout."""

    def run_refused(code: int, *arguments: str, stdin: bytes = b"") -> str:
        outcome = run(*arguments, stdin=stdin)
        assert (outcome.code, outcome.out) == (code, ""), outcome
        assert outcome.err.startswith("tiercel: ")
        assert outcome.err.count("\n") == 1
        return outcome.err

    return run_refused


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process of its own, which finds this checkout from any folder."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **changes}


def without_packages(folder: Path, *packages: str) -> dict[str, str]:
    """The environment of a Python, started with -S, that has all packages of this one but these."""
    folder.mkdir()
    left_out = {re.sub(r"[-.]", "_", name).lower() for name in packages}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        package = re.sub(r"(-[0-9].*)?\.(dist-info|py)$", "", entry.name).replace("-", "_").lower()
        if package not in left_out and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return environment(PYTHONPATH=os.pathsep.join([str(REPOSITORY), str(folder)]))


def spawned(*arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Outcome:
    """Run `python -m tiercel.cli` in a process of its own."""
    return python("-m", "tiercel.cli", *arguments, env=env, stdin=stdin)


def python(*arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", seconds: float = 60) -> Outcome:
    """Run Python in a process of its own, for at most so many seconds."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, env=env or environment(), input=stdin, timeout=seconds
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def on_terminal(arguments: Sequence[str], **changes: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of 100 columns: exit code, and all that the screen was sent."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="100", **changes)
    with subprocess.Popen(
        [sys.executable, "-m", "tiercel.cli", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        sent = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # Linux reports the end of a terminal as an I/O error
                break
            if not piece:
                break
            sent += piece
        os.close(ours)
        return process.wait(timeout=60), sent.decode()


def write_lines(path: Path, *records: object) -> Path:
    """One JSON value a line."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


FALCONS: list[dict[str, Any]] = [
    {"id": "d1", "text": "the falcon hunts in winter", "title": "Falcons", "year": 2020},
    {"id": "d2", "text": "bread is sold by the bridge", "year": 2021},
    {"id": "d3", "text": "nobody swims in the deep river", "year": 2022},
]


class Models(NamedTuple):
    """Tiny exported models, and the cache that they are in."""

    cache: Path
    encoder: str
    cross: str


@pytest.fixture(scope="session")
def shared_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Exported once."""
    from tests.models.tiny import make_cross_encoder, make_encoder
    from tiercel.models.zoo import prepare_model

    folder = tmp_path_factory.mktemp("models")
    cache = folder / "cache"
    encoder = prepare_model(str(make_encoder(folder / "bi")), cache_dir=cache, offline=True)
    cross = make_cross_encoder(folder / "cross")
    return Models(
        cache, str(encoder), str(prepare_model(str(cross), family="cross-encoder", cache_dir=cache, offline=True))
    )


class UniModel(NamedTuple):
    """A tiny Uni-Encoder as training saves it, and in fp32 ONNX."""

    source: Path
    exported: Path


@pytest.fixture(scope="session")
def uni_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, UniModel]:
    """One of each mask, exported once; `arrow` reads 5 candidates together."""
    from tests.models.tiny import make_uni_encoder
    from tiercel.models.export_uni_encoder import export
    from tiercel.models.zoo import find_source

    folder = tmp_path_factory.mktemp("uni")
    made = {}
    for mask, size in (("one-way", 0), ("arrow", 5)):
        source = make_uni_encoder(folder / mask, mask=mask, group_size=size)
        report = export(find_source(str(source), offline=True), folder / f"{mask}-fp32", precision="fp32")
        made[mask] = UniModel(source, report.folder)
    return made


@pytest.fixture
def models(shared_models: Models, place: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """The same, with their cache as the one of the environment."""
    monkeypatch.setenv("TIERCEL_CACHE_DIR", str(shared_models.cache))
    return shared_models


@pytest.fixture(scope="session")
def dense_index(shared_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FALCONS with vectors; not to be changed."""
    from tiercel.config import Settings
    from tiercel.data.corpus import as_document
    from tiercel.index_settings import IndexOptions
    from tiercel.indexing import add_documents

    path = tmp_path_factory.mktemp("indexed") / "docs.tiercel"
    settings = Settings(cache_dir=shared_models.cache, offline=True, threads=2)
    add_documents(path, map(as_document, FALCONS), IndexOptions(encoder=shared_models.encoder), settings=settings)
    return path
