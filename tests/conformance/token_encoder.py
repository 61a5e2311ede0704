"""What every TokenEncoder must do. Its test class inherits this and supplies the fixture `encoder`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.encoder import TEXTS
from tests.conformance.reranker import ODD_TEXTS
from tiercel.protocols import TokenEncoder

LONG = ("the falcon hunts by the cold river " * 3000)[:100_000]

Matrices = Sequence[NDArray[np.float32]]


class TokenEncoderConformance:
    """Inherit it and define a fixture `encoder` that returns the encoder under test.

    `tolerance` is how far a vector may move with what else is in the batch; 0 asks for the same bits.
    """

    tolerance = 0.0

    @pytest.fixture
    def encoder(self) -> TokenEncoder:
        raise NotImplementedError("supply the encoder under test")

    def test_no_texts_give_no_matrices(self, encoder: TokenEncoder) -> None:
        assert encoder.encode_queries([]) == encoder.encode_documents([]) == []

    def test_one_float32_matrix_per_text(self, encoder: TokenEncoder) -> None:
        for matrices in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
            assert len(matrices) == len(TEXTS)
            for matrix in matrices:
                assert len(matrix) >= 1
                assert matrix.shape[1:] == (encoder.dimension,)
                assert matrix.dtype == np.float32

    def test_rows_have_norm_one(self, encoder: TokenEncoder) -> None:
        for matrices in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
            np.testing.assert_allclose(np.linalg.norm(np.concatenate(matrices), axis=1), 1.0, atol=1e-5)

    @pytest.mark.parametrize("texts", [TEXTS, ODD_TEXTS], ids=["texts", "odd texts"])
    def test_alone_equals_in_a_batch(self, encoder: TokenEncoder, texts: list[str]) -> None:
        for encode in (encoder.encode_queries, encoder.encode_documents):
            self.check_same(encode(texts), [encode([text])[0] for text in texts])

    def test_matrices_follow_the_order_of_the_texts(self, encoder: TokenEncoder) -> None:
        for encode in (encoder.encode_queries, encoder.encode_documents):
            self.check_same(encode(TEXTS), encode(TEXTS[::-1])[::-1])

    def test_the_same_text_gives_the_same_and_another_text_another(self, encoder: TokenEncoder) -> None:
        first, _, other, _, again = encoder.encode_documents(TEXTS)
        self.check_same([first], [again])
        assert first.shape != other.shape or np.abs(first - other).max() > 1e-3

    @pytest.mark.parametrize("text", ["", " \n", ".", "?!., ..", *ODD_TEXTS])
    def test_odd_texts_have_matrices(self, encoder: TokenEncoder, text: str) -> None:
        """Of no tokens perhaps, where all that there is is skipped."""
        for (matrix,) in (encoder.encode_queries([text]), encoder.encode_documents([text])):
            assert matrix.shape[1:] == (encoder.dimension,)
            assert matrix.dtype == np.float32
            assert np.isfinite(matrix).all()

    def test_a_long_document_is_cut_and_moves_no_other(self, encoder: TokenEncoder) -> None:
        before = encoder.truncated
        *others, cut, longer = encoder.encode_documents([*TEXTS, LONG, LONG + " bread"])
        assert encoder.truncated == before + 2
        self.check_same(others, encoder.encode_documents(TEXTS))
        self.check_same([cut], [longer])
        assert 1 <= len(cut) <= 20_000

    def test_a_long_query_is_counted_too(self, encoder: TokenEncoder) -> None:
        before = encoder.truncated
        encoder.encode_queries(["bread", LONG])
        assert encoder.truncated == before + 1

    def test_fingerprint_is_stable_and_not_empty(self, encoder: TokenEncoder) -> None:
        before = encoder.fingerprint
        encoder.encode_documents(TEXTS)
        assert before
        assert encoder.fingerprint == before

    def check_same(self, first: Matrices, second: Matrices) -> None:
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=self.tolerance)
