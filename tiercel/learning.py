"""What is a model trained on, and with what? Composition for mining and training: names to lists, texts and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.errors import InputError, UsageError
from tiercel.types import DocId, Document, Query, QueryId, Ranking

if TYPE_CHECKING:
    from tiercel.config import Settings
    from tiercel.data.runs import RunFormat
    from tiercel.protocols import DocumentStore
    from tiercel.training.mining import Legs

FUSED = "fused"
"""What mined groups call the score of a fusion; a leg goes by its own name, a run by its file's."""

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Texts:
    """A DocumentStore over documents in memory."""

    documents: dict[DocId, Document]

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        """The documents of these ids, in the same order. Raises InputError for an id that is not there."""
        if missing := [doc_id for doc_id in ids if doc_id not in self.documents]:
            raise InputError(
                f"the document id {missing[0]!r} is not in the corpus",
                expected="every document of the runs and the qrels among the documents",
                next_step="Name the corpus that the runs were made from",
            )
        return [self.documents[doc_id] for doc_id in ids]


def read_texts(sources: Sequence[str]) -> Texts:
    """All documents of some sources, in memory."""
    from tiercel.data.corpus import read_documents

    return Texts({document.id: document for document in read_documents(sources)})


def legs_of_runs(runs: Sequence[str], *, format: RunFormat | None = None) -> Legs:
    """What runs rank, each under its file's name without the ending. Raises UsageError for a name that comes twice."""
    from tiercel.data.runs import read_run
    from tiercel.training.mining import rankings_by_query

    names = [Path(run).name.partition(".")[0] for run in runs]
    if len(set(names)) < len(names):
        raise UsageError(f"runs called {', '.join(names)}", expected="each file name once, as it names the scores")
    return {name: rankings_by_query(read_run(run, format=format)) for name, run in zip(names, runs, strict=True)}


def legs_of_index(
    path: Path, queries: Sequence[Query], *, pipeline: str | None, depth: int, settings: Settings
) -> tuple[Legs, DocumentStore]:
    """The best `depth` of every stage of a pipeline over an index, the fusion under `FUSED`; and the index, for texts.

    Default: every leg of the index. Raises as `open_index` and `make_pipeline` do.
    """
    from tiercel.app import default_pipeline, make_pipeline, open_index
    from tiercel.retrieve.spec import parse

    index = open_index(path)
    spec = parse(pipeline) if pipeline else default_pipeline(index)
    cascade = make_pipeline(index, spec, settings=settings)
    legs: dict[str, dict[QueryId, Ranking]] = {}
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        for trace in cascade.trace(queries[start : start + _QUERIES_AT_ONCE], keep=depth):
            for stage in trace.stages:
                name = FUSED if stage.name == str(spec.recall) and len(spec.recall.legs) > 1 else stage.name
                legs.setdefault(name, {})[trace.query.id] = stage.ranking
    return legs, index
