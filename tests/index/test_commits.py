from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.index.made import FALCONS, build_index, files_of, indexed, named, settings_of
from tiercel.errors import IndexStoreError
from tiercel.index import commits
from tiercel.index.commits import check_commit_file, hold_last_commit, remove_garbage
from tiercel.index.manifest import MANIFEST, Manifest, commit_manifest, read_manifest

ROOT = Path(__file__).resolve().parents[2]


def commit(path: Path, number: int) -> Manifest:
    """A commit without segments."""
    manifest = Manifest(number, settings_of(), {}, (), 1)
    commit_manifest(path, manifest)
    return manifest


def kept(path: Path) -> list[str]:
    return files_of(path / "commits")


def test_a_held_commit_stays_until_it_is_let_go(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    manifest, hold = hold_last_commit(tmp_path)
    assert manifest.commit == 1
    last = commit(tmp_path, 2)
    remove_garbage(tmp_path, last)
    assert kept(tmp_path) == ["00000001.json", "00000002.json"]
    hold.release()
    remove_garbage(tmp_path, last)
    assert kept(tmp_path) == ["00000002.json"]


def test_a_hold_goes_with_its_last_reference(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    _, hold = hold_last_commit(tmp_path)
    last = commit(tmp_path, 2)
    del hold
    remove_garbage(tmp_path, last)
    assert kept(tmp_path) == ["00000002.json"]


HOLDER = """
import sys
from pathlib import Path
from tiercel.index.commits import hold_last_commit
held = hold_last_commit(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    commit(tmp_path, 1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        last = commit(tmp_path, 2)
        remove_garbage(tmp_path, last)
        assert kept(tmp_path) == ["00000001.json", "00000002.json"]
        holder.kill()
    remove_garbage(tmp_path, last)
    assert kept(tmp_path) == ["00000002.json"]


def test_what_no_commit_names_goes(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    (tmp_path / "x/segments/00000009").mkdir()
    (tmp_path / "x/segments/00000009/some.npy").write_bytes(b"some")
    (tmp_path / "x/deletes/00000001-00000009").mkdir(parents=True)
    (tmp_path / "x" / f"{MANIFEST}.new").write_bytes(b"half")
    (tmp_path / "x/commits/00000002.json").write_bytes(b"half")
    remove_garbage(tmp_path / "x", index.manifest)
    assert {path.name for path in (tmp_path / "x/segments").iterdir()} == {"00000001"}
    assert not list((tmp_path / "x/deletes").iterdir())
    assert kept(tmp_path / "x") == ["00000001.json"]
    assert not (tmp_path / "x" / f"{MANIFEST}.new").exists()


def test_without_any_commit_everything_goes(tmp_path: Path) -> None:
    (tmp_path / "segments/00000001").mkdir(parents=True)
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits/00000001.json").write_bytes(b"half")
    remove_garbage(tmp_path, None)
    assert files_of(tmp_path) == []


def test_a_commit_that_goes_before_it_can_be_held_is_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(tmp_path / "x", FALCONS, settings_of())
    overtaking = iter([True])

    def read_and_be_overtaken(path: Path, commit: int | None = None) -> Manifest:
        manifest = read_manifest(path, commit)
        if next(overtaking, False):
            build_index(path, named(["pigeon"]), settings_of())
        return manifest

    monkeypatch.setattr(commits, "read_manifest", read_and_be_overtaken)
    manifest, hold = hold_last_commit(tmp_path / "x")
    assert manifest.commit == 2
    hold.release()


def test_a_copy_without_its_commit_files_can_be_read(tmp_path: Path) -> None:
    commit(tmp_path, 3)
    (tmp_path / "commits/00000003.json").unlink()
    manifest, hold = hold_last_commit(tmp_path)
    assert manifest.commit == 3
    hold.release()
    with pytest.raises(IndexStoreError, match=r"commits/00000003.json: the file that readers hold on to is missing"):
        check_commit_file(tmp_path, manifest)


def test_a_commit_file_that_differs_is_named(tmp_path: Path) -> None:
    manifest = commit(tmp_path, 1)
    check_commit_file(tmp_path, manifest)
    (tmp_path / "commits/00000001.json").write_bytes(b"{}")
    with pytest.raises(IndexStoreError, match=r"commits/00000001.json: this is not a manifest"):
        check_commit_file(tmp_path, manifest)
