"""Texts into vectors through an exported bi-encoder, and into those of their tokens in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.models.description import ModelDescription
from tiercel.models.texts import SENTENCE_OUTPUT, TOKEN_OUTPUT, LoadedModel
from tiercel.models.token_encoder import LoadedTokenEncoder
from tiercel.parts import Reading

# Token vectors of so many queries are held for the stage after: 130 KB each at most, of 256 tokens of 128 dimensions.
_HELD_QUERIES = 256


class OnnxEncoder:
    """A bi-encoder from a folder that `tiercel export` wrote. Satisfies `tiercel.protocols.JointEncoder`.

    On the CPU a run is one text or several of one and the same length, in `threads` workers of one thread each: nothing
    is padded, the caches hold a whole run, and a text's vector is the same bits whatever texts are encoded beside it.
    On a GPU texts of like length are padded into batches of at most `batch_tokens`.

    Attributes:
        folder: which it is made from.

    Args:
        folder: holds tiercel.json, model.onnx and tokenizer.json; a late-interaction model that also gives a vector of
            the whole text will do.
        provider: "cpu", "cuda", "tensorrt" or "auto"; refused when it does not run.
        threads: workers on the CPU.
        batch_tokens: most padded tokens of one run; None: no padding on the CPU, 32,768 on a GPU.

    Raises:
        ModelError: the folder is incomplete, changed since export or of another family, the provider is not there,
            int8 is asked of a GPU or of padded batches, or this machine computes other vectors than the export did.
    """

    def __init__(
        self, folder: Path, *, provider: str = "cpu", threads: int = 1, batch_tokens: int | None = None
    ) -> None:
        self.folder = folder
        self._model = LoadedModel(
            folder, family="encoder", provider=provider, threads=threads, batch_tokens=batch_tokens
        )
        self._tokens = LoadedTokenEncoder(self._model)

    @property
    def description(self) -> ModelDescription:
        """What the export wrote down about the model."""
        return self._model.description

    @property
    def dimension(self) -> int:
        """Number of columns of every matrix this encoder returns."""
        return self._model.dimensions[SENTENCE_OUTPUT]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would: weights, precision, tokenizer, truncation, prompts."""
        return self._model.description.fingerprint

    @property
    def max_tokens(self) -> int:
        """Most tokens of one document, special tokens and prompt included; the rest of it is cut."""
        return self._model.description.max_tokens

    @property
    def truncated(self) -> int:
        """How many texts, queries and documents, this encoder and its `tokens` have cut to `max_tokens` so far."""
        return self._model.truncated

    @property
    def tokens(self) -> LoadedTokenEncoder:
        """The same loaded model as an encoder of tokens: of a bi-encoder its last hidden states, special tokens too."""
        return self._tokens

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), float32, rows of L2 norm 1, in input order; no texts: zero rows.

        Once `tokens` has been asked for queries it is given theirs, out of the same pass, as a later stage wants them.
        """
        if not self._tokens.is_asked or len(texts) > _HELD_QUERIES:
            return self._encode(texts, query=True)
        vectors, tokens = self._encode_jointly(texts, query=True)
        self._tokens.hold(texts, tokens)
        return vectors

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), float32, rows of L2 norm 1, in input order; no texts: zero rows."""
        return self._encode(texts, query=False)

    def encode_documents_jointly(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """What `encode_documents` and `tokens.encode_documents` give for the texts, in one pass over each.

        On the CPU to the last bit. A text that is cut counts once.
        """
        return self._encode_jointly(texts, query=False)

    def readings(self, texts: Sequence[str], *, query: bool) -> list[Reading]:
        """What is read of each text, in input order: a piece for each of its tokens' vectors, and where it is cut."""
        return self._model.readings(texts, query=query)

    def _encode(self, texts: Sequence[str], *, query: bool) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        done = 0
        for results in self._model.run(texts, [SENTENCE_OUTPUT], query=query):
            vectors[done : done + len(results)] = [vector for (vector,) in results]
            done += len(results)
        return vectors

    def _encode_jointly(
        self, texts: Sequence[str], *, query: bool
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        tokens: list[NDArray[np.float32]] = []
        for results in self._model.run(texts, [SENTENCE_OUTPUT, TOKEN_OUTPUT], query=query):
            vectors[len(tokens) : len(tokens) + len(results)] = [vector for vector, _ in results]
            tokens += [matrix for _, matrix in results]
        return vectors, tokens
