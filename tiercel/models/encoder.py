"""Texts into vectors through an exported bi-encoder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models.batching import batch_budget, pad_batch, plan_batches
from tiercel.models.description import TOKENIZER_FILE, ModelDescription, read_intact
from tiercel.models.tokenize import TokenBatch, Tokenizer
from tiercel.models.workers import map_in_order

if TYPE_CHECKING:
    from tiercel.models.sessions import LoadedGraph

SENTENCE_OUTPUT = "sentence_embedding"
MASK_INPUT = "attention_mask"

# Token ids of this many texts are held at once: about 4 MB at 256 tokens, and long enough to keep workers busy.
_SLAB_TEXTS = 2048

# Small enough that every worker tokenises its share of a slab, large enough that a call is worth its overhead.
_TOKENIZE_TEXTS = 64

# Another processor may round int8 products otherwise, by thousandths; kernels that overflow are off by much more.
_PROBE_COSINE = 0.98


class OnnxEncoder:
    """A bi-encoder from a folder that `tiercel export` wrote. Satisfies `tiercel.protocols.Encoder`.

    On the CPU every text is a run of its own, in `threads` workers of one thread each: nothing is padded, the
    caches hold a whole text, and a text's vector is the same bits whatever texts are encoded beside it. On a GPU texts
    of like length are padded into batches of at most `batch_tokens`.

    Args:
        folder: holds tiercel.json, model.onnx and tokenizer.json.
        provider: "cpu", "cuda", "tensorrt" or "auto"; refused when it does not run.
        threads: workers on the CPU.
        batch_tokens: most padded tokens of one run; None: one text per run on the CPU, 32,768 on a GPU.

    Raises:
        ModelError: the folder is incomplete, changed since export or of another family, the provider is not there,
            int8 is asked of a GPU or of padded batches, or this machine computes other vectors than the export did.
    """

    def __init__(
        self, folder: Path, *, provider: str = "cpu", threads: int = 1, batch_tokens: int | None = None
    ) -> None:
        from tiercel.models.sessions import open_exported, resolved_provider

        provider = resolved_provider(provider)
        self._description = read_intact(folder, family="encoder")
        self._tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=self.max_tokens)
        self._session = open_exported(folder, self._description, provider=provider, workers=threads)
        self._batch_tokens = batch_budget(
            batch_tokens,
            provider=provider,
            is_masked=MASK_INPUT in self._session.inputs,
            takes=f"{self._description.precision} model takes one text",
            where=str(folder),
        )
        self._threads = threads
        self._truncated = 0
        self._lock = threading.Lock()
        self._check_probe(folder)

    @property
    def description(self) -> ModelDescription:
        """What the export wrote down about the model."""
        return self._description

    @property
    def dimension(self) -> int:
        """Number of columns of every matrix this encoder returns."""
        return self._description.dimension

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would: weights, precision, tokenizer, truncation, prompts."""
        return self._description.fingerprint

    @property
    def max_tokens(self) -> int:
        """Most tokens of one text, special tokens and prompt included; the rest of it is cut."""
        return self._description.max_tokens

    @property
    def truncated(self) -> int:
        """How many texts, queries and documents, this encoder has cut to `max_tokens` so far."""
        return self._truncated

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), float32, rows of L2 norm 1, in input order; no texts: zero rows."""
        return self._encode([self._description.prompts.query + text for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), dimension), float32, rows of L2 norm 1, in input order; no texts: zero rows."""
        return self._encode([self._description.prompts.document + text for text in texts])

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _SLAB_TEXTS):
            slab = slice(start, start + _SLAB_TEXTS)
            tokens = self._tokenize(texts[slab])
            vectors[slab] = self._embed(tokens.ids)
            with self._lock:
                self._truncated += tokens.truncated
        if not np.isfinite(vectors).all():
            raise ModelError(
                "the model gave a vector that is not finite",
                next_step="Export the model again, or use precision fp32",
                where=self._description.name,
            )
        return vectors

    def _tokenize(self, texts: Sequence[str]) -> TokenBatch:
        shares = [texts[start : start + _TOKENIZE_TEXTS] for start in range(0, len(texts), _TOKENIZE_TEXTS)]
        batches = map_in_order(self._tokenizer.encode, shares, workers=self._threads)
        ids = [row for batch in batches for row in batch.ids]
        return TokenBatch(ids=ids, truncated=sum(batch.truncated for batch in batches))

    def _embed(self, ids: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        return embed_texts(self._session, ids, batch_tokens=self._batch_tokens, workers=self._threads)

    def _check_probe(self, folder: Path) -> None:
        probe = self._description.probe
        ids = self._tokenizer.encode(probe.texts).ids
        cosine = float(self._embed(ids)[0] @ np.array(probe.values, dtype=np.float32))
        if not cosine >= _PROBE_COSINE:  # also when it is not a number
            raise ModelError(
                f"on this machine the model gives another vector than where it was exported (cosine {cosine:.3f})",
                expected=f"a cosine of at least {_PROBE_COSINE}",
                next_step="Export the model again on this machine, or use precision fp32",
                where=str(folder),
            )


def text_feeds(session: LoadedGraph, ids: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """What a run of one text is fed: arrays of shape (1, tokens)."""
    feeds = {"input_ids": ids[np.newaxis, :]}
    if MASK_INPUT in session.inputs:
        feeds[MASK_INPUT] = np.ones_like(feeds["input_ids"])
    return feeds


def embed_one(session: LoadedGraph, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Vector of one text from its token ids of shape (tokens,): shape (dimension,), float32, L2 norm 1."""
    vector: NDArray[np.float32] = session.run(text_feeds(session, ids), [SENTENCE_OUTPUT])[0][0]
    return vector


def embed_texts(
    session: LoadedGraph, ids: Sequence[NDArray[np.int64]], *, batch_tokens: int | None, workers: int
) -> NDArray[np.float32]:
    """Vectors of at least one text: shape (texts, dimension), float32, rows of L2 norm 1, in input order.

    `batch_tokens` None: each text a run of its own, `workers` at a time; else padded batches.
    """
    if batch_tokens is None:
        return np.stack(map_in_order(partial(embed_one, session), ids, workers=workers))
    found: dict[int, NDArray[np.float32]] = {}
    for positions in plan_batches([row.size for row in ids], max_batch_tokens=batch_tokens):
        batch = pad_batch([ids[position] for position in positions])
        feeds = {"input_ids": batch.input_ids, MASK_INPUT: batch.attention_mask}
        found |= zip(positions, session.run(feeds, [SENTENCE_OUTPUT])[0], strict=True)
    return np.stack([found[position] for position in range(len(ids))])
