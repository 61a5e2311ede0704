from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiercel.data.chunking import Chunking
from tiercel.errors import IndexStoreError
from tiercel.index.columns import ColumnType
from tiercel.index.files import FileRecord
from tiercel.index.manifest import (
    FORMAT,
    MANIFEST,
    AnnRecord,
    DeletesRecord,
    EncoderRecord,
    IndexSettings,
    Manifest,
    SegmentRecord,
    TokenCount,
    TokensRecord,
    commit_manifest,
    read_manifest,
)
from tiercel.index.manifest import (
    _digest as manifest_digest,
)

ENCODER = EncoderRecord("models/Müller", "int8", "f00d", 384, 256)
SEGMENT = SegmentRecord(
    id="00000001",
    documents=3,
    rows=5,
    terms=12,
    truncated=1,
    ann=AnnRecord("HNSW32,SQ8", effort=128, recall=0.9875),
    files={"documents.arrow": FileRecord(10, "aa"), "dense/x": FileRecord(0, "bb")},
    deletes=DeletesRecord("00000001-00000007", documents=1, rows=2, terms=4, files={"terms.npy": FileRecord(1, "cc")}),
    tokens=TokenCount(400, 2),
)
SETTINGS = IndexSettings(
    "english", "abcd", ENCODER, "hnsw", chunking=Chunking("sentences", 100, 10), chunking_fingerprint="beef",
    context=("title", "headings"), declared={"year": "number"},
    tokens=TokensRecord("models/late", "late-interaction", "fp32", "beef", 128, 180, "2bit"),
)  # fmt: skip
COLUMNS: dict[str, ColumnType] = {"lang": "string", "year": "number"}
MADE = Manifest(7, SETTINGS, COLUMNS, (SEGMENT, replace(SEGMENT, id="2", deletes=None)), 3)


@pytest.mark.parametrize(
    "manifest",
    [MADE, Manifest(1, IndexSettings("none", "x", None), {}, (replace(SEGMENT, ann=None, deletes=None, files={}),), 2)],
)
def test_a_manifest_comes_back_as_it_was(tmp_path: Path, manifest: Manifest) -> None:
    commit_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path, manifest.commit) == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["commits", MANIFEST]


def test_a_manifest_counts_what_is_not_deleted() -> None:
    assert (MADE.documents, MADE.rows) == (2 + 3, 3 + 5)
    assert [segment.live_terms for segment in MADE.segments] == [8, 12]
    assert MADE.folders == {"segments/00000001", "segments/2", "deletes/00000001-00000007"}


def test_a_commit_replaces_the_one_before_and_what_a_killed_one_left(tmp_path: Path) -> None:
    commit_manifest(tmp_path, MADE)
    (tmp_path / f"{MANIFEST}.new").write_text("half a mani")
    assert read_manifest(tmp_path) == MADE
    commit_manifest(tmp_path, replace(MADE, commit=8))
    assert read_manifest(tmp_path).commit == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["commits", MANIFEST]


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    commit_manifest(tmp_path, MADE)
    first = (tmp_path / MANIFEST).read_bytes()
    commit_manifest(tmp_path, MADE)
    assert (tmp_path / MANIFEST).read_bytes() == first


def test_the_file_names_format_and_digest_first_and_last(tmp_path: Path) -> None:
    commit_manifest(tmp_path, MADE)
    content = json.loads((tmp_path / MANIFEST).read_bytes())
    assert list(content) == ["format", "commit", "settings", "columns", "segments", "next_segment", "digest"]
    assert content["format"] == FORMAT == 2


def test_no_index_is_told_apart_from_no_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(IndexStoreError) as missing:
        read_manifest(tmp_path)
    assert str(missing.value) == f"{tmp_path}: there is no index here. Make one with: tiercel index {tmp_path} SOURCE"
    with pytest.raises(IndexStoreError, match="nowhere: no such folder"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IndexStoreError, match="file: this is a file; expected the folder of an index"):
        read_manifest(tmp_path / "file")


def test_a_newer_format_is_refused_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"format": 3, "wonders": []}')
    with pytest.raises(IndexStoreError) as refused:
        read_manifest(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / MANIFEST}: the index has format 3; expected format 2 or older. "
        "It was written by a newer Tiercel: upgrade this one, or build another index."
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("commit", 8),
        ("next_segment", 4),
        ("segments", []),
        ("settings", {}),
        ("more", 1),
        ("format", 0),
        ("format", True),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    commit_manifest(tmp_path, MADE)
    content = json.loads((tmp_path / MANIFEST).read_bytes())
    (tmp_path / MANIFEST).write_text(json.dumps({**content, key: value}))
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / MANIFEST}: .*does not match its own digest. Remove"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"format": "1"}',
        b"\xff\xfe",
        b"\x80",
        b"[" * 100_000,
        b'{"format": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / MANIFEST}: (the manifest cannot be read|this is not a m)"):
        read_manifest(tmp_path)


def test_what_is_no_manifest_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"{}")
    with pytest.raises(IndexStoreError) as refused:
        read_manifest(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / MANIFEST}: this is not a manifest of Tiercel: it names no format; expected the folder of an index"
    )


def test_fields_of_another_kind_are_refused(tmp_path: Path) -> None:
    # A later release may add a field to this format's records; this one must say so and not fall over.
    commit_manifest(tmp_path, MADE)
    content = json.loads((tmp_path / MANIFEST).read_bytes())
    for change in ({"settings": {"colour": "red"}}, {"segments": [{"id": "1"}]}, {"segments": 5}):
        changed = {**content, **change}
        changed["digest"] = manifest_digest(changed)
        (tmp_path / MANIFEST).write_text(json.dumps(changed))
        with pytest.raises(IndexStoreError, match="its fields are not those of format 2"):
            read_manifest(tmp_path)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(IndexStoreError, match="the manifest cannot be read"):
        read_manifest(tmp_path)


def test_a_manifest_cut_or_changed_anywhere_is_refused(tmp_path: Path) -> None:
    commit_manifest(tmp_path, MADE)
    whole = (tmp_path / MANIFEST).read_bytes()
    for place in range(len(whole) - 1):  # the last byte is a line feed
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            (tmp_path / MANIFEST).write_bytes(content)
            with pytest.raises(IndexStoreError, match=f"^{tmp_path / MANIFEST}: "):
                read_manifest(tmp_path)
