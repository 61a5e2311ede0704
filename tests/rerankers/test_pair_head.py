from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tests.conformance.reranker import ODD_TEXTS, RerankerConformance
from tests.index.made import FALCONS, HashedWords, build_index, named, settings_of, zipf_texts
from tests.models.test_pair_head import drawn_head
from tiercel.data.chunking import Chunking
from tiercel.errors import IndexStoreError, ModelError
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens, row_vectors
from tiercel.protocols import CandidateGroup, Reranker
from tiercel.rerankers.pair_head import PairReranker
from tiercel.types import DocId, Document, Query, QueryId

HEAD = drawn_head(16)
MANY = named(zipf_texts(100, words=60, seed=1))
LONG = Document(DocId("long"), "the falcon hunts by the cold river " * 2000)


def query(text: str) -> Query:
    return Query(QueryId(text), text)


class TestEncoded(RerankerConformance):
    score_tolerance = 1e-4  # sums of products come in another order where the batch is of another size

    @pytest.fixture
    def reranker(self) -> Reranker:
        return PairReranker(HashedWords(), HEAD)

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return [
            CandidateGroup(query("male falcon"), FALCONS),
            CandidateGroup(query("the city"), FALCONS[2:4]),
            CandidateGroup(query("pigeons that breed"), FALCONS[:1]),
            CandidateGroup(query("w0 w3 w5"), MANY),
        ]


class TestStored(TestEncoded):
    @pytest.fixture
    def reranker(self, tmp_path: Path) -> Reranker:
        documents = [*FALCONS, *MANY, *named(ODD_TEXTS, shape="odd{}"), LONG]
        build_index(tmp_path / "x", documents, settings_of(encoder=HashedWords()), encoder=HashedWords())
        return PairReranker(HashedWords(), HEAD, stored=StoredTokens(Index(tmp_path / "x").views, of=row_vectors))


def test_stored_vectors_give_the_scores_of_vectors_made_anew(tmp_path: Path) -> None:
    build_index(tmp_path / "x", FALCONS, settings_of(encoder=HashedWords()), encoder=HashedWords())
    stored = PairReranker(HashedWords(), HEAD, stored=StoredTokens(Index(tmp_path / "x").views, of=row_vectors))
    made = PairReranker(HashedWords(), HEAD)
    assert made.reads
    assert not stored.reads
    group = CandidateGroup(query("male falcon"), FALCONS)
    assert_allclose(stored.score([group])[0], made.score([group])[0], atol=2e-2)  # float16


def test_a_document_in_passages_has_the_score_of_its_best_or_of_the_one_that_is_meant(tmp_path: Path) -> None:
    settings = settings_of(encoder=HashedWords(), chunking=Chunking("tokens", 2, 0))
    build_index(tmp_path / "x", FALCONS[:1], settings, encoder=HashedWords())
    reranker = PairReranker(HashedWords(), HEAD, stored=StoredTokens(Index(tmp_path / "x").views, of=row_vectors))
    vectors = HashedWords().encode_documents(["the falcon", "hunts pigeons"])
    (asked,) = HashedWords().encode_queries(["falcon"])
    pieces = HEAD.scores(asked, vectors)
    nameless = [Document(DocId("d1"), "")]
    (best,) = reranker.score([CandidateGroup(query("falcon"), nameless)])
    assert_allclose(best, [pieces.max()], atol=2e-2)
    for span, score in (((0, 10), pieces[0]), ((11, 24), pieces[1])):
        (found,) = reranker.score([CandidateGroup(query("falcon"), nameless, [span])])
        assert_allclose(found, [score], atol=2e-2)


def test_a_document_that_is_not_in_the_index_is_named(tmp_path: Path) -> None:
    build_index(tmp_path / "x", FALCONS, settings_of(encoder=HashedWords()), encoder=HashedWords())
    reranker = PairReranker(HashedWords(), HEAD, stored=StoredTokens(Index(tmp_path / "x").views, of=row_vectors))
    with pytest.raises(IndexStoreError, match="no document has the id 'd9'"):
        reranker.score([CandidateGroup(query("x"), [Document(DocId("d9"), "")])])


def test_a_head_of_another_length_is_refused() -> None:
    with pytest.raises(ModelError, match="its head compares vectors of 3 numbers; expected 16, the encoder's"):
        PairReranker(HashedWords(), drawn_head(3))


def test_no_candidates_give_no_scores() -> None:
    (scores,) = PairReranker(HashedWords(), HEAD).score([CandidateGroup(query("x"), [])])
    assert scores.dtype == np.float32
    assert scores.shape == (0,)


class Cutting(HashedWords):
    """Cuts every text, queries too, and counts each."""

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.truncated += len(texts)
        return super()._encode(texts)


def test_candidates_that_were_cut_are_counted_and_queries_are_not() -> None:
    reranker = PairReranker(Cutting(), HEAD)
    reranker.score([CandidateGroup(query("male falcon"), FALCONS), CandidateGroup(query("city"), FALCONS[:2])])
    assert reranker.truncated == len(FALCONS)
