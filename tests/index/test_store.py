from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.index.made import (
    FALCONS,
    HashedWords,
    add_documents,
    asked,
    build_index,
    delete_documents,
    files_of,
    indexed,
    named,
    settings_of,
    zipf_texts,
)
from tiercel.data.chunking import Chunking
from tiercel.errors import IndexStoreError, InputError
from tiercel.index import build
from tiercel.index.build import RepeatedId
from tiercel.index.dense import DenseRetriever
from tiercel.index.files import FileRecord
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.manifest import MANIFEST, Manifest, commit_manifest, read_manifest
from tiercel.index.store import Index
from tiercel.index.writer import is_index
from tiercel.types import DocId, Document

ENCODER = HashedWords()
ROOT = Path(__file__).resolve().parents[2]


def search(index: Index, text: str = "falcon") -> list[DocId]:
    (ranking,) = LexicalRetriever(index.views, index.analyzer).retrieve(asked(text), keep=10)
    return ranking.doc_ids


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder) if name != "write.lock"}


def check_clean(path: Path, *held: Manifest) -> None:
    """Nothing lies there but the manifest, those of commits that are held, what they name, and the lock."""
    manifests = (read_manifest(path), *held)
    records = [record for manifest in manifests for record in manifest.segments]
    named_files = {f"segments/{record.id}/{name}" for record in records for name in record.files}
    kept = {f"commits/{manifest.commit:08d}.json" for manifest in manifests}
    found = {name for name in files_of(path) if name != "write.lock" and not name.startswith("journal/")}
    assert found == named_files | kept | {MANIFEST}
    assert {folder.name for folder in (path / "segments").iterdir()} == {record.id for record in records}


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 2)
    monkeypatch.setattr(build, "_SEGMENT_ROWS", 4)


def test_an_index_gives_back_what_was_indexed(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS, "english", encoder=ENCODER)
    assert len(index) == 6
    assert index.get([FALCONS[3].id, FALCONS[0].id, FALCONS[3].id]) == [FALCONS[3], FALCONS[0], FALCONS[3]]
    assert index.get([]) == []
    assert index.manifest.commit == 1
    assert (index.analyzer.name, index.path) == ("english", tmp_path / "x")
    assert is_index(tmp_path / "x")
    index.verify()
    check_clean(tmp_path / "x")


