from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from tests.conformance.reranker import ODD_TEXTS, RerankerConformance
from tests.index.made import FALCONS, HashedTokens, build_index, named, settings_of, zipf_texts
from tests.models.tiny import make_multi_vector
from tiercel.config import TokenCodec
from tiercel.errors import IndexStoreError, UsageError
from tiercel.index.residual import CODECS
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.models.description import ModelSource
from tiercel.models.export_late_interaction import export
from tiercel.models.token_encoder import OnnxTokenEncoder
from tiercel.protocols import CandidateGroup, Reranker
from tiercel.rerankers import late_interaction
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.types import DocId, Document, Query, QueryId

MANY = named(zipf_texts(100, words=60, seed=1))
ODD = named(ODD_TEXTS, shape="odd{}")
LONG = Document(DocId("long"), "the falcon hunts by the cold river " * 2000)


def stored(folder: Path, documents: Sequence[Document], choice: TokenCodec = "fp16") -> StoredTokens:
    """The token vectors of documents, kept in an index."""
    settings = settings_of(tokens=choice, token_encoder=HashedTokens())
    build_index(folder, documents, settings, token_encoder=HashedTokens())
    return StoredTokens(Index(folder).views)


def query(text: str) -> Query:
    return Query(QueryId(text), text)


GROUPS = [
    CandidateGroup(query("male falcon"), FALCONS),
    CandidateGroup(query("the city"), FALCONS[2:4]),
    CandidateGroup(query("pigeons that breed"), FALCONS[:1]),
    CandidateGroup(query("w0 w3 w5"), MANY),
]


class TestEncoded(RerankerConformance):
    @pytest.fixture
    def reranker(self) -> Reranker:
        return LateInteraction(HashedTokens())

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return GROUPS


class TestEncodedByThreads(TestEncoded):
    @pytest.fixture
    def reranker(self) -> Reranker:
        return LateInteraction(HashedTokens(), threads=3, score="mean")


class TestStored(TestEncoded):
    @pytest.fixture(params=CODECS)
    def reranker(self, request: pytest.FixtureRequest, tmp_path: Path) -> Reranker:
        documents = [*FALCONS, *MANY, *ODD, LONG]
        return LateInteraction(HashedTokens(), stored=stored(tmp_path / "x", documents, request.param), threads=2)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnnxTokenEncoder:
    """A real model, whose queries are filled up with tokens that are not attended to."""
    folder = tmp_path_factory.mktemp("late")
    source = make_multi_vector(folder / "source", expansion={"strategy": "fixed", "length": 12}, skipped=[".", ","])
    found = ModelSource("tiny-late", source, "test")
    return OnnxTokenEncoder(export(found, folder / "model", precision=request.param).folder, threads=2)


class TestModel(TestEncoded):
    @pytest.fixture
    def reranker(self, model: OnnxTokenEncoder) -> Reranker:
        return LateInteraction(model, threads=2)


def test_a_word_that_is_there_scores_one() -> None:
    encoder = HashedTokens()
    (scores,) = LateInteraction(encoder).score([GROUPS[0]])
    male, falcon, pigeon = (encoder.encode_queries([word])[0][0] for word in ("male", "falcon", "pigeon"))
    assert scores[1] == pytest.approx(2, abs=1e-6)  # a tiercel is a male falcon
    assert scores[3] == pytest.approx(1 + max(falcon @ male, falcon @ pigeon), abs=1e-6)  # the male pigeon
    assert scores[4] == pytest.approx(1 + male @ falcon, abs=1e-6)  # falcon falcon falcon


def test_a_candidate_whose_words_are_all_skipped_comes_last() -> None:
    group = CandidateGroup(query("male falcon"), [*FALCONS, Document(DocId("stop"), "the in a")])
    (sums,) = LateInteraction(HashedTokens()).score([group])
    assert sums[-1] == -2 == sums.min()
    (means,) = LateInteraction(HashedTokens(), score="mean").score([group])
    assert means[-1] == -1 == means.min()


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_a_query_without_tokens_gives_nothing_to_all(score: str) -> None:
    (scores,) = LateInteraction(HashedTokens(), score=score).score([CandidateGroup(query(""), FALCONS)])
    assert scores.tolist() == [0.0] * len(FALCONS)


