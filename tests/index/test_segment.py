from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.index.made import FALCONS, HashedWords, JointWords, files_of, indexed, row_encoder, settings_of
from tiercel.config import TokenCodec
from tiercel.data.chunking import Chunking
from tiercel.errors import IndexStoreError
from tiercel.index.analysis import analyzer
from tiercel.index.columns import ColumnTypes
from tiercel.index.files import digest
from tiercel.index.journal import EncodingJournal
from tiercel.index.manifest import SegmentRecord, TokenCount
from tiercel.index.segment import Plan, Segment, SegmentWriter
from tiercel.types import DocId, Document

ENCODER = HashedWords()


def written(
    folder: Path,
    *batches: list[Document],
    encoder: HashedWords | None = None,
    tokens: TokenCodec | None = None,
    ann: str = "flat",
    chunking: Chunking | None = None,
) -> SegmentRecord:
    settings = settings_of("english", encoder=encoder, tokens=tokens, ann=ann, chunking=chunking)
    models = row_encoder(settings, encoder)
    journal = EncodingJournal(folder.parent, models) if models else None
    writer = SegmentWriter(folder, analyzer("english"), Plan(settings, ColumnTypes(), journal))
    for batch in batches:
        writer.add(batch)
    if journal is not None:
        journal.close()
    return writer.finish()


def test_a_record_says_what_was_written(tmp_path: Path) -> None:
    record = written(tmp_path / "00000005", FALCONS[:2], FALCONS[2:], encoder=ENCODER, ann="hnsw")
    # Terms left of the six texts: falcon hunt pigeon | tiercel male falcon | pigeon live citi citi breed | male pigeon
    # | falcon falcon falcon | noth see
    assert (record.id, record.documents, record.rows, record.terms, record.truncated) == ("00000005", 6, 6, 18, 0)
    assert record.ann is not None
    assert (record.ann.factory, record.ann.recall) == ("HNSW32,SQ8", 1.0)
    assert list(record.files) == files_of(tmp_path / "00000005")
    for name, file in record.files.items():
        path = tmp_path / "00000005" / name
        assert (file.size_bytes, file.digest) == (path.stat().st_size, digest(path))


def test_files_of_each_kind_of_segment(tmp_path: Path) -> None:
    lexical = [
        "documents.arrow", "id_order.npy", "lexical/documents.npy", "lexical/frequencies.npy", "lexical/lengths.npy",
        "lexical/max_frequencies.npy", "lexical/min_lengths.npy", "lexical/starts.npy", "lexical/term_bytes.npy",
        "lexical/term_starts.npy",
    ]  # fmt: skip
    assert list(written(tmp_path / "1", FALCONS).files) == lexical
    assert list(written(tmp_path / "2", FALCONS, encoder=ENCODER).files) == ["dense/vectors.f16", *lexical]
    assert list(written(tmp_path / "3", FALCONS, encoder=ENCODER, ann="hnsw").files) == [
        "dense/ann.faiss", "dense/vectors.f16", *lexical,
    ]  # fmt: skip
    assert [written(tmp_path / name, FALCONS).ann for name in "45"] == [None, None]
    assert list(written(tmp_path / "6", FALCONS, chunking=Chunking("tokens", 3)).files) == [
        *lexical, "passages/documents.npy", "passages/ends.npy", "passages/starts.npy",
    ]  # fmt: skip
    for codec, learnt in (("int8", []), ("2bit", ["centroids", "cutoffs", "weights"])):
        record = written(tmp_path / codec, FALCONS, encoder=JointWords(), tokens=codec)  # type: ignore[arg-type]
        kept = sorted(["tokens/codes.u8", "tokens/offsets.npy", *(f"tokens/{name}.npy" for name in learnt)])
        assert list(record.files) == ["dense/vectors.f16", *lexical, *kept]
    with_metadata = [replace(FALCONS[0], metadata={"year": 2026})]
    assert list(written(tmp_path / "7", with_metadata).files) == ["columns.arrow", *lexical]


def test_a_segment_gives_back_what_was_written(tmp_path: Path) -> None:
    record = written(tmp_path / "1", FALCONS, encoder=ENCODER)
    segment = Segment(tmp_path / "1", record, settings_of("english", encoder=ENCODER))
    assert segment.documents.documents(np.arange(6)) == FALCONS
    assert segment.postings.lengths.tolist() == [3, 3, 5, 2, 3, 2]
    assert segment.vectors.stored.shape == (6, ENCODER.dimension)
    segment.verify()


