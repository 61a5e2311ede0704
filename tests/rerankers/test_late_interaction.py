from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tests.conformance.reranker import ODD_TEXTS, RerankerConformance
from tests.index.made import FALCONS, named, zipf_texts
from tiercel.errors import UsageError
from tiercel.index.ann import FloatMatrix
from tiercel.index.residual import CODECS
from tiercel.index.token_vectors import TokenVectors, TokenVectorWriter, open_token_vectors
from tiercel.protocols import CandidateGroup, Reranker, TokenEncoder
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.types import DocId, Document, Query, QueryId

STOP_WORDS = {"a", "the", "in", "is"}
MANY = named(zipf_texts(100, words=60, seed=1))
ODD = named(ODD_TEXTS, shape="odd{}")
LONG = Document(DocId("long"), "the falcon hunts by the cold river " * 2000)


class HashedTokens:
    """Each word is a fixed random direction; of documents, stop words are skipped. Counts what it encodes."""

    truncated = 0

    def __init__(self, dimension: int = 16) -> None:
        self.dimension = dimension
        self.fingerprint = f"hashed-tokens-{dimension}"
        self.encoded: list[int] = []

    def encode_queries(self, texts: Sequence[str]) -> list[FloatMatrix]:
        return self._encode([text.lower().split() for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> list[FloatMatrix]:
        return self._encode([[word for word in text.lower().split() if word not in STOP_WORDS] for text in texts])

    def _encode(self, texts: Sequence[Sequence[str]]) -> list[FloatMatrix]:
        self.encoded.append(len(texts))
        empty = np.zeros((0, self.dimension), dtype=np.float32)
        return [np.concatenate([empty, *(self._direction(word) for word in words)]) for words in texts]

    def _direction(self, word: str) -> FloatMatrix:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        drawn = np.random.default_rng(seed).standard_normal((1, self.dimension))
        return np.asarray(drawn / np.linalg.norm(drawn), dtype=np.float32)


class Stored:
    """The token vectors of documents, kept in one segment."""

    def __init__(self, folder: Path, documents: Sequence[Document], encoder: TokenEncoder, choice: str) -> None:
        writer = TokenVectorWriter(folder, choice, encoder.dimension)
        writer.add(encoder.encode_documents([document.full_text for document in documents]))
        writer.finish()
        self._rows = {document.id: row for row, document in enumerate(documents)}
        self._vectors: TokenVectors = open_token_vectors(folder, len(documents), encoder.dimension, choice)

    def token_vectors(self, doc_ids: Sequence[DocId]) -> tuple[FloatMatrix, NDArray[np.int64]]:
        return self._vectors.gather(np.array([self._rows[one] for one in doc_ids]))


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
        encoder = HashedTokens()
        stored = Stored(tmp_path / "tokens", [*FALCONS, *MANY, *ODD, LONG], encoder, request.param)
        return LateInteraction(encoder, stored=stored, threads=2)


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


def test_where_vectors_are_stored_only_queries_are_encoded(tmp_path: Path) -> None:
    encoder = HashedTokens()
    stored = Stored(tmp_path / "tokens", [*FALCONS, *MANY], encoder, "fp16")
    encoder.encoded.clear()
    LateInteraction(encoder, stored=stored).score([*GROUPS, CandidateGroup(query("none"), [])])
    assert encoder.encoded == [4]


def test_nothing_is_encoded_for_nothing() -> None:
    encoder = HashedTokens()
    assert [len(array) for array in LateInteraction(encoder).score([CandidateGroup(query("none"), [])])] == [0]
    assert encoder.encoded == []


@pytest.mark.parametrize(("choice", "apart"), [("fp16", 1e-3), ("int8", 0.02), ("4bit", 0.3), ("2bit", 0.8)])
def test_stored_vectors_score_as_new_ones_within_what_their_form_rounds(
    tmp_path: Path, choice: str, apart: float
) -> None:
    encoder = HashedTokens()
    stored = Stored(tmp_path / "tokens", [*FALCONS, *MANY], encoder, choice)
    fresh, kept = LateInteraction(encoder).score(GROUPS), LateInteraction(encoder, stored=stored).score(GROUPS)
    for first, second in zip(fresh, kept, strict=True):
        assert_allclose(first, second, atol=apart)


def test_threads_do_not_change_a_bit() -> None:
    one, four = (LateInteraction(HashedTokens(), threads=threads).score(GROUPS) for threads in (1, 4))
    assert [array.tolist() for array in one] == [array.tolist() for array in four]


def test_an_error_of_the_store_comes_through(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "tokens", FALCONS, HashedTokens(), "fp16")
    with pytest.raises(KeyError):
        LateInteraction(HashedTokens(), stored=stored, threads=2).score(GROUPS)


def test_vectors_of_another_dimension_are_refused(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "tokens", FALCONS, HashedTokens(), "fp16")
    with pytest.raises(UsageError, match="Take the encoder that the documents were encoded with"):
        LateInteraction(HashedTokens(8), stored=stored).score(GROUPS[:1])


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown score 'max' of late interaction; expected one of sum, mean"):
        LateInteraction(HashedTokens(), score="max")
    with pytest.raises(UsageError, match="threads=0; expected at least 1"):
        LateInteraction(HashedTokens(), threads=0)
