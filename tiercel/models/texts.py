"""Texts through the graph of an exported model: cut into tokens, texts of one length or padded ones in a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models.batching import batch_budget, pad_batch, plan_batches, plan_runs
from tiercel.models.description import TOKENIZER_FILE, ModelFamily, read_intact
from tiercel.models.forms import MASKED
from tiercel.models.local_attention import Chunk, Geometry
from tiercel.models.tokenize import TokenBatch, Tokenizer
from tiercel.parts import Piece, Reading
from tiercel.workers import map_in_order

if TYPE_CHECKING:
    from tiercel.models.quantize import Feeds
    from tiercel.models.sessions import LoadedGraph

IDS_INPUT = "input_ids"
MASK_INPUT = "attention_mask"
SENTENCE_OUTPUT = "sentence_embedding"
TOKEN_OUTPUT = "token_embeddings"

# Token ids of this many texts are held at once: about 4 MB at 256 tokens, and long enough to keep workers busy.
_SLAB_TEXTS = 2048

# Small enough that every worker tokenises its share of a slab, large enough that a call is worth its overhead.
_TOKENIZE_TEXTS = 64

# Of texts of one length on a CPU: what a run costs whatever its size is shared then, and more takes memory for nothing.
_RUN_TOKENS = 128

# Another processor may round int8 products otherwise, by thousandths; kernels that overflow are off by much more.
_PROBE_COSINE = 0.98

_SMALLEST_NORM = 1e-12  # as torch's normalize has it: a row of zeros stays one


@dataclass(frozen=True, slots=True)
class Filler:
    """What a short query is filled up with: ColBERT's augmentation (Khattab & Zaharia, SIGIR 2020, section 3.2).

    Attributes:
        token: its id. Each one has a vector, which counts like any other.
        length: how many tokens a query then has, at least.
        attended: whether the tokens of the query attend to it; if not, only the filler attends to them.
    """

    token: int
    length: int
    attended: bool


@dataclass(frozen=True, slots=True)
class Side:
    """How texts of one side, queries or documents, are read.

    Attributes:
        max_tokens: most tokens of a text, special tokens and prompt included.
        filler: what short texts are filled up with.
        skipped: ids of tokens that are read but whose own vectors are left out.
        frame: how many special tokens stand before and behind a text, where their vectors are left out; None: they are
            given.
        chunks: how a text is divided into runs, each between the special tokens of the frame; None: it is one.
    """

    max_tokens: int
    filler: Filler | None = None
    skipped: tuple[int, ...] = ()
    frame: tuple[int, int] | None = None
    chunks: Geometry | None = None


class Sides(NamedTuple):
    """How a model reads queries, and how documents."""

    query: Side
    document: Side


def read_sides(max_tokens: int, extra: Mapping[str, Any]) -> Sides:
    """The sides of a model: `max_tokens` of its description, and what `extra` says where the two are read apart."""
    query, document = extra.get("query", {}), extra.get("document", {})
    filler = Filler(**query["filler"]) if query.get("filler") else None
    frame = (extra["frame"][0], extra["frame"][1]) if "frame" in extra else None
    chunks = Geometry(**extra["geometry"]) if "geometry" in extra else None
    return Sides(
        Side(query.get("max_tokens", max_tokens), filler, tuple(query.get("skipped", ())), frame),
        Side(max_tokens, None, tuple(document.get("skipped", ())), frame, chunks),
    )


class TextNetwork:
    """A loaded graph with its tokenizer. `run` may be called from several threads at once.

    Args:
        folder: holds tokenizer.json.
        sides: how queries and documents are read.
        graph: what is run.
        workers: how many texts are cut into tokens, and runs without padding go on, at a time.
        batch_tokens: most padded tokens of one run, for a graph with a mask; None: no padding, and one text per run
            until `share_runs` is called.

    Raises:
        ModelError: tokenizer.json is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        sides: Sides,
        graph: LoadedGraph,
        *,
        workers: int = 1,
        batch_tokens: int | None = None,
    ) -> None:
        readers = {side: _Reader(folder / TOKENIZER_FILE, side) for side in dict.fromkeys(sides)}
        self._query_reader, self._document_reader = (readers[side] for side in sides)
        self._graph = graph
        self._is_masked = MASK_INPUT in graph.inputs
        self._folder = folder
        self._workers = workers
        self._batch_tokens = batch_tokens
        self._run_tokens = 1
        self._truncated = 0
        self._lock = threading.Lock()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the graph gives."""
        return self._graph.outputs

    @property
    def truncated(self) -> int:
        """How many texts of either side have been cut so far."""
        return self._truncated

    def run(
        self, texts: Sequence[str], outputs: Sequence[str], *, query: bool
    ) -> Iterator[list[list[NDArray[np.float32]]]]:
        """What the graph gives for each text, in input order, some texts at a time.

        Of each text one float32 array per output: of `SENTENCE_OUTPUT` shape (dimension,); of `TOKEN_OUTPUT` shape
        (tokens, dimension), rows of L2 norm 1, without the tokens that its side skips. The texts hold their prompts.
        Raises ModelError for a vector that is not finite.
        """
        reader = self._query_reader if query else self._document_reader
        for start in range(0, len(texts), _SLAB_TEXTS):
            tokens = self._tokenize(reader, texts[start : start + _SLAB_TEXTS])
            results = self._embed(reader, tokens.ids, outputs)
            with self._lock:
                self._truncated += tokens.truncated
            yield results

    def share_runs(self, text: str) -> bool:
        """Let texts of one length share runs, if the graph gives each of them the bits that it gives it alone.

        Found out with the text and another of the same tokens, in runs of two and of three. Returns whether they do.
        """
        reader = self._document_reader
        row = reader.divide(reader.tokenizer.encode([text]).ids[0])[0].ids
        rows = [row, np.concatenate([row[:1], row[-2:0:-1], row[-1:]]), row]
        alone = [self._run(reader, self.outputs, [row])[0] for row in rows]
        together = [self._run(reader, self.outputs, rows[:count]) for count in (2, 3)]
        if is_alike := all(
            np.array_equal(one, other)
            for found in together
            for ones, others in zip(found, alone, strict=False)
            for one, other in zip(ones, others, strict=True)
        ):
            self._run_tokens = _RUN_TOKENS
        return is_alike

    def readings(self, texts: Sequence[str], *, query: bool) -> list[Reading]:
        """What is read of each text, a piece for each vector of a token. The texts hold their prompts."""
        reader = self._query_reader if query else self._document_reader
        return [reader.read(text) for text in texts]

    def feeds(self, texts: Sequence[str], *, query: bool) -> list[Feeds]:
        """What the graph is fed for each text in a run of its own: arrays of shape (1, tokens)."""
        reader = self._query_reader if query else self._document_reader
        rows = [run.ids for row in reader.tokenizer.encode(texts).ids for run in reader.divide(row)]
        return [self._feeds(reader, [row], [reader.fill(row)]) for row in rows]

    def _tokenize(self, reader: _Reader, texts: Sequence[str]) -> TokenBatch:
        shares = [texts[start : start + _TOKENIZE_TEXTS] for start in range(0, len(texts), _TOKENIZE_TEXTS)]
        batches = map_in_order(reader.tokenizer.encode, shares, workers=self._workers)
        ids = [row for batch in batches for row in batch.ids]
        return TokenBatch(ids=ids, truncated=sum(batch.truncated for batch in batches))

    def _embed(
        self, reader: _Reader, ids: Sequence[NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[list[NDArray[np.float32]]]:
        divided = [reader.divide(row) for row in ids]
        runs = [run.ids for row in divided for run in row]
        found = iter(self._embed_runs(reader, runs, outputs))
        return [_joined([(run, next(found)) for run in row], outputs) for row in divided]

    def _embed_runs(
        self, reader: _Reader, ids: Sequence[NDArray[np.int64]], outputs: Sequence[str]
    ) -> list[list[NDArray[np.float32]]]:
        lengths = [reader.length(row) for row in ids]
        if self._batch_tokens is None:
            share = -(-sum(lengths) // self._workers)  # every worker has something to do
            batches = plan_runs(lengths, max_run_tokens=min(self._run_tokens, share))
        else:
            batches = plan_batches(lengths, max_batch_tokens=self._batch_tokens)
        rows = [[ids[position] for position in positions] for positions in batches]
        # Padded runs use all that the device has; only runs without padding are spread over workers.
        workers = self._workers if self._batch_tokens is None else 1
        results = map_in_order(partial(self._run, reader, outputs), rows, workers=workers)
        found = dict(
            zip((p for batch in batches for p in batch), (r for result in results for r in result), strict=True)
        )
        return [found[position] for position in range(len(ids))]

    def _run(
        self, reader: _Reader, outputs: Sequence[str], rows: Sequence[NDArray[np.int64]]
    ) -> list[list[NDArray[np.float32]]]:
        """One run of at least one text, each given by its token ids before it is filled up."""
        filled = [reader.fill(row) for row in rows]
        arrays = dict(zip(outputs, self._graph.run(self._feeds(reader, rows, filled), outputs), strict=True))
        results = []
        for position, full in enumerate(filled):
            given = [
                unit_rows(array[position, : full.size][reader.counted(full)])
                if name == TOKEN_OUTPUT
                else array[position]
                for name, array in arrays.items()
            ]
            self._check_finite(given)
            results.append(given)
        return results

    def _feeds(self, reader: _Reader, rows: Sequence[NDArray[np.int64]], filled: Sequence[NDArray[np.int64]]) -> Feeds:
        feeds = {IDS_INPUT: pad_batch(filled).input_ids}
        if self._is_masked:
            attended = [reader.attended(row, full) for row, full in zip(rows, filled, strict=True)]
            feeds[MASK_INPUT] = pad_batch(attended).input_ids
        return feeds

    def _check_finite(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(
                "the model gave a vector that is not finite",
                next_step="Export the model again, or use precision fp32",
                where=str(self._folder),
            )


class LoadedModel:
    """An exported model that makes vectors of texts, tested with its own probe and ready to run.

    Args:
        folder: what `tiercel export` wrote.
        family: what it is to serve as.
        provider: "cpu", "cuda", "tensorrt" or "auto"; refused when it does not run.
        threads: workers on the CPU.
        batch_tokens: most padded tokens of one run; None: no padding on the CPU, 32,768 on a GPU.

    Raises:
        ModelError: the folder is incomplete, changed since export or cannot serve as `family`, the provider is not
            there, int8 is asked of a GPU or of padded batches, or this machine computes other vectors than the export
            did.
    """

    def __init__(
        self, folder: Path, *, family: ModelFamily, provider: str, threads: int, batch_tokens: int | None
    ) -> None:
        from tiercel.models.sessions import open_exported, resolved_provider

        provider = resolved_provider(provider)
        self.description = read_intact(folder, family=family)
        graph = open_exported(folder, self.description, provider=provider, workers=threads)
        budget = batch_budget(
            batch_tokens,
            provider=provider,
            is_masked=self.description.precision in MASKED,
            takes=f"{self.description.precision} model takes one text",
            where=str(folder),
        )
        sides = read_sides(self.description.max_tokens, self.description.extra)
        self._network = TextNetwork(folder, sides, graph, workers=threads, batch_tokens=budget)
        self.dimensions = self._check_probe(folder)
        if budget is None:
            self._network.share_runs(self.description.probe.texts[-1])
        self._cut_before = self._network.truncated

    @property
    def truncated(self) -> int:
        """How many texts of either side have been cut since the model was loaded."""
        return self._network.truncated - self._cut_before

    def run(
        self, texts: Sequence[str], outputs: Sequence[str], *, query: bool
    ) -> Iterator[list[list[NDArray[np.float32]]]]:
        """What the graph gives for each text once its prompt is before it; see `TextNetwork.run`."""
        prompt = self._prompt(query)
        return self._network.run([prompt + text for text in texts], outputs, query=query)

    def readings(self, texts: Sequence[str], *, query: bool) -> list[Reading]:
        """What is read of each text, a piece for each vector of a token; places are those in the text itself."""
        prompt = self._prompt(query)
        read = self._network.readings([prompt + text for text in texts], query=query)
        return [_behind(len(prompt), reading) for reading in read]

    def _prompt(self, query: bool) -> str:
        prompts = self.description.prompts
        return prompts.query if query else prompts.document

    def _check_probe(self, folder: Path) -> dict[str, int]:
        """Length of the vectors of each of the graph's outputs, by name."""
        probe = self.description.probe
        values = probe_vectors(self._network, probe.texts)
        expected = np.array(probe.values, dtype=np.float32).reshape(len(values), -1)
        cosine = float(np.sum(values * expected, axis=1).min())
        if not cosine >= _PROBE_COSINE:  # also when it is not a number
            raise ModelError(
                f"on this machine the model gives another vector than where it was exported (cosine {cosine:.3f})",
                expected=f"a cosine of at least {_PROBE_COSINE}",
                next_step="Export the model again on this machine, or use precision fp32",
                where=str(folder),
            )
        outputs = self._network.outputs
        [[arrays]] = self._network.run(probe.texts[:1], outputs, query=True)
        return {name: array.shape[-1] for name, array in zip(outputs, arrays, strict=True)}