def test_rows_are_the_passages_of_documents_with_their_context(tmp_path: Path) -> None:
    documents = [Document(DocId("a"), "one two three four five", "Title"), Document(DocId("b"), "")]
    record = written(tmp_path / "1", documents, encoder=ENCODER, chunking=Chunking("tokens", 2))
    segment = Segment(
        tmp_path / "1", record, settings_of("english", encoder=ENCODER, ann="flat", chunking=Chunking("tokens", 2))
    )
    assert (record.documents, record.rows) == (2, 4)
    assert segment.passages is not None
    assert segment.passages.spans(np.arange(4)) == [(0, 7), (8, 18), (19, 23), (0, 0)]
    assert segment.postings.lengths.tolist() == [3, 3, 2, 0]
    expected = ENCODER.encode_documents(["Title one two", "Title three four", "Title five", ""])
    assert np.array_equal(segment.vectors.stored, expected.astype(np.float16))
    segment.verify()


def test_texts_are_counted_in_characters_with_their_titles(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "1", analyzer("none"), Plan(settings_of(), ColumnTypes()))
    writer.add([Document(FALCONS[0].id, "four", "東京")])
    assert (writer.count, writer.characters) == (1, 7)
    writer.close()
    writer.close()


def test_vectors_of_a_segment_without_an_encoder_are_refused(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "1", written(tmp_path / "1", FALCONS), settings_of("english"))
    with pytest.raises(IndexStoreError, match=r"the index has no vectors; expected an index with an encoder$"):
        _ = segment.vectors


def test_token_vectors_come_back_and_are_counted(tmp_path: Path) -> None:
    record = written(tmp_path / "1", FALCONS[:2], FALCONS[2:], encoder=JointWords(), tokens="fp16")
    segment = Segment(tmp_path / "1", record, settings_of("english", encoder=JointWords(), tokens="fp16"))
    # Words left: falcon hunts pigeons | tiercel male falcon | 7 | male pigeon | 3 | nothing to see
    assert np.diff(segment.tokens.offsets).tolist() == [3, 3, 7, 2, 3, 3]
    assert record.tokens == TokenCount(21, 0)
    expected = np.concatenate(JointWords().tokens.encode_documents([document.text for document in FALCONS]))
    assert np.array_equal(segment.tokens.gather(np.arange(6))[0], expected.astype(np.float16).astype(np.float32))
    segment.verify()


def test_token_vectors_of_a_segment_without_any_are_refused(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "1", written(tmp_path / "1", FALCONS), settings_of("english"))
    with pytest.raises(IndexStoreError, match=r"the index has no token vectors; expected an index made with --tokens$"):
        _ = segment.tokens


def test_token_vectors_of_another_number_are_refused(tmp_path: Path) -> None:
    record = written(tmp_path / "1", FALCONS, encoder=JointWords(), tokens="int8")
    settings = settings_of("english", encoder=JointWords(), tokens="int8")
    with pytest.raises(IndexStoreError, match="it holds 21 tokens, the manifest says 20"):
        _ = Segment(tmp_path / "1", replace(record, tokens=TokenCount(20, 0)), settings).tokens


def test_a_record_of_another_number_of_documents_is_refused(tmp_path: Path) -> None:
    record = replace(written(tmp_path / "1", FALCONS), documents=5, rows=5)
    segment = Segment(tmp_path / "1", record, settings_of("english"))
    with pytest.raises(IndexStoreError, match="it holds 6 documents, the manifest says 5"):
        _ = segment.documents
    with pytest.raises(IndexStoreError, match="the sizes of its arrays do not fit together"):
        _ = segment.postings


@pytest.mark.parametrize(("ann", "tokens"), [("flat", "2bit"), ("hnsw", "fp16")])
def test_every_file_is_checked(tmp_path: Path, ann: str, tokens: TokenCodec) -> None:
    """Missing or of another size: refused on opening. Any byte flipped: refused by verifying. Always by name."""
    index = indexed(tmp_path / "x", FALCONS, "english", encoder=JointWords(), ann=ann, tokens=tokens)
    settings, segment = index.manifest.settings, index.views[0].segment
    segment.verify()
    for name in segment.record.files:
        path = segment.folder / name
        whole = path.read_bytes()
        for place in sorted({0, 6, len(whole) // 3, len(whole) // 2, len(whole) - 1}):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            with pytest.raises(IndexStoreError, match=rf"^{path}: its content does not match its digest; expected"):
                Segment(segment.folder, segment.record, settings).verify()
        for changed in (whole[:-1], whole + b"\0", b""):
            path.write_bytes(changed)
            with pytest.raises(IndexStoreError, match=rf"^{path}: it holds .* bytes, the manifest says {len(whole)};"):
                Segment(segment.folder, segment.record, settings)
        path.unlink()
        with pytest.raises(IndexStoreError, match=rf"^{path}: the file is missing; expected"):
            Segment(segment.folder, segment.record, settings)
        with pytest.raises(IndexStoreError, match=rf"^{path}: the file is missing; expected"):
            segment.verify()
        path.write_bytes(whole)
    Segment(segment.folder, segment.record, settings).verify()