def test_means_are_sums_by_the_number_of_query_tokens() -> None:
    sums, means = (LateInteraction(HashedTokens(), score=score).score(GROUPS) for score in ("sum", "mean"))
    for group, total, mean in zip(GROUPS, sums, means, strict=True):
        assert_allclose(mean, total / len(group.query.text.split()), rtol=1e-6)


def test_a_title_is_read_too() -> None:
    titled = Document(DocId("t"), "it hunts", title="Falcon")
    (scores,) = LateInteraction(HashedTokens()).score([CandidateGroup(query("falcon"), [titled])])
    assert scores[0] == pytest.approx(1, abs=1e-6)


def test_queries_and_distinct_texts_are_encoded_in_one_call_each() -> None:
    encoder = HashedTokens()
    LateInteraction(encoder).score(GROUPS)
    assert encoder.encoded == [4, len(FALCONS) + len({document.text for document in MANY})]


def test_each_distinct_text_is_encoded_once_and_few_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LateInteraction(HashedTokens()).score(GROUPS)
    monkeypatch.setattr(late_interaction, "_SLAB_TEXTS", 10)
    encoder = HashedTokens()
    apart = LateInteraction(encoder).score(GROUPS)
    distinct = len(FALCONS) + len({document.text for document in MANY})
    assert encoder.encoded == [4, *[10] * (distinct // 10), *([distinct % 10] if distinct % 10 else [])]
    assert [array.tolist() for array in apart] == [array.tolist() for array in whole]


def test_where_vectors_are_stored_only_queries_are_encoded(tmp_path: Path) -> None:
    encoder = HashedTokens()
    reranker = LateInteraction(encoder, stored=stored(tmp_path / "x", [*FALCONS, *MANY]))
    reranker.score([*GROUPS, CandidateGroup(query("none"), [])])
    assert encoder.encoded == [4]
    assert not reranker.reads


def test_texts_that_are_read_are_cut_and_counted() -> None:
    reranker = LateInteraction(HashedTokens(window=3))
    reranker.score(GROUPS[:2])
    assert reranker.reads
    assert reranker.truncated == 3  # d1, d2 and d3; queries are not counted


def test_nothing_is_encoded_for_nothing() -> None:
    encoder = HashedTokens()
    assert [len(array) for array in LateInteraction(encoder).score([CandidateGroup(query("none"), [])])] == [0]
    assert encoder.encoded == []


@pytest.mark.parametrize(("choice", "apart"), [("fp16", 1e-3), ("int8", 0.02), ("4bit", 0.3), ("2bit", 0.8)])
def test_stored_vectors_score_as_new_ones_within_what_their_form_rounds(
    tmp_path: Path, choice: TokenCodec, apart: float
) -> None:
    kept = LateInteraction(HashedTokens(), stored=stored(tmp_path / "x", [*FALCONS, *MANY], choice)).score(GROUPS)
    for first, second in zip(LateInteraction(HashedTokens()).score(GROUPS), kept, strict=True):
        assert_allclose(first, second, atol=apart)


def test_threads_do_not_change_a_bit() -> None:
    one, four = (LateInteraction(HashedTokens(), threads=threads).score(GROUPS) for threads in (1, 4))
    assert [array.tolist() for array in one] == [array.tolist() for array in four]


def test_tasks_are_cut_by_tokens_and_do_not_change_a_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = stored(tmp_path / "x", [*FALCONS, *MANY])
    whole = LateInteraction(HashedTokens(), stored=source).score(GROUPS)
    for tokens in (1, 7, 50):
        monkeypatch.setattr(late_interaction, "_TASK_TOKENS", tokens)
        parts = LateInteraction(HashedTokens(), stored=source, threads=2).score(GROUPS)
        assert [array.tolist() for array in parts] == [array.tolist() for array in whole]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_the_store_comes_through(tmp_path: Path, threads: int) -> None:
    reranker = LateInteraction(HashedTokens(), stored=stored(tmp_path / "x", FALCONS), threads=threads)
    with pytest.raises(IndexStoreError, match="no document has the id 'd00000'"):
        reranker.score(GROUPS)


def test_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Take the encoder that the documents were encoded with"):
        LateInteraction(HashedTokens(8), stored=stored(tmp_path / "x", FALCONS)).score(GROUPS[:1])


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown score 'max' of late interaction; expected one of sum, mean"):
        LateInteraction(HashedTokens(), score="max")
    with pytest.raises(UsageError, match="threads=0; expected at least 1"):
        LateInteraction(HashedTokens(), threads=0)
