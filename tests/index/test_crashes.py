"""A process that changes an index may die at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.index.made import FALCONS, add_documents, indexed
from tiercel.index.store import Index

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize(("trials", "codec"), [(120, []), (40, ["int8"])])
def test_after_a_kill_the_index_is_as_before_or_as_after(tmp_path: Path, trials: int, codec: list[str]) -> None:
    command = [sys.executable, "-m", "tests.index.crashes", str(tmp_path), str(trials), *codec]
    done = subprocess.run(command, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= trials * 3 // 4


LIMITED = """
import resource, sys
from pathlib import Path
from tests.index import crashes
from tiercel.errors import TiercelError
path, change, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    crashes.CHANGES[change](path)
except (OSError, TiercelError) as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


@pytest.mark.skipif(os.name == "nt", reason="the system has no limit on the size of files")
@pytest.mark.parametrize("change", ["build", "add", "compact"])
@pytest.mark.parametrize("limit", [100, 5_000, 40_000])
def test_a_file_that_may_not_grow_is_an_error_and_leaves_the_last_commit(
    tmp_path: Path, change: str, limit: int
) -> None:
    from tests.index import crashes

    indexed(tmp_path / "x", crashes.FIRST, encoder=crashes.ENCODER)
    add_documents(tmp_path / "x", FALCONS, encoder=crashes.ENCODER)
    before = crashes.state(tmp_path / "x")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "x"), change, str(limit)]
    done = subprocess.run(command, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done
    assert crashes.state(tmp_path / "x") == before
    assert Index(tmp_path / "x").manifest.commit == 2