def probe_vectors(network: TextNetwork, texts: Sequence[str]) -> NDArray[np.float32]:
    """What a probe compares: shape (texts, dimension), float32, rows of L2 norm 1; prompts are in the texts.

    Of one text its own vector; of two, a query and a document, the direction of the mean of their tokens' vectors.
    """
    if len(texts) == 1:
        [[[vector]]] = network.run(texts, [SENTENCE_OUTPUT], query=False)
        return vector[np.newaxis]
    query, document = texts
    [[[query_tokens]]] = network.run([query], [TOKEN_OUTPUT], query=True)
    [[[document_tokens]]] = network.run([document], [TOKEN_OUTPUT], query=False)
    return unit_rows(np.stack([query_tokens.mean(axis=0), document_tokens.mean(axis=0)]))


class _Run(NamedTuple):
    """Tokens that the graph reads together, and which of their vectors are given."""

    ids: NDArray[np.int64]
    given: slice


def _joined(
    runs: Sequence[tuple[_Run, list[NDArray[np.float32]]]], outputs: Sequence[str]
) -> list[NDArray[np.float32]]:
    """What the runs of a text give, as one array per output; a text has one vector of its own, that of its last run."""
    (first, arrays), *others = runs
    if not others and first.given == slice(None):
        return arrays
    return [
        np.concatenate([arrays[number][run.given] for run, arrays in runs])
        if name == TOKEN_OUTPUT
        else runs[-1][1][number]
        for number, name in enumerate(outputs)
    ]


