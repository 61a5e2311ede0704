"""The reranker that reads long documents whole and scores their best regions: TKL's local attention.

A document's vectors do not depend on the query, so they can come from a store; only queries are encoded then, and the
rest is `regions.py`. Hofstätter et al., Local Self-Attention over Long Text for Efficient Document Retrieval, SIGIR
2020.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.models.local_attention import Geometry, Head
from tiercel.parts import Read, Window, WindowParts
from tiercel.protocols import CandidateGroup, Located, ReadsTexts, TokenEncoder
from tiercel.rerankers.regions import RegionScorer
from tiercel.types import Document, Query, Span
from tiercel.workers import map_in_order

if TYPE_CHECKING:
    from tiercel.protocols import FloatMatrix, FloatVector
    from tiercel.rerankers.late_interaction import TokenSource

_SLAB_CHARACTERS = 400_000
"""Texts whose vectors are in memory at a time where nothing is stored: some 50 MB, for 128 dimensions."""

_SLAB_TOKENS = 100_000
"""The same for what is stored. A document that has more is in memory whole."""

_PLACED_TEXTS = 512
"""Texts of which it is kept where their tokens are: 8 bytes a token, beside the text."""

_SHORT = 256
"""Tokens of a text that most encoders read whole."""


class LocalAttention:
    """The best regions of each candidate. Satisfies `tiercel.protocols.Reranker` and `Locates`.

    Documents are read to the model's `max_tokens`, by default 100,000. A candidate that is stored in several pieces, as
    a document in its passages, has the score of its best one.

    Args:
        encoder: what encodes queries, and documents where nothing is stored.
        geometry: how documents are divided.
        head: the learnt numbers.
        stored: where the candidates' vectors are; None to encode title and text of each candidate when it is scored:
            each distinct text of a call once, and 400,000 characters of them in memory at a time.
        threads: among which the candidates are divided.
    """

    reads = True
    """Whether it reads the candidates' texts: always, to say where a region is."""

    def __init__(
        self,
        encoder: TokenEncoder,
        geometry: Geometry,
        head: Head,
        *,
        stored: TokenSource | None = None,
        threads: int = 1,
    ) -> None:
        self._encoder = encoder
        self._geometry = geometry
        self._head = head
        self._stored = stored
        self._threads = threads
        self._truncated = 0
        self._documents = self._tokens = 0
        # Cutting a document into tokens again, to say where its region is, takes longer than to score it.
        self._places = lru_cache(maxsize=_PLACED_TEXTS)(_read_places)

    @property
    def fingerprint(self) -> str:
        """Changes whenever the scores of vectors made anew would."""
        return self._encoder.fingerprint

    @property
    def is_stored(self) -> bool:
        """Whether the candidates' vectors come from a store."""
        return self._stored is not None

    @property
    def truncated(self) -> int:
        """How many texts of candidates it has cut to what the model reads."""
        return self._truncated

    @property
    def advice(self) -> str:
        """In words, whether another reranker would do better at these lengths; "" where it would not."""
        mean = self._tokens / self._documents if self._documents else _SHORT
        if mean >= _SHORT:
            return ""
        return f"{mean:.0f} tokens a document: late and cross read such as a whole, local attention is for long ones"

    def score(self, groups: Sequence[CandidateGroup]) -> list[FloatVector]:
        """One float32 array per group. All queries are encoded in one call; one without tokens gives 0 to all."""
        return [located.scores for located in self.locate(groups)]

    def locate(self, groups: Sequence[CandidateGroup]) -> list[Located]:
        """The same, with the best region of each candidate; None where that is in its title, or it has no tokens."""
        scorers = self._scorers(groups)
        scores = [np.full(len(group.documents), -np.inf, dtype=np.float32) for group in groups]
        spans: list[list[Span | None]] = [[None] * len(group.documents) for group in groups]
        for pieces in self._pieces(groups):
            self._documents += len(pieces)
            self._tokens += sum(len(piece.vectors) for piece in pieces)
            found = map_in_order(partial(self._found, scorers), pieces, workers=self._threads)
            for piece, (score, span) in zip(pieces, found, strict=True):
                if score > scores[piece.group][piece.candidate]:
                    scores[piece.group][piece.candidate] = score
                    spans[piece.group][piece.candidate] = span
        return [Located(array, found) for array, found in zip(scores, spans, strict=True)]

    def explain(self, query: Query, document: Document) -> WindowParts:
        """Every region with what it adds to the score, the best one first; one that is not there adds too."""
        group = CandidateGroup(query, [document])
        scorer = self._scorers([group])[0]
        pieces = [piece for some in self._pieces([group]) for piece in some]
        scored = [scorer.score(piece.vectors) for piece in pieces]
        best = max(range(len(pieces)), key=lambda place: scored[place].score)
        windows = tuple(
            self._window(pieces[best], place, part)
            for place, part in zip(scored[best].best, scored[best].parts, strict=True)
        )
        return WindowParts(windows, "regions", scored[best].score)

    def _found(self, scorers: Mapping[int, RegionScorer], piece: _Piece) -> tuple[float, Span | None]:
        regions = scorers[piece.group].score(piece.vectors)
        return regions.score, self._span(piece, regions.best[0])

    def _scorers(self, groups: Sequence[CandidateGroup]) -> dict[int, RegionScorer]:
        asked = [number for number, group in enumerate(groups) if group.documents]
        texts = [groups[number].query.text for number in asked]
        queries = self._encoder.encode_queries(texts) if asked else []
        return {
            number: RegionScorer(query, self._geometry, self._head)
            for number, query in zip(asked, queries, strict=True)
        }

    def _pieces(self, groups: Sequence[CandidateGroup]) -> Iterator[list[_Piece]]:
        """Every candidate of every group in one piece or more, some at a time."""
        if self._stored is not None:
            yield from _stored_pieces(self._stored, groups)
            return
        uses: dict[str, list[tuple[int, int]]] = {}
        for number, group in enumerate(groups):
            for position, document in enumerate(group.documents):
                uses.setdefault(document.full_text, []).append((number, position))
        for texts in _slabs(uses):
            before = self._encoder.truncated
            made = self._encoder.encode_documents(texts)
            self._truncated += self._encoder.truncated - before
            yield [
                _Piece(number, position, vectors, Read(text, len(text)), groups[number].documents[position])
                for text, vectors in zip(texts, made, strict=True)
                for number, position in uses[text]
            ]

    def _span(self, piece: _Piece, window: int) -> Span | None:
        """Where a region is, in characters of the document's text."""
        if piece.read.span is not None:
            return piece.read.span
        start, end = self._characters(piece, window)
        before = len(piece.document.full_text) - len(piece.document.text)
        return (max(0, start - before), end - before) if end > max(start, before) else None

    def _characters(self, piece: _Piece, window: int) -> Span:
        """Where a region is, in characters of what the piece was made of."""
        if not isinstance(self._encoder, ReadsTexts) or not len(piece.vectors):
            return 0, len(piece.read.text)
        first, last = self._geometry.region(window, len(piece.vectors))
        found = self._places(self._encoder, piece.read.text)[first:last]
        return int(found[0, 0]), int(found[-1, 1])

    def _window(self, piece: _Piece, place: int, part: float) -> Window:
        if place < 0:
            return Window(Read("", 0), part, 0, 0)
        start, end = self._characters(piece, place)
        first, last = self._geometry.region(place, len(piece.vectors))
        text = piece.read.text[start:end]
        return Window(Read(text, len(text), self._span(piece, place)), part, last - first, 0)


