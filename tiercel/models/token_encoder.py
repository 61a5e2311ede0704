"""Texts into one vector per token through an exported model: what late interaction compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.models.description import ModelDescription
from tiercel.models.texts import TOKEN_OUTPUT, LoadedModel
from tiercel.parts import Reading


class LoadedTokenEncoder:
    """An encoder of tokens over a model that is loaded already. Satisfies `tiercel.protocols.TokenEncoder`.

    Markers, lengths, the filler of short queries and the tokens that are skipped are those that the model was trained
    with. On the CPU a text's vectors are the same bits whatever texts are encoded beside it.

    Args:
        model: what it runs.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._held: Mapping[str, NDArray[np.float32]] | None = None

    @property
    def description(self) -> ModelDescription:
        """What the export wrote down about the model."""
        return self._model.description

    @property
    def dimension(self) -> int:
        """Number of columns of every matrix this encoder returns."""
        return self._model.dimensions[TOKEN_OUTPUT]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would: weights, precision, tokenizer, truncation, markers, skipped tokens."""
        return self._model.description.fingerprint

    @property
    def truncated(self) -> int:
        """How many texts, queries and documents, the model has cut since it was loaded."""
        return self._model.truncated

    def encode_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One matrix per text, in input order: shape (tokens, dimension), float32, rows of L2 norm 1.

        Special tokens, markers and what the model fills short queries up with are among them. No texts: no matrices.
        Those that `hold` was given last are not read again.
        """
        held = self._held or {}
        if self._held is None:
            self._held = held
        if texts and all(text in held for text in texts):
            return [held[text] for text in texts]
        return self._encode(texts, query=True)

    @property
    def is_asked(self) -> bool:
        """Whether queries have been encoded, so that more are to be expected."""
        return self._held is not None

    def hold(self, texts: Sequence[str], matrices: Sequence[NDArray[np.float32]]) -> None:
        """Have the matrices of these queries ready for the stage that asks for them next, in place of those before."""
        self._held = dict(zip(texts, matrices, strict=True))

    def encode_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One matrix per text, in input order: shape (tokens, dimension), float32, rows of L2 norm 1.

        Special tokens and markers are among them, tokens that the model skips are not: a text without any that counts
        gives shape (0, dimension). No texts: no matrices.
        """
        return self._encode(texts, query=False)

    def readings(self, texts: Sequence[str], *, query: bool) -> list[Reading]:
        """What is read of each text, in input order: a piece for each of its tokens' vectors, and where it is cut."""
        return self._model.readings(texts, query=query)

    def _encode(self, texts: Sequence[str], *, query: bool) -> list[NDArray[np.float32]]:
        return [matrix for results in self._model.run(texts, [TOKEN_OUTPUT], query=query) for (matrix,) in results]


class OnnxTokenEncoder(LoadedTokenEncoder):
    """A late-interaction model, or the tokens of a bi-encoder, from a folder that `tiercel export` wrote.

    How it runs, what its arguments mean and what it refuses is as for `tiercel.models.encoder.OnnxEncoder`.
    """

    def __init__(
        self, folder: Path, *, provider: str = "cpu", threads: int = 1, batch_tokens: int | None = None
    ) -> None:
        super().__init__(
            LoadedModel(
                folder, family="late-interaction", provider=provider, threads=threads, batch_tokens=batch_tokens
            )
        )