class _Reader:
    """Texts of one side into what the graph is fed."""

    def __init__(self, tokenizer_file: Path, side: Side) -> None:
        self.tokenizer = Tokenizer(tokenizer_file, max_tokens=side.max_tokens)
        self._side = side
        self._filler = side.filler
        self._skipped = np.array(side.skipped, dtype=np.int64)

    def length(self, ids: NDArray[np.int64]) -> int:
        """How many tokens a text has once it is filled up."""
        return ids.size if self._filler is None else max(ids.size, self._filler.length)

    def divide(self, ids: NDArray[np.int64]) -> list[_Run]:
        """The runs of a text of these ids, special tokens included, in order; at least one."""
        if self._side.frame is None:
            return [_Run(ids, slice(None))]
        before, after = self._side.frame
        first, last = ids[:before], ids[ids.size - after :]
        text = ids[before : ids.size - after]
        chunks = [] if self._side.chunks is None else self._side.chunks.chunks(text.size)
        return [
            _Run(
                np.concatenate([first, text[chunk.first : chunk.last], last]),
                slice(before + chunk.start - chunk.first, before + chunk.end - chunk.first),
            )
            for chunk in chunks or [Chunk(0, text.size, 0, text.size)]
        ]

    def read(self, text: str) -> Reading:
        """A piece for each vector that is given of the text."""
        ids, reading = self.tokenizer.read(text)
        if self._side.frame is not None:
            before, after = self._side.frame
            return Reading(reading.pieces[before : len(reading.pieces) - after], reading.end)
        filled = self.fill(ids)
        pieces = [*reading.pieces, *(Piece(self.tokenizer.name(token), 0, 0) for token in filled[ids.size :].tolist())]
        counted = zip(pieces, self.counted(filled).tolist(), strict=True)
        return Reading([piece for piece, counts in counted if counts], reading.end)

    def fill(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of shape (tokens,) with the filler behind them, where the text is short."""
        if self._filler is None or ids.size >= self._filler.length:
            return ids
        filled = np.full(self._filler.length, self._filler.token, dtype=np.int64)
        filled[: ids.size] = ids
        return filled

    def attended(self, ids: NDArray[np.int64], filled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shape of `filled`: 1 where other tokens attend to this one."""
        mask = np.ones_like(filled)
        if self._filler is not None and not self._filler.attended:
            mask[ids.size :] = 0
        return mask

    def counted(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Shape of `ids`: which tokens' vectors are given."""
        return ~np.isin(ids, self._skipped)


def _behind(length: int, reading: Reading) -> Reading:
    """The reading of what stands behind a prompt of this length."""
    pieces = [
        Piece(piece.text, piece.start - length, piece.end - length)
        if piece.start >= length and piece.end > piece.start
        else Piece(piece.text, 0, 0)
        for piece in reading.pieces
    ]
    return Reading(pieces, max(0, reading.end - length))


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of shape (rows, dimension), each brought to L2 norm 1."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, _SMALLEST_NORM)
    return unit