def test_an_id_that_is_not_there_is_named(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    with pytest.raises(IndexStoreError, match=rf"^{tmp_path / 'x'}: no document has the id 'd7'$"):
        index.get([DocId("d1"), DocId("d7")])


def test_many_ids_over_segments_with_deletes(tmp_path: Path) -> None:
    """Asked in any order and more than once; an id that was replaced or deleted and added again is the newest's."""
    path = tmp_path / "x"
    held = {document.id: document for document in named(f"first {i}" for i in range(300))}
    build_index(path, list(held.values()), settings_of())
    reader = Index(path)
    for round_, width in enumerate((60, 40, 25)):
        added = [Document(DocId(f"d{i:05d}"), f"round {round_}") for i in range(0, 330, width)]
        add_documents(path, added)
        held |= {document.id: document for document in added}
        gone = sorted(held)[round_ :: 7 + round_]
        delete_documents(path, *gone)
        held = {doc_id: held[doc_id] for doc_id in held.keys() - set(gone)}
        assert reader.refresh()
        asked_ids = [*sorted(held), *sorted(held, reverse=True)]
        assert reader.get(asked_ids) == [held[doc_id] for doc_id in asked_ids]
        for absent in (gone[-1], DocId(""), DocId("\ud800")):
            with pytest.raises(IndexStoreError, match=f"no document has the id {re.escape(repr(absent))}$"):
                reader.get([*asked_ids, absent, DocId("later")])
        not_there = [*gone, DocId(""), DocId("\ud800"), DocId("later")]
        assert reader.missing([*asked_ids, *not_there]) == not_there
        assert reader.missing([not_there[0], asked_ids[0], not_there[-2]]) == [not_there[0], not_there[-2]]
    assert len(reader.views) > 1
    assert any(view.live is not None for view in reader.views)


def test_ids_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    build_index(path, [Document(DocId(key), key) for key in "abc"], settings_of())
    add_documents(path, [Document(DocId(key), "again") for key in "cd"])
    delete_documents(path, "a")
    assert Index(path).missing([DocId(key) for key in "zdcbay"]) == ["z", "a", "y"]
    assert Index(path).missing([]) == []


def test_size_is_that_of_all_its_files(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    assert index.size_bytes() == sum(map(len, contents(tmp_path / "x").values()))


@pytest.mark.usefixtures("small_segments")
def test_several_segments_are_one_index(tmp_path: Path) -> None:
    documents = named(f"falcon number {i}" for i in range(11))[::-1]
    index = indexed(tmp_path / "x", documents)
    assert [view.record.documents for view in index.views] == [4, 4, 3]
    assert [view.record.id for view in index.views] == ["00000001", "00000002", "00000003"]
    assert len(index) == 11
    assert index.get([document.id for document in documents]) == documents
    assert search(index) == sorted(document.id for document in documents)[:10]
    index.verify()
    check_clean(tmp_path / "x")


def test_a_segment_ends_with_the_characters_it_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_BATCH_CHARACTERS", 10)
    monkeypatch.setattr(build, "_SEGMENT_CHARACTERS", 20)
    index = indexed(tmp_path / "x", named(["x" * 6] * 8))
    assert [view.record.documents for view in index.views] == [4, 4]


def test_progress_is_told_how_many_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 4)
    told: list[int] = []
    build_index(tmp_path / "x", FALCONS, settings_of(), progress=told.append)
    assert told == [4, 6]


def test_a_document_of_five_megabytes(tmp_path: Path) -> None:
    text = "falcon " + "wörd 東京 " * 400_000 + "dove"
    assert len(text.encode()) > 5_000_000
    index = indexed(tmp_path / "x", [Document(DocId("large"), text), *FALCONS], "english")
    assert search(index, "dove") == ["large"]
    assert index.get([DocId("large")])[0].text == text
    index.verify()


def test_truncated_documents_are_counted(tmp_path: Path) -> None:
    class Truncating(HashedWords):
        truncated = 5  # of an earlier use

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.truncated += sum(len(text) > 20 for text in texts)
            return super().encode_documents(texts)

    index = indexed(tmp_path / "x", FALCONS, encoder=Truncating())
    assert [view.record.truncated for view in index.views] == [3]


# Same input, same bytes.

BUILD = """
import sys
from pathlib import Path
from tests.index.made import HashedWords, indexed, named, zipf_texts
from tiercel.types import DocId, Document
documents = named(zipf_texts(60, words=40, seed=1))
documents.append(Document(DocId("m"), "falcon", metadata={"b": 1, "a": {"d": 1, "c": [1]}}))
indexed(Path(sys.argv[1]), documents, "english", encoder=HashedWords())
"""


def test_the_same_input_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", BUILD, tmp_path / seed], cwd=ROOT, env=environment, check=True)
    first = contents(tmp_path / "1")
    assert len(first) == 14
    assert contents(tmp_path / "2") == first


def test_building_again_in_place_gives_the_same_files_under_the_next_number(tmp_path: Path) -> None:
    def build() -> dict[str, bytes]:
        index = indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
        return contents(index.views[0].segment.folder)

    assert build() == build()
    manifest = read_manifest(tmp_path / "x")
    assert (manifest.commit, manifest.segments[0].id, manifest.next_segment) == (2, "00000002", 3)


# Nothing that fails leaves half an index.


def broken_source(documents: Iterable[Document]) -> Iterator[Document]:
    yield from documents
    raise KeyError("the source broke")


class BrokenEncoder(HashedWords):
    """Fails at the second batch."""

    calls = 0

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls > 1:
            raise KeyError("the encoder broke")
        return super().encode_documents(texts)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("breaks", ["source", "encoder"])
def test_a_build_that_breaks_leaves_the_old_index_answering(tmp_path: Path, breaks: str) -> None:
    before = indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    newer = named(["a falcon", "another", "falcon", "more", "and more", "last falcon"])
    documents = broken_source(newer) if breaks == "source" else newer
    encoder = BrokenEncoder() if breaks == "encoder" else ENCODER
    with pytest.raises(KeyError, match=f"the {breaks} broke"):
        build_index(tmp_path / "x", documents, settings_of(encoder=encoder), encoder=encoder)
    check_clean(tmp_path / "x")
    after = Index(tmp_path / "x")
    assert after.manifest == before.manifest
    assert search(after) == search(before) == ["d5", "d1", "d2"]
    after.verify()
    assert search(indexed(tmp_path / "x", newer, encoder=ENCODER), "falcon") == ["d00002", "d00000", "d00005"]
    check_clean(tmp_path / "x", before.manifest)  # two readers still have it open


def test_a_first_build_that_breaks_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        build_index(tmp_path / "x", broken_source(FALCONS), settings_of())
    assert not is_index(tmp_path / "x")
    with pytest.raises(IndexStoreError, match="there is no index here"):
        Index(tmp_path / "x")
    indexed(tmp_path / "x", FALCONS)
    check_clean(tmp_path / "x")


def test_an_empty_source_is_refused_and_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        build_index(tmp_path / "x", [], settings_of())
    assert str(refused.value) == "the source holds no document; expected at least one. Check what was given."
    assert not is_index(tmp_path / "x")
    assert set(files_of(tmp_path / "x")) <= {"write.lock"}


def test_an_empty_source_does_not_replace_an_index(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS)
    with pytest.raises(InputError, match="the source holds no document"):
        build_index(tmp_path / "x", [], settings_of())
    assert len(Index(tmp_path / "x")) == 6


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("distance", [1, 5])
def test_an_id_that_comes_twice_is_refused(tmp_path: Path, distance: int) -> None:
    documents = [*FALCONS[:distance], replace(FALCONS[0], text="another text")]
    with pytest.raises(RepeatedId) as refused:
        build_index(tmp_path / "x", documents, settings_of())
    assert refused.value.doc_id == "d1"
    assert str(refused.value) == (
        "the id 'd1' comes twice; expected each document once. Rename or remove one of them, or add --on-duplicate "
        "last. Nothing was indexed."
    )
    assert not is_index(tmp_path / "x")


@pytest.mark.parametrize(
    ("document", "part"),
    [
        (Document(DocId("\udcff"), "", ""), "id"),
        (Document(DocId("a"), "", "half \udcff"), "title"),
        (Document(DocId("a"), "\ud800 half"), "text"),
    ],
)
def test_half_a_surrogate_pair_is_refused_with_the_id(tmp_path: Path, document: Document, part: str) -> None:
    with pytest.raises(InputError) as refused:
        build_index(tmp_path / "x", [FALCONS[0], document], settings_of())
    assert str(refused.value) == (
        f"document {document.id!r}: half a surrogate pair in its {part}; expected text that UTF-8 can hold. "
        "Correct its source. Nothing was indexed."
    )
    assert not is_index(tmp_path / "x")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.index.made import HashedWords, build_index, named, settings_of
from tiercel.data.chunking import Chunking
from tiercel.index import build
from tiercel.index.build import RepeatedId
build._BATCH_DOCUMENTS = 2
build._SEGMENT_ROWS = 4
def documents():
    for i, document in enumerate(named(["falcon"] * 20)):
        if i == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        yield document
encoder = HashedWords()
build_index(Path(sys.argv[1]), documents(), settings_of(encoder=encoder), encoder=encoder)
"""


def test_a_killed_build_leaves_the_old_index_and_the_next_one_clears_up(tmp_path: Path) -> None:
    before = indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "x"], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "x" / "segments").iterdir())) > 1
    after = Index(tmp_path / "x")
    assert after.manifest == before.manifest
    after.verify()
    assert search(after) == ["d5", "d1", "d2"]
    indexed(tmp_path / "x", FALCONS[:2], encoder=ENCODER).verify()
    check_clean(tmp_path / "x", before.manifest)


# One writer, many readers.

HOLDER = """
import sys
from pathlib import Path
from tests.index.made import FALCONS, build_index, settings_of
def documents():
    yield FALCONS[0]
    print("writing", flush=True)
    sys.stdin.read()
build_index(Path(sys.argv[1]), documents(), settings_of())
"""


def test_an_index_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    before = indexed(tmp_path / "x", FALCONS)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "x"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"writing\n"
            with pytest.raises(IndexStoreError) as refused:
                build_index(tmp_path / "x", FALCONS, settings_of())
            assert str(refused.value) == (
                f"{tmp_path / 'x'}: another process is writing this index. Wait for it, or stop it, and try again."
            )
            assert search(Index(tmp_path / "x")) == ["d5", "d1", "d2"]  # reading needs no lock
        finally:
            holder.kill()
    build_index(tmp_path / "x", FALCONS, settings_of())  # a dead process holds nothing
    check_clean(tmp_path / "x", before.manifest)


def test_a_reader_keeps_the_commit_it_opened(tmp_path: Path) -> None:
    reader = indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    assert search(reader) == ["d5", "d1", "d2"]
    nearest = DenseRetriever(reader.views, ENCODER)
    before = nearest.retrieve(asked("male falcon"), keep=6)
    indexed(tmp_path / "x", named(["falcon"] * 3), encoder=ENCODER)
    assert search(reader) == ["d5", "d1", "d2"]
    assert nearest.retrieve(asked("male falcon"), keep=6) == before
    assert reader.get([DocId("d3")]) == [FALCONS[2]]
    assert len(reader) == 6
    assert len(Index(tmp_path / "x")) == 3


def test_what_a_reader_has_not_opened_yet_stays_as_long_as_it_may(tmp_path: Path) -> None:
    reader = indexed(tmp_path / "x", FALCONS)
    for _ in range(3):
        indexed(tmp_path / "x", named(["falcon"]))
    check_clean(tmp_path / "x", reader.manifest)
    assert search(reader) == ["d5", "d1", "d2"]
    assert reader.get([DocId("d1")]) == [FALCONS[0]]
    del reader
    indexed(tmp_path / "x", named(["falcon"]))
    check_clean(tmp_path / "x")


# What is not as it was written is refused, by name.


@pytest.mark.parametrize("ann", ["flat", "hnsw"])
def test_damage_to_any_file_of_an_index_is_seen(tmp_path: Path, ann: str) -> None:
    documents = [replace(document, metadata={"n": n}) for n, document in enumerate(FALCONS)]
    chunking = Chunking("tokens", 3)
    indexed(tmp_path / "x", documents, encoder=ENCODER, ann=ann, chunking=chunking)
    add_documents(tmp_path / "x", [documents[1]], encoder=ENCODER)
    assert {name.split("/")[0] for name in contents(tmp_path / "x")} == {"commits", "deletes", MANIFEST, "segments"}
    for name, whole in contents(tmp_path / "x").items():
        path = tmp_path / "x" / name
        middle = len(whole) // 2
        damages = [whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], whole[:middle], b""]
        for damaged in damages:
            path.write_bytes(damaged)
            with pytest.raises(IndexStoreError, match=rf"^{path}: "):
                Index(tmp_path / "x").verify()
        path.unlink()
        with pytest.raises(IndexStoreError, match=rf"^{tmp_path / 'x' if name == MANIFEST else path}: "):
            Index(tmp_path / "x").verify()
        path.write_bytes(whole)
    Index(tmp_path / "x").verify()


def test_a_newer_format_is_refused_and_not_replaced(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS)
    path = tmp_path / "x" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format": 3}))
    before = contents(tmp_path / "x")
    for use in (lambda: Index(tmp_path / "x"), lambda: build_index(tmp_path / "x", FALCONS, settings_of())):
        with pytest.raises(IndexStoreError, match="the index has format 3; expected format 2 or older"):
            use()
    assert contents(tmp_path / "x") == before


def test_other_rules_of_the_analyzer_are_refused(tmp_path: Path) -> None:
    settings = replace(settings_of("english"), analyzer_fingerprint="0123")
    build_index(tmp_path / "x", FALCONS, settings)
    with pytest.raises(IndexStoreError) as refused:
        Index(tmp_path / "x")
    assert str(refused.value).startswith(
        f"{tmp_path / 'x'}: the index was built with analyzer 'english' of fingerprint 0123; expected "
    )


def test_an_analyzer_that_is_no_more_is_refused_as_the_indexs_fault(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    settings = replace(index.manifest.settings, analyzer="klingon")
    commit_manifest(tmp_path / "x", replace(index.manifest, settings=settings))
    with pytest.raises(IndexStoreError, match=rf"^{tmp_path / 'x'}: the index was built with analyzer 'klingon'"):
        Index(tmp_path / "x")


def test_a_manifest_that_names_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    manifest = indexed(tmp_path / "x", FALCONS).manifest
    (record,) = manifest.segments
    wrong = replace(record, files={**record.files, "more": FileRecord(1, "00")})
    commit_manifest(tmp_path / "x", replace(manifest, segments=(wrong,)))
    with pytest.raises(IndexStoreError, match="more: the file is missing"):
        Index(tmp_path / "x")


def test_random_collections_are_found_again_by_every_id(tmp_path: Path) -> None:
    drawn = np.random.default_rng(9)
    ids = sorted(
        {"".join(map(chr, drawn.choice([9, 10, 34, 39, 65, 97, 233, 0x6771, 0x20000], 4))) for _ in range(300)}
    )
    documents = [Document(DocId(i), text) for i, text in zip(ids, zipf_texts(len(ids), words=50, seed=9), strict=True)]
    index = indexed(tmp_path / "x", [documents[i] for i in drawn.permutation(len(ids))])
    assert index.get([document.id for document in documents]) == documents


def test_a_snapshot_that_is_not_the_last_commit_verifies(tmp_path: Path) -> None:
    reader = indexed(tmp_path / "x", FALCONS)
    size = reader.size_bytes()
    add_documents(tmp_path / "x", named(["falcon"] * 50))
    reader.verify()
    assert reader.size_bytes() == size
    assert reader.refresh()
    reader.verify()


def test_an_index_made_anew_elsewhere_is_seen_by_refresh(tmp_path: Path) -> None:
    reader = indexed(tmp_path / "x", FALCONS)
    shutil.rmtree(tmp_path / "x")
    indexed(tmp_path / "x", FALCONS[:2])
    assert reader.refresh()
    assert len(reader) == 2
