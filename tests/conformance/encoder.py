"""What every Encoder must do. An encoder's test class inherits this and supplies the fixture `encoder`."""

from __future__ import annotations

import numpy as np
import pytest

from tiercel.protocols import Encoder, JointEncoder

TEXTS = [
    "a falcon hunts",
    "the river is cold and deep in the winter and nobody swims in it",
    "bread",
    "who sold the house by the river",
    "a falcon hunts",
]


class EncoderConformance:
    """Inherit it and define a fixture `encoder` that returns the encoder under test."""

    @pytest.fixture
    def encoder(self) -> Encoder:
        raise NotImplementedError("supply the encoder under test")

    def test_no_texts_give_zero_rows(self, encoder: Encoder) -> None:
        for vectors in (encoder.encode_queries([]), encoder.encode_documents([])):
            assert vectors.shape == (0, encoder.dimension)
            assert vectors.dtype == np.float32

    def test_one_row_per_text_in_float32(self, encoder: Encoder) -> None:
        for vectors in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
            assert vectors.shape == (len(TEXTS), encoder.dimension)
            assert vectors.dtype == np.float32

    def test_rows_have_norm_one(self, encoder: Encoder) -> None:
        for vectors in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    def test_alone_equals_in_a_batch(self, encoder: Encoder) -> None:
        for encode in (encoder.encode_queries, encoder.encode_documents):
            alone = np.concatenate([encode([text]) for text in TEXTS])
            np.testing.assert_allclose(encode(TEXTS), alone, atol=1e-5)

    def test_rows_follow_the_order_of_the_texts(self, encoder: Encoder) -> None:
        forward, backward = encoder.encode_documents(TEXTS), encoder.encode_documents(TEXTS[::-1])
        np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)

    def test_the_same_text_gives_the_same_row_and_another_text_another(self, encoder: Encoder) -> None:
        vectors = encoder.encode_documents(TEXTS)
        np.testing.assert_allclose(vectors[0], vectors[4], atol=1e-5)
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-3

    def test_an_empty_text_has_a_vector(self, encoder: Encoder) -> None:
        assert encoder.encode_documents([""]).shape == (1, encoder.dimension)

    def test_fingerprint_is_stable_and_not_empty(self, encoder: Encoder) -> None:
        before = encoder.fingerprint
        encoder.encode_documents(TEXTS)
        assert before
        assert encoder.fingerprint == before


class JointEncoderConformance(EncoderConformance):
    """Inherit it and define a fixture `encoder` that returns the joint encoder under test."""

    joint_tolerance = 0.0
    """How far joint vectors may be from those made apart; 0 asks for the same bits."""

    @pytest.fixture
    def encoder(self) -> JointEncoder:
        raise NotImplementedError("supply the encoder under test")

    def test_it_is_known_as_joint(self, encoder: JointEncoder) -> None:
        assert isinstance(encoder, JointEncoder)

    def test_one_pass_gives_what_two_give(self, encoder: JointEncoder) -> None:
        vectors, tokens = encoder.encode_documents_jointly([*TEXTS, ""])
        np.testing.assert_allclose(vectors, encoder.encode_documents([*TEXTS, ""]), rtol=0, atol=self.joint_tolerance)
        for matrix, alone in zip(tokens, encoder.tokens.encode_documents([*TEXTS, ""]), strict=True):
            np.testing.assert_allclose(matrix, alone, rtol=0, atol=self.joint_tolerance)

    def test_no_texts_give_nothing_jointly(self, encoder: JointEncoder) -> None:
        vectors, tokens = encoder.encode_documents_jointly([])
        assert vectors.shape == (0, encoder.dimension)
        assert vectors.dtype == np.float32
        assert tokens == []
