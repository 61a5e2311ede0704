"""Adding, replacing, deleting and compacting, against a dictionary that is searched by brute force."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from tests.index.made import (
    FALCONS,
    HashedWords,
    add_documents,
    asked,
    build_index,
    compact_index,
    delete_documents,
    indexed,
    named,
    settings_of,
    zipf_texts,
)
from tiercel.data.chunking import Chunking
from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.index import build, journal
from tiercel.index.bm25 import BM25, VARIANTS
from tiercel.index.build import RepeatedId
from tiercel.index.dense import DenseRetriever
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.merge import MERGE_FACTOR, due_for_merge
from tiercel.index.row_encoder import RowEncoder
from tiercel.index.store import Index
from tiercel.index.writer import Added, IndexWriter
from tiercel.types import DocId, Document, Ranking

ENCODER = HashedWords(8)
WORDS = ["falcon", "tiercel", "pigeon", "male", "city"]
QUERIES = asked("falcon", "male pigeon", "tiercel city city", "falcon tiercel pigeon male city", "hare", "")
BOTH = Chunking("tokens", 3, 1)


def answers(index: Index, where: str = "", *, variant: str = "lucene", passages: bool = False) -> list[Ranking]:
    """What both legs find."""
    views = index.filtered(where)
    parameters = BM25(variant=variant)
    lexical = LexicalRetriever(views, index.analyzer, parameters=parameters, passages=passages)
    dense = DenseRetriever(views, ENCODER, passages=passages)
    return [*lexical.retrieve(QUERIES, keep=4), *dense.retrieve(QUERIES, keep=4)]


def test_adding_replaces_what_has_the_same_id_in_every_leg(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    changed = replace(FALCONS[4], text="a hare", metadata={"year": 2026})
    with IndexWriter(tmp_path / "x") as writer:
        assert writer.add([changed, Document(DocId("d7"), "falcon")], encoder=RowEncoder(ENCODER)) == Added(2, 1)
    index = Index(tmp_path / "x")
    now = {document.id: document for document in [*FALCONS, changed, Document(DocId("d7"), "falcon")]}
    assert len(index) == 7
    assert index.get(list(now)) == list(now.values())
    lexical = LexicalRetriever(index.views, index.analyzer).retrieve(asked("falcon", "hare"), keep=10)
    assert [ranking.doc_ids for ranking in lexical] == [["d7", "d1", "d2"], ["d5"]]
    dense = DenseRetriever(index.views, ENCODER).retrieve(asked("a hare", "falcon"), keep=1)
    assert [ranking.doc_ids for ranking in dense] == [["d5"], ["d7"]]
    index.verify()


def test_deleting_takes_documents_from_every_leg_and_names_unknown_ids(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    assert delete_documents(tmp_path / "x", "d5", "nobody", "d1", "d5", "d9") == ["nobody", "d9"]
    index = Index(tmp_path / "x")
    assert len(index) == 4
    (lexical,) = LexicalRetriever(index.views, index.analyzer).retrieve(asked("falcon"), keep=10)
    (dense,) = DenseRetriever(index.views, ENCODER).retrieve(asked("falcon"), keep=10)
    assert lexical.doc_ids == ["d2"]
    assert sorted(dense.doc_ids) == ["d2", "d3", "d4", "d6"]
    with pytest.raises(IndexStoreError, match="no document has the id 'd5'"):
        index.get([DocId("d5")])
    assert delete_documents(tmp_path / "x", "d5") == ["d5"]
    assert Index(tmp_path / "x").manifest.commit == 2  # nothing to delete is no commit


def test_everything_can_be_deleted_and_added_again(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    delete_documents(tmp_path / "x", *(document.id for document in FALCONS))
    empty = Index(tmp_path / "x")
    assert (len(empty), empty.views) == (0, [])
    assert not any(ranking.hits for ranking in answers(empty))
    compact_index(tmp_path / "x")
    add_documents(tmp_path / "x", FALCONS, encoder=ENCODER)
    assert answers(Index(tmp_path / "x")) == answers(indexed(tmp_path / "y", FALCONS, encoder=ENCODER))


def test_documents_are_deleted_by_their_metadata(tmp_path: Path) -> None:
    documents = [Document(DocId(str(year)), "falcon", metadata={"year": year}) for year in range(2000, 2010)]
    indexed(tmp_path / "x", documents)
    with IndexWriter(tmp_path / "x") as writer:
        assert writer.delete_where("year < 2003 or year = 2009") == 4
        assert writer.delete_where("year < 2004") == 1
        assert writer.delete_where("year < 2004") == 0
        with pytest.raises(UsageError, match="yaer"):
            writer.delete_where("yaer < 2004")
    index = Index(tmp_path / "x")
    assert len(index) == 5
    index.verify()


@pytest.mark.parametrize("distance", [1, 5])
def test_of_an_id_that_comes_twice_the_last_counts_if_asked(tmp_path: Path, distance: int) -> None:
    documents = [*FALCONS[:distance], replace(FALCONS[0], text="another text"), *FALCONS[distance:]]
    with IndexWriter(tmp_path / "x", create=True) as writer:
        with pytest.raises(RepeatedId):
            writer.build(documents, settings_of(encoder=ENCODER), encoder=RowEncoder(ENCODER))
        assert writer.build(
            documents, settings_of(encoder=ENCODER), encoder=RowEncoder(ENCODER), on_duplicate="last"
        ) == Added(6, 0)
    index = Index(tmp_path / "x")
    index.verify()
    expected = indexed(tmp_path / "y", [documents[distance], *FALCONS[1:]], encoder=ENCODER)
    assert answers(index) == answers(expected)
    assert index.get([DocId("d1")]) == [documents[distance]]


def test_an_encoder_that_did_not_make_the_vectors_is_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    for encoder, named_as in ((HashedWords(16), "fingerprint hashed-words-16"), (None, "no encoder")):
        with pytest.raises(IndexStoreError, match=f"{named_as}; expected .* of fingerprint hashed-words-8"):
            add_documents(tmp_path / "x", FALCONS, encoder=encoder)
    indexed(tmp_path / "y", FALCONS)
    with pytest.raises(IndexStoreError, match="no encoder; expected the one"), IndexWriter(tmp_path / "x") as writer:
        writer.build(FALCONS, settings_of(encoder=ENCODER))
    with pytest.raises(IndexStoreError, match="expected none: BM25 only"):
        add_documents(tmp_path / "y", FALCONS, encoder=ENCODER)
    assert Index(tmp_path / "x").manifest.commit == 1


def test_metadata_that_contradict_their_column_are_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "x", [Document(DocId("a"), "falcon", metadata={"year": 2026})])
    with pytest.raises(InputError, match=r"'b'.*year"):
        add_documents(tmp_path / "x", [Document(DocId("b"), "falcon", metadata={"year": "last"})])
    assert len(Index(tmp_path / "x")) == 1


def test_a_place_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexStoreError, match="no such folder"), IndexWriter(tmp_path / "x"):
        pass
    assert not (tmp_path / "x").exists()


def test_compacting_leaves_one_segment_with_the_bytes_of_a_build(tmp_path: Path) -> None:
    documents = named(zipf_texts(60, words=30, seed=4))
    indexed(tmp_path / "x", documents[:20], encoder=ENCODER)
    add_documents(tmp_path / "x", documents[20:45], encoder=ENCODER)
    add_documents(tmp_path / "x", [Document(DocId("gone"), "falcon falcon unheard")], encoder=ENCODER)
    delete_documents(tmp_path / "x", "gone")
    add_documents(tmp_path / "x", documents[45:], encoder=ENCODER)
    compact_index(tmp_path / "x")
    index, expected = Index(tmp_path / "x"), indexed(tmp_path / "y", documents, encoder=ENCODER)
    (view,), (alike,) = index.views, expected.views
    assert view.record.files == alike.record.files
    assert answers(index) == answers(expected)
    compact_index(tmp_path / "x")
    assert Index(tmp_path / "x").manifest == index.manifest  # it was compact


def test_segments_stay_few_however_many_commits_there_are(tmp_path: Path) -> None:
    build_index(tmp_path / "x", named(["falcon"], shape="first{}"), settings_of())
    most = 0
    with IndexWriter(tmp_path / "x") as writer:
        for number in range(70):
            writer.add([Document(DocId(f"d{number:03}"), f"falcon number {number}")])
            assert writer.manifest
            most = max(most, len(writer.manifest.segments))
    # At most three of each size class, of which 71 documents make four: 1 to 3, 4 to 15, 16 to 63, 64 and more.
    assert most <= (MERGE_FACTOR - 1) * math.ceil(math.log(71, MERGE_FACTOR))
    index = Index(tmp_path / "x")
    assert len(index) == 71
    index.verify()


def test_a_segment_of_which_more_than_half_is_deleted_is_written_anew(tmp_path: Path) -> None:
    documents = named(["falcon"] * 10)
    indexed(tmp_path / "x", documents)
    delete_documents(tmp_path / "x", *(document.id for document in documents[:5]))
    (half,) = Index(tmp_path / "x").manifest.segments
    assert (half.documents, half.live_documents) == (10, 5)
    delete_documents(tmp_path / "x", documents[5].id)
    (record,) = Index(tmp_path / "x").manifest.segments
    assert (record.documents, record.deletes) == (4, None)
    assert not due_for_merge([record])


def test_a_merge_that_the_disk_refuses_does_not_undo_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiercel.index import writer as module

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "merge_segments", refuse)
    build_index(tmp_path / "x", FALCONS[:1], settings_of())
    told: list[str] = []
    with IndexWriter(tmp_path / "x", say=told.append) as writer:
        for document in FALCONS[1:]:
            writer.add([document])
    assert len(Index(tmp_path / "x")) == 6
    assert told[0].startswith("the change is in, but merging segments was put off: ")


class Breaking(HashedWords):
    """Fails after so many texts; counts what it has encoded."""

    def __init__(self, left: int) -> None:
        super().__init__(8)
        self.left = left
        self.encoded = 0

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) > self.left:
            raise KeyError("stopped")
        self.left -= len(texts)
        self.encoded += len(texts)
        return super().encode_documents(texts)


@pytest.mark.parametrize("chunking", [None, Chunking("tokens", 4, 2)])
def test_a_build_that_was_stopped_goes_on_where_it_was_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunking: Chunking | None
) -> None:
    monkeypatch.setattr(journal, "_SLAB_ROWS", 10)
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 25)
    documents = named(zipf_texts(100, words=40, seed=6))
    made = settings_of(encoder=ENCODER, chunking=chunking)
    expected = indexed(tmp_path / "y", documents, encoder=ENCODER, chunking=chunking)
    stops = 0
    told: list[str] = []
    for _ in range(100):
        encoder = Breaking(60)
        try:
            with IndexWriter(tmp_path / "x", create=True, say=told.append) as writer:
                writer.build(documents, made, encoder=RowEncoder(encoder))
            break
        except KeyError:
            assert encoder.encoded >= 50
            stops += 1
    assert stops == (expected.manifest.rows - 1) // 60
    index = Index(tmp_path / "x")
    assert index.manifest.segments == expected.manifest.segments
    assert not (tmp_path / "x" / "journal").exists()
    assert told[0].endswith("passages had been encoded by a build that was interrupted")


def test_refresh_moves_on_and_keeps_what_stayed(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    before = answers(index)
    assert not index.refresh()
    (first,) = index.views
    delete_documents(tmp_path / "x", "d5")
    add_documents(tmp_path / "x", [Document(DocId("d7"), "falcon")], encoder=ENCODER)
    assert answers(index) == before
    assert index.refresh()
    assert index.views[0].segment is first.segment
    assert answers(index) == answers(Index(tmp_path / "x")) != before
    assert len(index) == 6


# Any sequence of changes equals a dictionary that is searched by brute force.


def brute_force(documents: Sequence[Document], query: str) -> dict[str, float]:
    """BM25 as Lucene's (k1=.9, b=.4) of every document that holds a term of the query."""
    texts = {document.id: document.full_text.split() for document in documents}
    mean = sum(map(len, texts.values())) / max(len(texts), 1)
    scores: dict[str, float] = {}
    for term, repeated in Counter(query.split()).items():
        holders = [doc_id for doc_id, words in texts.items() if term in words]
        idf = math.log(1 + (len(texts) - len(holders) + 0.5) / (len(holders) + 0.5))
        for doc_id in holders:
            frequency = texts[doc_id].count(term)
            norm = 0.9 * (1 - 0.4 + 0.4 * len(texts[doc_id]) / mean)
            scores[doc_id] = scores.get(doc_id, 0) + repeated * idf * frequency / (frequency + norm)
    return scores