class _Piece(NamedTuple):
    """What of a candidate is scored by itself: its vectors, and what they were made of."""

    group: int
    candidate: int
    vectors: FloatMatrix
    read: Read
    document: Document


def _stored_pieces(source: TokenSource, groups: Sequence[CandidateGroup]) -> Iterator[list[_Piece]]:
    for parts in source.parts(groups):
        found: list[_Piece] = []
        seen: Counter[tuple[int, int]] = Counter()
        for part in parts:
            for number, candidate in enumerate(part.candidates.tolist()):
                group, which = groups[part.group], seen[part.group, candidate]
                seen[part.group, candidate] += 1
                document = group.documents[candidate]
                is_passage = bool(group.spans and group.spans[candidate])
                text = document.full_text
                read = Read(text, len(text)) if is_passage else source.reads(document)[which]
                vectors, _ = part.vectors(number, number + 1)
                found.append(_Piece(part.group, candidate, vectors, read, document))
                if sum(len(piece.vectors) for piece in found) >= _SLAB_TOKENS:
                    yield found
                    found = []
        yield found


def _read_places(encoder: ReadsTexts, text: str) -> NDArray[np.int32]:
    """Shape (tokens, 2): where each begins and ends, in characters."""
    (reading,) = encoder.readings([text], query=False)
    return np.array([(piece.start, piece.end) for piece in reading.pieces], dtype=np.int32)


def _slabs(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, as many together as have so many characters, or one."""
    slab: list[str] = []
    size = 0
    for text in texts:
        if slab and size + len(text) > _SLAB_CHARACTERS:
            yield slab
            slab, size = [], 0
        slab.append(text)
        size += len(text)
    if slab:
        yield slab
