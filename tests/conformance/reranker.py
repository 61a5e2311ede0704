"""What every Reranker promises. Inherit `RerankerConformance` in a test class and override its fixtures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from tiercel.protocols import CandidateGroup, Explains, Reranker
from tiercel.types import DocId, Document, Query

ODD_TEXTS = [
    "",
    " \t\n ",
    "\x00\x01\x7f",
    "naïve naïve ﬁle ℌ",
    "猛禽在河边捕猎。",
    "الصقر يصطاد",
    "👩‍👩‍👧‍👦🦅" * 3,
    "\u200b\u202e\ufeff",
    "\ud7ff\ue000\U0010ffff",
    "[SEP] [CLS] <s> </s>",
]


class RerankerConformance:
    """Override `reranker` and `groups`.

    `score_tolerance` is how far a score may move with what else is in the batch; 0 asks for the same bits. `listwise`:
    scores depend on the candidates that are read together, as many as the largest group has and one more.
    """

    score_tolerance = 0.0
    listwise = False

    @pytest.fixture
    def reranker(self) -> Reranker:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        """At least three non-empty groups of different sizes, one of them with three candidates or more."""
        raise NotImplementedError("override this fixture")

    def test_no_groups_give_no_arrays(self, reranker: Reranker) -> None:
        assert list(reranker.score([])) == []

    def test_what_explains_gives_parts_of_the_score(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        if not isinstance(reranker, Explains):
            pytest.skip("does not explain")
        for group, array in zip(groups, reranker.score(groups), strict=True):
            for document, score in zip(group.documents[:3], array.tolist(), strict=False):
                parts = reranker.explain(group.query, document)
                if parts is None:
                    pytest.skip("what it wraps does not explain")
                assert parts.score == pytest.approx(score, rel=1e-6, abs=1e-5 + self.score_tolerance)

    def test_groups_differ_in_size(self, groups: list[CandidateGroup]) -> None:
        sizes = [len(group.documents) for group in groups]
        assert len(set(sizes)) >= 3
        assert min(sizes) >= 1
        assert max(sizes) >= 3

    def test_one_finite_float32_per_candidate(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        scores = reranker.score(groups)
        assert len(scores) == len(groups)
        for group, array in zip(groups, scores, strict=True):
            assert array.shape == (len(group.documents),)
            assert array.dtype == np.float32
            assert np.isfinite(array).all()

    def test_an_empty_group_gives_an_empty_array(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        empty = CandidateGroup(groups[0].query, [])
        (alone,) = reranker.score([empty])
        assert alone.shape == (0,)
        assert alone.dtype == np.float32
        first, between, second = reranker.score([groups[0], empty, groups[1]])
        assert between.shape == (0,)
        self.check_same(first, reranker.score([groups[0]])[0])
        self.check_same(second, reranker.score([groups[1]])[0])

    def test_alone_equals_in_a_batch(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        for group, array in zip(groups, reranker.score(groups), strict=True):
            self.check_same(array, reranker.score([group])[0])

    def test_one_candidate_alone_scores_as_among_others(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        group = max(groups, key=lambda group: len(group.documents))
        (together,) = reranker.score([group])
        apart = reranker.score([CandidateGroup(group.query, [document]) for document in group.documents])
        self.check_independent(together, np.concatenate(apart))

    def test_permuted_candidates_permute_the_scores(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        group = max(groups, key=lambda group: len(group.documents))
        order = [*range(1, len(group.documents)), 0]
        (scores,) = reranker.score([group])
        (permuted,) = reranker.score([CandidateGroup(group.query, [group.documents[i] for i in order])])
        self.check_same(permuted, scores[order])

    def test_permuted_groups_permute_the_arrays(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        for forward, backward in zip(reranker.score(groups), reranker.score(groups[::-1])[::-1], strict=True):
            self.check_same(forward, backward)

    def test_a_repeated_call_gives_the_same(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        for first, second in zip(reranker.score(groups), reranker.score(groups), strict=True):
            assert_allclose(first, second, rtol=0, atol=0)

    def test_odd_texts_are_scored_as_alone(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        """Empty documents, white space, control characters, scripts of every direction, literal special tokens."""
        odd = [Document(DocId(f"odd{i}"), text) for i, text in enumerate(ODD_TEXTS)]
        (scores,) = reranker.score([CandidateGroup(groups[0].query, odd)])
        assert np.isfinite(scores).all()
        alone = reranker.score([CandidateGroup(groups[0].query, [document]) for document in odd])
        self.check_independent(scores, np.concatenate(alone))

    def test_odd_queries_are_scored(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        odd = [CandidateGroup(Query(groups[0].query.id, text), groups[0].documents) for text in ODD_TEXTS]
        for array in reranker.score(odd):
            assert np.isfinite(array).all()

    def test_a_long_document_moves_no_other(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        group = max(groups, key=lambda group: len(group.documents))
        long = Document(DocId("long"), ("the falcon hunts by the cold river " * 3000)[:100_000])
        (scores,) = reranker.score([CandidateGroup(group.query, [*group.documents, long])])
        assert np.isfinite(scores).all()
        self.check_independent(scores[:-1], reranker.score([group])[0])

    def test_equal_documents_score_alike(self, reranker: Reranker, groups: list[CandidateGroup]) -> None:
        document = groups[0].documents[0]
        (scores,) = reranker.score([CandidateGroup(groups[0].query, [document] * 5)])
        self.check_same(scores, np.full(5, scores[0], dtype=np.float32))

    def check_independent(self, among_some: NDArray[np.float32], among_others: NDArray[np.float32]) -> None:
        if self.listwise:
            assert not np.allclose(among_some, among_others, rtol=0, atol=1e-3)
        else:
            self.check_same(among_some, among_others)

    def check_same(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> None:
        assert_allclose(first, second, rtol=0, atol=self.score_tolerance)
