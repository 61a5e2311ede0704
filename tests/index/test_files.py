from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tiercel.errors import IndexStoreError
from tiercel.index.files import damaged, digest, make_durable, map_array, write_array


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "i8", "f4"])
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_arrays_come_back_as_they_were(tmp_path: Path, dtype: str, size: int) -> None:
    array = np.arange(size).astype(dtype)
    write_array(tmp_path / "a.npy", array)
    again = map_array(tmp_path / "a.npy")
    assert (again.dtype, again.tolist()) == (array.dtype, array.tolist())
    assert type(again) is np.ndarray
    assert not again.flags.writeable


def test_an_array_with_gaps_is_written_whole(tmp_path: Path) -> None:
    write_array(tmp_path / "a.npy", np.arange(10)[::3])
    assert map_array(tmp_path / "a.npy").tolist() == [0, 3, 6, 9]


def test_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_array(tmp_path / "a.npy", np.array([{}]))
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(IndexStoreError, match=r"b\.npy: .*Python objects"):
        map_array(tmp_path / "b.npy")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / 'a.npy'}: "):
        map_array(tmp_path / "a.npy")


def test_an_array_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_array(path, np.arange(20))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(IndexStoreError, match=f"^{path}: "):
            map_array(path)


def test_a_broken_header_gives_no_other_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_array(path, np.arange(20))
    whole = path.read_bytes()
    for place in range(128):
        for flip in (0x01, 0x10, 0x80, 0xFF):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            try:
                map_array(path)
            except IndexStoreError as error:
                assert error.where == str(path)  # noqa: PT017


def test_a_digest_is_blake2b_over_all_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert digest(tmp_path / "a") == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_damage_says_what_to_do(tmp_path: Path) -> None:
    error = damaged(tmp_path / "a", "it is gone")
    assert str(error) == f"{tmp_path / 'a'}: it is gone; expected the file as it was written. Build the index again."


def test_files_and_folders_are_made_durable(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    make_durable(tmp_path / "a")
    make_durable(tmp_path)
