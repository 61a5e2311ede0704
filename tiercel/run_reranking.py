"""How is a whole run reranked? Its texts by name, its queries in batches, and on from where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tiercel.config import Settings
from tiercel.data.candidates import HeldDocuments, named_by, queries_of_run
from tiercel.data.corpus import CorpusFormat, read_documents
from tiercel.data.files import check_target, is_stdio, is_stream
from tiercel.data.partial import PartialRun, digest_of
from tiercel.data.queries import QueryFormat, read_queries
from tiercel.data.records import USUAL_NAMES, FieldNames
from tiercel.data.runs import RunFormat, read_run, run_form, write_run
from tiercel.errors import InputError, UsageError
from tiercel.protocols import CandidateGroup
from tiercel.reranking import RerankOptions, grouped, in_batches, rerank, told_of
from tiercel.types import DocId, Document, Query, Ranking

if TYPE_CHECKING:
    from tiercel.index.store import Index
    from tiercel.protocols import Reranker


@dataclass(frozen=True, slots=True)
class RunSources:
    """Where a run and its texts are, and in what form.

    Attributes:
        run, queries: a file each.
        corpus: sources of documents, or one index that holds them.
        run_format, query_format, corpus_format: None: as the name tells.
        query_fields, corpus_fields: which field holds what.
    """

    run: str
    queries: str
    corpus: Sequence[str]
    run_format: RunFormat | None = None
    query_format: QueryFormat | None = None
    corpus_format: CorpusFormat | None = None
    query_fields: FieldNames = USUAL_NAMES
    corpus_fields: FieldNames = USUAL_NAMES


class _Store(Protocol):
    def get(self, ids: Sequence[DocId]) -> list[Document]: ...

    def missing(self, ids: Sequence[DocId]) -> list[DocId]: ...


class CandidateRun:
    """A run as candidates: its rankings, the texts of their queries, and a store of its documents.

    Attributes:
        rankings: the run, in its order.
        missing: documents that the run names and the store lacks; they are no candidates.
        digests: of run, queries and corpus, by these names: whether two of these have the same candidates.
    """

    def __init__(
        self, rankings: Sequence[Ranking], queries: Sequence[Query], store: _Store, *, corpus_digest: str
    ) -> None:
        self.rankings = rankings
        self.missing = dict.fromkeys(store.missing(named_by(rankings)))
        self.digests = {
            "run": digest_of([ranking.query.id, ranking.doc_ids] for ranking in rankings),
            "queries": digest_of([query.id, query.text, query.history] for query in queries),
            "corpus": corpus_digest,
        }
        self._queries = queries
        self._store = store

    def batches(self) -> Iterator[range]:
        """The places of the rankings, as many together as are scored at once."""
        places = in_batches(range(len(self.rankings)), lambda place: len(self.rankings[place].hits))
        return (range(batch[0], batch[-1] + 1) for batch in places)

    def groups(self, places: range) -> list[CandidateGroup]:
        """The candidates of these rankings, fetched from the store."""
        return [CandidateGroup(self._queries[place], self._documents(self.rankings[place])) for place in places]

    def pairs(self, places: range) -> int:
        """How many hits these rankings have."""
        return sum(len(self.rankings[place].hits) for place in places)

    def _documents(self, ranking: Ranking) -> list[Document]:
        return self._store.get([doc_id for doc_id in ranking.doc_ids if doc_id not in self.missing])


@dataclass(frozen=True, slots=True)
class RunTarget:
    """Where the new run goes, and what of it.

    Attributes:
        path: a file, or - for standard output.
        keep: hits of a query that survive.
        format: None: as the name tells, TREC on standard output.
        restart: begin anew, whatever an interrupted command left.
    """

    path: str
    keep: int
    format: RunFormat | None = None
    restart: bool = False

    @property
    def form(self) -> RunFormat:
        """The form of the new run. Raises UsageError where neither name nor format tells."""
        return run_form(self.path, self.format or ("trec" if is_stdio(self.path) else None), flag="--out-format")

    def check(self) -> None:
        """Raise UsageError for a form that is not told and InputError for a path that cannot be written."""
        check_target(self.path)
        _ = self.form


class Listener(NamedTuple):
    """Who is told of the work: in a line what happens, and in numbers and words how far it is and how fast it goes."""

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[int, str], None] = lambda done, pace: None


def open_run(sources: RunSources) -> CandidateRun:
    """Read a run with its queries, and of its corpus what the run names.

    An index gives its documents as they are asked for. Of other sources those that the run names are held in memory,
    once: about 600 bytes a passage of 40 words, beside 250 for every hit of the run.

    Raises InputError for a run without rankings, for a query without text, and for what cannot be read.
    """
    rankings = read_run(sources.run, format=sources.run_format)
    if not rankings:
        raise InputError("there is no ranking in it", where=sources.run, expected="at least one")
    queries = queries_of_run(
        rankings, read_queries(sources.queries, fields=sources.query_fields, format=sources.query_format)
    )
    index = _index_among(sources)
    if index is not None:
        return CandidateRun(rankings, queries, index, corpus_digest=index.digest())
    documents = read_documents(sources.corpus, fields=sources.corpus_fields, format=sources.corpus_format)
    held = HeldDocuments(named_by(rankings), documents)
    return CandidateRun(rankings, queries, held, corpus_digest=held.digest())


def scores_of(reranker: Reranker, model: str, *, settings: Settings, options: RerankOptions) -> dict[str, str]:
    """Everything about a reranker that decides its scores, by what messages call it."""
    return {
        "--model (or its --precision)": str(getattr(reranker, "fingerprint", model)),
        **told_of(options, settings),
    }


def write_reranked(
    reranker: Reranker,
    candidates: CandidateRun,
    target: RunTarget,
    *,
    asked: Mapping[str, str],
    listener: Listener = Listener(),  # noqa: B008
) -> None:
    """Rerank the run and write it to the target, which appears when it is whole.

    Into a file: batch by batch is kept beside it, and the same call goes on where it was stopped. Its batches are
    those of a call that was not stopped, so the file is the same, byte for byte. Standard output, a device and a pipe
    get the rankings as they are made. `asked` is what decides the scores, by what messages call it: which model, and
    how it reads.

    Raises InputError where what was kept was made with other settings, and for a target that cannot be written.
    """
    tag = grouped("tiercel", reranker)
    if is_stream(target.path):
        made = (ranking for batch in _made(reranker, candidates, target.keep, listener) for ranking in batch)
        write_run(made, target.path, format=target.form, tag=tag, retrieved=candidates.rankings)
        return
    total = len(candidates.rankings)
    settings = {**asked, "-k": str(target.keep), **candidates.digests}
    with PartialRun(target.path, settings, restart=target.restart) as partial:
        if partial.queries:
            listener.say(f"{partial.queries} of {total} queries were done before; {partial.name} has them")
        try:
            for batch in _made(reranker, candidates, target.keep, listener, skip=partial.batches):
                partial.append(batch)
        except BaseException:
            if partial.queries:
                kept = f"{partial.queries} of {total} queries are kept in {partial.name}"
                listener.say(f"{kept}; the same command goes on from there")
            raise
        write_run(partial.rankings(), target.path, format=target.form, tag=tag, retrieved=candidates.rankings)
        partial.forget()


def _made(
    reranker: Reranker, candidates: CandidateRun, keep: int, listener: Listener, *, skip: int = 0
) -> Iterator[list[Ranking]]:
    """The new rankings, batch by batch, without the first `skip` batches."""
    batches = list(candidates.batches())
    done = sum(map(len, batches[:skip]))
    left = sum(map(candidates.pairs, batches[skip:]))
    scored, started = 0, time.perf_counter()
    listener.progress(done, "")
    for places in batches[skip:]:
        yield rerank(reranker, candidates.groups(places), keep=keep)
        pairs = candidates.pairs(places)
        done, scored, left = done + len(places), scored + pairs, left - pairs
        listener.progress(done, _pace(scored, left, time.perf_counter() - started))


def _pace(scored: int, left: int, seconds: float) -> str:
    """How fast it goes and how long it will take, in words; "" before anything was scored."""
    if not scored or not seconds:
        return ""
    minutes, second = divmod(round(left * seconds / scored), 60)
    return f"{scored / seconds:,.0f} pairs/s, {minutes // 60}:{minutes % 60:02}:{second:02} left"


def _index_among(sources: RunSources) -> Index | None:
    """The index, where the corpus is one. Raises UsageError for one among others, or with forms and fields."""
    from tiercel.app import open_index
    from tiercel.index.writer import is_index

    indexes = [source for source in sources.corpus if is_index(Path(source))]
    if not indexes:
        return None
    if len(sources.corpus) > 1:
        raise UsageError(f"the index {indexes[0]} among other sources of --corpus", expected="an index alone")
    if sources.corpus_format is not None or sources.corpus_fields != USUAL_NAMES:
        raise UsageError("--format or a field of the documents with an index", expected="an index as it is")
    return open_index(Path(indexes[0]))
