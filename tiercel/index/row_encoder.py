"""What makes vectors of rows? The encoder of an index and the model of its token vectors, which may be one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError
from tiercel.index.manifest import IndexSettings
from tiercel.protocols import Encoder, JointEncoder, TokenEncoder


class Encoded(NamedTuple):
    """What was made of n rows, rounded as it is stored.

    Attributes:
        vectors: shape (n, dimension), float16; None without an encoder.
        tokens: a matrix of shape (tokens, dimension), float16, of each row; None where no tokens are encoded.
    """

    vectors: NDArray[np.float16] | None
    tokens: list[NDArray[np.float16]] | None


class Truncated(NamedTuple):
    """How many rows were cut to the window of the encoder, and of the model of the token vectors."""

    rows: int = 0
    token_rows: int = 0


class RowEncoder:
    """Encodes rows for all legs that want vectors; of nothing but texts where it is given no encoder.

    Args:
        encoder: makes one vector of each row.
        tokens: makes one of each token; None with `jointly`.
        jointly: the encoder makes both in one pass over each row.
    """

    def __init__(
        self, encoder: Encoder | None = None, tokens: TokenEncoder | None = None, *, jointly: bool = False
    ) -> None:
        self._encoder = encoder
        self._joint = encoder if jointly and isinstance(encoder, JointEncoder) else None
        self._tokens = self._joint.tokens if self._joint else tokens

    def __bool__(self) -> bool:
        """Whether there is anything to encode."""
        return self._encoder is not None or self._tokens is not None

    @property
    def tokens(self) -> TokenEncoder | None:
        """What makes one vector of each token."""
        return self._tokens

    @property
    def dimensions(self) -> tuple[int | None, int | None]:
        """Of a row's vector and of a token's; None for what is not made."""
        return (
            None if self._encoder is None else self._encoder.dimension,
            None if self._tokens is None else self._tokens.dimension,
        )

    @property
    def fingerprint(self) -> str:
        """Changes whenever what is made of a row would: 32 digits, hex."""
        models = [None if model is None else model.fingerprint for model in (self._encoder, self._tokens)]
        return hashlib.blake2b(repr(models).encode(), digest_size=16).hexdigest()

    @property
    def truncated(self) -> Truncated:
        """How many rows were cut since the models were made."""
        rows = 0 if self._encoder is None else self._encoder.truncated
        if self._joint is not None:
            return Truncated(rows, rows)
        return Truncated(rows, 0 if self._tokens is None else self._tokens.truncated)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """What is stored of these rows, in input order."""
        if self._joint is not None:
            vectors, tokens = self._joint.encode_documents_jointly(texts)
            return Encoded(_halves(vectors), [_halves(matrix) for matrix in tokens])
        return Encoded(
            None if self._encoder is None else _halves(self._encoder.encode_documents(texts)),
            None if self._tokens is None else [_halves(matrix) for matrix in self._tokens.encode_documents(texts)],
        )

    def check(self, path: Path, settings: IndexSettings) -> None:
        """Raise IndexStoreError unless these are the models of the index at this path."""
        _check(
            path,
            found=self._encoder,
            expected=settings.encoder.fingerprint if settings.encoder else None,
            kind="encoder",
            otherwise="none: BM25 only" if settings.tokens is None else "none",
        )
        _check(
            path,
            found=self._tokens,
            expected=settings.tokens.fingerprint if settings.tokens else None,
            kind="model of token vectors",
            otherwise="none: the index keeps no token vectors",
        )


BM25_ONLY = RowEncoder()
"""Encodes nothing."""


def _check(
    path: Path, *, found: Encoder | TokenEncoder | None, expected: str | None, kind: str, otherwise: str
) -> None:
    fingerprint = None if found is None else found.fingerprint
    if fingerprint != expected:
        raise IndexStoreError(
            f"the {kind} of fingerprint {fingerprint}" if fingerprint else f"no {kind}",
            where=str(path),
            expected=f"the one that made its vectors, of fingerprint {expected}" if expected else otherwise,
            next_step="Vectors of two models cannot be compared: name the first one, or build the index anew.",
        )


def _halves(rows: NDArray[np.float32]) -> NDArray[np.float16]:
    return rows.astype("<f2")
