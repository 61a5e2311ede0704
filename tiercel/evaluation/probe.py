"""How well does a pipeline find again what is in the index? A number on one's own documents, without judgments."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiercel.data.qrels import write_qrels
from tiercel.data.queries import write_queries
from tiercel.errors import UsageError
from tiercel.evaluation.known_items import (
    FORMS,
    KINDS,
    Form,
    Kind,
    Remembered,
    forms_of,
    queries_of,
    remembered,
    shingles,
    signature,
    words_of,
)
from tiercel.evaluation.measures import Measure, evaluate
from tiercel.evaluation.observing import QUERIES_PER_BATCH
from tiercel.index.lexical import LexicalRetriever, analyze_queries
from tiercel.index.store import Index
from tiercel.protocols import Retriever
from tiercel.types import DocId, Document, Qrels, Query, QueryId

SAME = 0.8
"""Share of a stretch's shingles that another document holds to be a near-duplicate of it.

A. Z. Broder: On the Resemblance and Containment of Documents. SEQUENCES 1997: containment.
"""

_TWINS_LOOKED_AT = 50
_DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class KnownItem:
    """One document that is to be found again by one kind of query.

    Attributes:
        doc_id: of the document.
        queries: what is asked, in every form.
        right: the documents that count as found: it and its near-duplicates.
    """

    doc_id: DocId
    kind: Kind
    queries: Mapping[Form, Query]
    right: frozenset[DocId]


@dataclass(frozen=True, slots=True)
class KnownItems:
    """What is to be found again.

    Attributes:
        items: one for each document and kind of query that it gives.
        documents: how many documents were drawn that gave queries.
        passed_over: documents that were drawn and gave none, as they have no title and less than three words.
        seed: of every draw.
    """

    items: tuple[KnownItem, ...]
    documents: int
    passed_over: int
    seed: int

    @property
    def queries(self) -> list[Query]:
        """All queries, in every form."""
        return [query for item in self.items for query in item.queries.values()]

    @property
    def qrels(self) -> Qrels:
        """Each query's document and its near-duplicates, all with grade 1."""
        return {query.id: dict.fromkeys(item.right, 1) for item in self.items for query in item.queries.values()}

    @property
    def with_twins(self) -> int:
        """How many items have a near-duplicate."""
        return sum(len(item.right) > 1 for item in self.items)


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One kind of query.

    Attributes:
        kind: "all" over all kinds.
        items: how many.
        forms: mean of the measure over the items, for each form.
        mean: over all items and forms.
        worst: mean over the items of each one's worst form.
    """

    kind: str
    items: int
    forms: Mapping[Form, float]
    mean: float
    worst: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def make_known_items(index: Index, *, documents: int, seed: int) -> KnownItems:
    """Draw so many documents, or all there are, and make queries of them.

    The same documents and seed give the same queries, however the index is cut into segments. Raises UsageError where
    no document gives a query.
    """
    leg = LexicalRetriever(index.views, index.analyzer)
    items: list[KnownItem] = []
    used = passed_over = 0
    for document in _drawn(index, documents, seed):
        if used == documents:
            break
        made = _items_of(document, index, leg, seed)
        items += made
        used += bool(made)
        passed_over += not made
    if not items:
        raise UsageError(
            f"{passed_over} documents were drawn, and none has a title or three words",
            expected="documents with a text",
            where=str(index.path),
        )
    return KnownItems(tuple(items), used, passed_over, seed)


def probe(
    pipeline: Retriever, known: KnownItems, *, measures: Sequence[Measure], keep: int
) -> Mapping[str, Sequence[ProbeRow]]:
    """Ask all queries, and give by measure one row for each kind that there is, and one for all."""
    queries = known.queries
    rankings = [
        ranking
        for start in range(0, len(queries), QUERIES_PER_BATCH)
        for ranking in pipeline.retrieve(queries[start : start + QUERIES_PER_BATCH], keep=keep)
    ]
    values = evaluate(rankings, known.qrels, measures).per_query
    kinds = [kind for kind in KINDS if any(item.kind == kind for item in known.items)]
    return {
        name: [
            *(_row(kind, [item for item in known.items if item.kind == kind], by_query) for kind in kinds),
            _row("all", known.items, by_query),
        ]
        for name, by_query in values.items()
    }


def write_known_items(known: KnownItems, folder: Path) -> None:
    """Write queries and judgments as a BEIR folder: queries.jsonl and qrels/test.tsv."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    write_queries(known.queries, folder / "queries.jsonl")
    write_qrels(known.qrels, folder / "qrels" / "test.tsv")


def _row(kind: str, items: Sequence[KnownItem], values: Mapping[QueryId, float]) -> ProbeRow:
    table = np.array([[values[item.queries[form].id] for form in FORMS] for item in items])
    forms = dict(zip(FORMS, table.mean(axis=0).tolist(), strict=True))
    return ProbeRow(kind, len(items), forms, float(table.mean()), float(table.min(axis=1).mean()))


def _drawn(index: Index, count: int, seed: int) -> Iterator[Document]:
    """Documents in a random order that follows from their ids and the seed, four times as many as asked for at most."""
    ids = index.sorted_ids()
    places = random.Random(seed).sample(range(len(ids)), min(len(ids), 4 * count))
    for start in range(0, len(places), _DOCUMENTS_AT_ONCE):
        chosen = [DocId(ids[place].as_py()) for place in places[start : start + _DOCUMENTS_AT_ONCE]]
        yield from index.get(chosen)


def _items_of(document: Document, index: Index, leg: LexicalRetriever, seed: int) -> list[KnownItem]:
    def weigh(words: Sequence[str]) -> list[float]:
        asked = analyze_queries(leg.analyzer, words)
        weights = leg.weigh(asked.terms)[0]
        word_of = np.repeat(np.arange(len(words)), np.diff(asked.starts))
        found: list[float] = np.bincount(word_of, weights[asked.numbers], minlength=len(words)).tolist()
        return found

    part = remembered(document, seed)
    plain = queries_of(document, part, weigh, seed)
    if not plain:
        return []
    near = _near(document, plain, signature(part, weigh) if part else "", index, leg)
    items = []
    for kind, text in plain.items():
        forms = forms_of(document.id, kind, text, seed)
        queries = {form: Query(QueryId(f"{kind}-{form}-{document.id}"), written) for form, written in forms.items()}
        twins = {other.id for other in near if _is_twin(document, part, other, kind)}
        items.append(KnownItem(document.id, kind, queries, frozenset({document.id, *twins})))
    return items


def _near(
    document: Document, plain: Mapping[Kind, str], signed: str, index: Index, leg: LexicalRetriever
) -> list[Document]:
    """The documents that have most words with the stretch, or with the title, in common."""
    texts = [text for text in (signed, plain.get("title", "")) if text]
    asked = [Query(QueryId(str(number)), text) for number, text in enumerate(texts)]
    found = (doc_id for ranking in leg.retrieve(asked, keep=_TWINS_LOOKED_AT) for doc_id in ranking.doc_ids)
    return index.get([doc_id for doc_id in dict.fromkeys(found) if doc_id != document.id])


def _is_twin(document: Document, part: Remembered | None, other: Document, kind: Kind) -> bool:
    """Whether the other document holds what is remembered too, or is called the same where its title is asked for."""
    if kind == "title" and words_of(other.title) == words_of(document.title):
        return True
    if part is None:
        return False
    wanted = shingles(part.text)
    return len(wanted & shingles(other.text)) >= SAME * len(wanted)