IDS = st.sampled_from([f"d{number}" for number in range(8)])
DOCUMENTS = st.builds(
    lambda doc_id, words, year: Document(
        DocId(doc_id), " ".join(words), metadata={} if year is None else {"year": year}
    ),
    IDS,
    st.lists(st.sampled_from(WORDS), max_size=6),
    st.none() | st.integers(2000, 2004),
)


class Changes(RuleBasedStateMachine):
    """An index and a dictionary, changed alike."""

    chunking: Chunking | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.documents: dict[str, Document] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(documents=st.lists(DOCUMENTS, min_size=1, max_size=5, unique_by=lambda document: document.id))
    def made(self, documents: list[Document]) -> None:
        made = settings_of(encoder=ENCODER, chunking=self.chunking)
        build_index(self.folder / "x", documents, made, encoder=ENCODER)
        self.documents = {document.id: document for document in documents}
        self.reader = Index(self.folder / "x")

    @rule(documents=st.lists(DOCUMENTS, min_size=1, max_size=3))
    def add(self, documents: list[Document]) -> None:
        with IndexWriter(self.folder / "x") as writer:
            writer.add(documents, encoder=RowEncoder(ENCODER), on_duplicate="last")
        for document in documents:
            self.documents[document.id] = document

    @rule(ids=st.lists(IDS, max_size=3))
    def delete(self, ids: list[str]) -> None:
        unknown = delete_documents(self.folder / "x", *ids)
        assert unknown == [doc_id for doc_id in dict.fromkeys(ids) if doc_id not in self.documents]
        for doc_id in ids:
            self.documents.pop(doc_id, None)

    @rule(year=st.integers(2000, 2004))
    def delete_where(self, year: int) -> None:
        with IndexWriter(self.folder / "x") as writer:
            if "year" not in (writer.manifest.columns if writer.manifest else {}):
                return
            gone = [key for key, document in self.documents.items() if document.metadata.get("year", 9999) < year]
            assert writer.delete_where(f"year < {year}") == len(gone)
        for doc_id in gone:
            del self.documents[doc_id]

    @rule()
    def compact(self) -> None:
        compact_index(self.folder / "x")

    @rule()
    def open_again(self) -> None:
        self.reader = Index(self.folder / "x")

    @invariant()
    def equals_the_dictionary(self) -> None:
        self.reader.refresh()
        index, documents = self.reader, list(self.documents.values())
        assert len(index) == len(documents)
        assert index.get([document.id for document in documents]) == documents
        index.verify()
        if not documents:
            assert not any(ranking.hits for ranking in answers(index))
            return
        shutil.rmtree(self.folder / "y", ignore_errors=True)
        fresh = indexed(self.folder / "y", documents, encoder=ENCODER, chunking=self.chunking)
        for variant in VARIANTS:
            assert answers(index, variant=variant) == answers(fresh, variant=variant)
        if "year" in index.manifest.columns:
            self.filters_the_dictionary(index, documents)
        if self.chunking is None:
            self.scores_the_dictionary(index, documents)
        else:
            assert answers(index, passages=True) == answers(fresh, passages=True)

    def filters_the_dictionary(self, index: Index, documents: list[Document]) -> None:
        selected = {document.id for document in documents if document.metadata.get("year", 0) >= 2002}
        for ranking in DenseRetriever(index.filtered("year >= 2002"), ENCODER).retrieve(QUERIES[:3], keep=8):
            assert set(ranking.doc_ids) == selected
        lexical = LexicalRetriever(index.views, index.analyzer).retrieve(QUERIES, keep=8)
        filtered = LexicalRetriever(index.filtered("year >= 2002"), index.analyzer).retrieve(QUERIES, keep=8)
        for whole, part in zip(lexical, filtered, strict=True):
            assert part.hits == tuple(hit for hit in whole.hits if hit.doc_id in selected)

    def scores_the_dictionary(self, index: Index, documents: list[Document]) -> None:
        for query, found in zip(QUERIES, answers(index), strict=False):
            expected = brute_force(documents, query.text)
            assert len(found.hits) == min(4, len(expected))
            for hit in found.hits:
                assert hit.score == pytest.approx(expected[hit.doc_id], rel=1e-5)
            kept = set(found.doc_ids)
            assert all(expected[i] <= found.hits[-1].score * (1 + 1e-5) for i in expected if i not in kept)
        vectors = ENCODER.encode_documents([document.full_text for document in documents]).astype(np.float16)
        asked_for = [query for query in QUERIES if query.text]
        for query, found in zip(asked_for, answers(index)[len(QUERIES) :], strict=False):
            cosines = vectors.astype(np.float64) @ ENCODER.encode_queries([query.text])[0].astype(np.float64)
            exact = sorted(zip(-cosines.astype(np.float32), [document.id for document in documents], strict=True))[:4]
            assert [(hit.doc_id, hit.score) for hit in found.hits] == [(i, -score) for score, i in exact]


class ChangesOfPassages(Changes):
    """The same where documents are cut into passages."""

    chunking = BOTH


HYPOTHESIS = settings(max_examples=12, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))
TestChanges = Changes.TestCase
TestChanges.settings = HYPOTHESIS
TestChangesOfPassages = ChangesOfPassages.TestCase
TestChangesOfPassages.settings = HYPOTHESIS
