"""How does a bi-encoder get used to a collection that has no labels? By finding its documents again.

Queries are made of documents of an index (`tiercel.evaluation.known_items`); what a query was taken from is left out of
its document, as in the inverse cloze task (Lee, Chang, Toutanova: Latent Retrieval for Weakly Supervised Open Domain
Question Answering. ACL 2019, section 3), or words alone would tell it. Negatives, and scores to learn, come from what
the index's own pipeline ranks; so the pipeline teaches the bi-encoder and a better bi-encoder the pipeline, as the
cycles of Trans-Encoder (Liu et al., ICLR 2022). One call is one cycle: build an index with the model for the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tiercel.errors import UsageError
from tiercel.learning import check_torch, legs_of_index, starting_model, train
from tiercel.types import DocId, Document, Query

if TYPE_CHECKING:
    from tiercel.config import Settings
    from tiercel.evaluation.known_items import Kind
    from tiercel.evaluation.probe import KnownItem
    from tiercel.index.store import Index
    from tiercel.training.groups import MinedGroup
    from tiercel.training.loop import Progress
    from tiercel.training.rows import Part
    from tiercel.training.settings import AdaptSettings

FEWEST_DOCUMENTS = 20
"""Of each half: with less, neither what is learnt nor what is measured means anything."""

_DEPTH = 50
_DEV_NEGATIVES = 10
_LEAST_WORDS = 3


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """What is trained on.

    Attributes:
        documents: how many, drawn from the index, are trained on.
        held_out: how many others the model is measured on.
        seed: of all draws.
    """

    documents: int = 1000
    held_out: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("documents", "held_out"):
            if getattr(self, name) < FEWEST_DOCUMENTS:
                raise UsageError(f"{name} = {getattr(self, name)}", expected=f"at least {FEWEST_DOCUMENTS}")


class Adapted(NamedTuple):
    """What came of it.

    Attributes:
        progress: the best dev measure, and its step; step 0: nothing was better than the model that it began with,
            which is then the one that is written.
        trained_on, measured_on: how many queries.
    """

    progress: Progress
    trained_on: int
    measured_on: int


@dataclass(frozen=True, slots=True)
class HeldGroups:
    """Groups in memory, in parts of one kind of query each. Satisfies `tiercel.training.rows.GroupSource`."""

    parts: Sequence[Part]

    def read(self) -> Sequence[Part]:
        """The parts."""
        return self.parts

    def digests(self) -> list[str]:
        """One, of everything."""
        seen = repr([(list(groups), sorted(texts.items())) for groups, texts in self.parts])
        return [hashlib.blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()]

    def __len__(self) -> int:
        """Count the groups."""
        return sum(len(groups) for groups, _ in self.parts)


def adapt(  # noqa: PLR0913
    path: Path,
    out: Path,
    *,
    model: str = "",
    options: AdaptOptions,
    training: AdaptSettings,
    settings: Settings,
    measure: str = "nDCG@10",
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Adapted:
    """Adapt a bi-encoder to the documents of the index at `path`, and write a folder that `tiercel export` takes.

    It is measured on documents that are held out, before and while it is trained: the best weights are written, those
    that it began with where none are better. `model` is a folder or name, "" for the encoder of the index.

    Raises UsageError (an index without documents that give queries, or without an encoder where no model is named),
    and whatever `learning.train` does.
    """
    from tiercel.app import open_index

    check_torch()
    index = open_index(path)
    source = starting_model(model or _encoder_of(index), offline=settings.offline)
    data, dev, teacher = known_item_groups(
        index, options, negatives=2 * training.negatives, teacher=training.teacher, settings=settings, say=say
    )
    progress = train(
        source,
        out,
        settings=replace(training, teacher=teacher),
        data=data,
        dev=dev,
        measure=measure,
        threads=settings.threads,
        resume=resume,
        say=say,
    )
    return Adapted(progress, len(data), len(dev))


class KnownItemGroups(NamedTuple):
    """Groups of documents that are trained on and of others, and the name of the stage whose scores are learnt."""

    learnt: HeldGroups
    held_out: HeldGroups
    teacher: str


def known_item_groups(
    index: Index,
    options: AdaptOptions,
    *,
    negatives: int,
    settings: Settings,
    teacher: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> KnownItemGroups:
    """Known items of an index with what its default pipeline ranks for them, and at most so many negatives of each.

    `teacher` "" is the pipeline's last stage. Queries about which it has no opinion are left out. Raises UsageError for
    an index whose documents do not give enough queries.
    """
    from tiercel.training.mining import MiningOptions, mine

    learnt, held = _known_items(index, options, say)
    queries = [item.queries["plain"] for item in (*learnt, *held)]
    qrels = {item.queries["plain"].id: dict.fromkeys(item.right, 1) for item in (*learnt, *held)}
    legs, _ = legs_of_index(index.path, queries, pipeline=None, depth=_DEPTH, settings=settings)
    teacher = teacher or list(legs)[-1]

    def groups(items: Sequence[KnownItem], negatives: int) -> HeldGroups:
        asked: list[Query] = [item.queries["plain"] for item in items]
        mined = mine(asked, qrels, legs, options=MiningOptions(negatives, _DEPTH, seed=options.seed)).groups
        return HeldGroups(list(_parts(index, items, [group for group in mined if group.is_told_apart_by(teacher)])))

    return KnownItemGroups(groups(learnt, negatives), groups(held, _DEV_NEGATIVES), teacher)


def _known_items(
    index: Index, options: AdaptOptions, say: Callable[[str], None]
) -> tuple[list[KnownItem], list[KnownItem]]:
    """Those of the documents that are trained on, and those of others."""
    from tiercel.evaluation.probe import make_known_items

    if not len(index):
        raise UsageError("the index holds no document", expected="documents to make queries of", where=str(index.path))
    wanted = options.documents + options.held_out
    items = make_known_items(index, documents=wanted, seed=options.seed).items
    drawn = list(dict.fromkeys(item.doc_id for item in items))
    if len(drawn) < 2 * FEWEST_DOCUMENTS:
        raise UsageError(
            f"{len(drawn)} documents give queries",
            expected=f"{2 * FEWEST_DOCUMENTS} at least, half of them to measure on",
            where=str(index.path),
        )
    held_out = set(drawn[: min(options.held_out, len(drawn) // 2)])
    if not any(item.kind == "title" for item in items):
        say("no document has a title: queries are made of keywords and snippets alone")
    held = [item for item in items if item.doc_id in held_out]
    # What is held out must not be learnt under the name of a near-duplicate either.
    answers = held_out.union(*(item.right for item in held))
    return [item for item in items if not item.right & answers], held


def _parts(index: Index, items: Sequence[KnownItem], groups: Sequence[MinedGroup]) -> Iterator[Part]:
    """The groups of each kind of query, with texts that lack what the queries were taken from."""
    item_of = {item.queries["plain"].id: item for item in items}
    for kind in dict.fromkeys(item.kind for item in items):
        some = [group for group in groups if item_of[group.query.id].kind == kind]
        ids = list(dict.fromkeys(document.id for group in some for document in group.documents))
        taken = {item.doc_id: item.queries["plain"].text for item in items if item.kind == kind}
        texts = {document.id: left_of(document, kind, taken.get(document.id, "")) for document in index.get(ids)}
        kept = [group for group in some if _is_readable(group, texts)]
        if kept:
            yield kept, texts


def left_of(document: Document, kind: Kind, taken: str) -> str:
    """A document's text without what queries of a kind are taken from; `taken` is the query that is of it, if one is.

    Of queries that are titles no document shows its own, or having none would tell the right one. Keywords stay: words
    of the query stand in every answer, and in most negatives too.
    """
    if kind == "title":
        return document.text
    if kind == "snippet" and taken:
        return replace(document, text=document.text.replace(taken, " ", 1)).full_text
    return document.full_text


def _is_readable(group: MinedGroup, texts: Mapping[DocId, str]) -> bool:
    return all(len(texts[document.id].split()) >= _LEAST_WORDS for document in group.positives)


def _encoder_of(index: Index) -> str:
    record = index.manifest.settings.encoder
    if record is None:
        raise UsageError(
            "the index has no encoder that could be adapted",
            expected="a bi-encoder",
            next_step="Name one with --model",
            where=str(index.path),
        )
    return record.name
