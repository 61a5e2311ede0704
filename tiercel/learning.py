"""What is a model trained on, and with what? Composition for mining and training: names to lists, texts and models."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.errors import InputError, ModelError, UsageError
from tiercel.types import DocId, Document, Query, QueryId, Ranking

if TYPE_CHECKING:
    from tiercel.config import Settings
    from tiercel.data.runs import RunFormat
    from tiercel.models.description import ModelFamily
    from tiercel.protocols import DocumentStore
    from tiercel.training.batches import TrainingGroup
    from tiercel.training.groups import MinedGroup
    from tiercel.training.loop import Dev, Progress, Student
    from tiercel.training.mining import Legs
    from tiercel.training.rows import GroupSource, Part
    from tiercel.training.settings import TrainSettings


FUSED = "fused"
"""What mined groups call the score of a fusion; a leg goes by its own name, a run by its file's."""

STATE_FOLDER = "training"
"""Below the folder of a model that is being trained: checkpoints, removed at the end."""

_QUERIES_AT_ONCE = 256
_GROUPS_AT_ONCE = 8
_DIGEST_LENGTH = 12


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


_WEIGHTS_OF = {"tiercel-minilm": "all-MiniLM-L6-v2"}
"""Bundled models, which have no weights to train, and what they were made of."""


def starting_model(name: str, *, offline: bool, family: ModelFamily = "encoder") -> Path:
    """The folder that a training begins with, of a model by name, folder or hub name.

    Raises ModelError where it cannot be had, and for an exported one.
    """
    from tiercel.models.zoo import find_source

    source = find_source(_WEIGHTS_OF.get(name, name), offline=offline, family=family)
    if source.is_exported:
        raise ModelError(
            "it is exported, and has no weights to train",
            expected="a folder as sentence-transformers or transformers saves it",
            next_step="Name what it was exported from",
            where=str(source.folder),
        )
    return source.folder


@dataclass(frozen=True, slots=True)
class TrainData:
    """Files of mined groups, and the corpora that hold their documents.

    Attributes:
        groups: files of groups.
        corpora: one for each of these files, in their order, or one for all.
    """

    groups: Sequence[str]
    corpora: Sequence[str]

    def __post_init__(self) -> None:
        if self.groups and len(self.corpora) not in (1, len(self.groups)):
            raise UsageError(
                f"{len(self.corpora)} corpora for {len(self.groups)} files of groups",
                expected="one for each, in their order, or one for all",
            )

    def read(self) -> list[Part]:
        """The groups of each file with the texts of their documents. Raises InputError, with file and line."""
        from tiercel.data.corpus import read_documents
        from tiercel.training.groups import read_groups, texts_of

        corpora = self.corpora if len(self.corpora) > 1 else list(self.corpora) * len(self.groups)
        parts: list[Part] = []
        for file, corpus in zip(self.groups, corpora, strict=True):
            groups = read_groups(file)
            parts.append((groups, texts_of(groups, read_documents([corpus]))))
        return parts

    def digests(self) -> list[str]:
        """Of each file of groups."""
        from tiercel.training.rows import digests_of

        return digests_of(self.groups)


def train(  # noqa: PLR0913
    source: Path,
    out: Path,
    *,
    settings: TrainSettings,
    data: GroupSource,
    dev: GroupSource | None = None,
    measure: str = "nDCG@10",
    threads: int = 1,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Train a model that starts as `source` and write it to `out`, a folder that `tiercel export` takes.

    The class of the settings says which family. `dev` are groups of queries that are not trained on: at intervals the
    documents that a first stage found are ranked by the model, and the weights with the best mean of `measure` over the
    files are those that are written. `threads` are those of the CPU.

    Raises UsageError (settings that do not fit, an `out` that is not empty, a training begun otherwise), InputError
    (groups) and ModelError (the source, a loss that is no number, a full disk, a missing package).
    """
    check_torch()
    if settings.patience and dev is None:
        raise UsageError(
            f"patience = {settings.patience} without dev groups", expected="--dev FILE, which it waits for"
        )
    state = out / STATE_FOLDER
    if not resume and out.exists() and any(path != state for path in out.iterdir()):
        raise UsageError("it is not empty", expected="a new folder for the model", where=str(out))
    import torch

    from tiercel.models.description import source_digest
    from tiercel.training.batches import training_groups
    from tiercel.training.checkpoints import Checkpoints
    from tiercel.training.loop import Training
    from tiercel.training.precision import with_precision
    from tiercel.training.rows import AsOneText
    from tiercel.training.settings import UniTrainSettings

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ModelError("torch finds no GPU", expected="one, as device = cuda", next_step="Train with device = cpu")
    settings = with_precision(settings)
    torch.set_num_threads(threads)
    if not isinstance(settings, UniTrainSettings):
        data = AsOneText(data, source, settings)
        dev = None if dev is None else AsOneText(dev, source, settings)
    judged = None if dev is None else dev_measure(dev, measure, device=settings.device)
    groups = [group for part, texts in data.read() for group in training_groups(part, texts, settings)]
    inputs = {"model": source_digest(source)[:_DIGEST_LENGTH], "threads": threads}
    if dev is not None:
        inputs |= {"measure": measure, "dev": dev.digests()}
    checkpoints = Checkpoints(state, inputs)
    if resume:
        checkpoints.read()  # where there is none, that is said before a model is loaded
    student = _student(source, settings, groups, say=say)
    progress = Training(student, groups, settings, checkpoints=checkpoints, dev=judged, say=say).run(resume=resume)
    student.module.to("cpu")
    _write_model(student, out, beside=state / "model")
    shutil.rmtree(state, ignore_errors=True)
    return progress


def _write_model(student: Student, out: Path, *, beside: Path) -> None:
    """Save into the folder `beside`, then move all to `out`: what is there is whole. Raises ModelError."""
    from safetensors import SafetensorError

    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        student.save(beside)
        for path in sorted(beside.iterdir()):
            if (out / path.name).is_dir():
                shutil.rmtree(out / path.name)
            path.replace(out / path.name)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the model cannot be written ({error})",
            expected="room on the disk and leave to write",
            next_step="Make room and go on with --resume",
            where=str(out),
        ) from error


def dev_measure(data: GroupSource, measure: str, *, device: str = "cpu") -> Dev:
    """The mean over files of a measure over the documents that a first stage found; the positives are the relevant.

    A positive that no leg has found is missed whatever the model does, and counts as such. What is given raises
    ModelError for a score that is no number.
    """
    from tiercel.evaluation.measures import evaluate, parse_measure
    from tiercel.training.batches import batch_of

    wanted = parse_measure(measure)
    parts = data.read()
    for groups, _ in parts:
        if not any(document.leg for group in groups for document in group.documents):
            raise InputError(
                "no document was found by a leg",
                expected="dev groups as `tiercel mine` writes them",
                where=groups[0].where.rpartition(":")[0],
            )

    def found(group: MinedGroup) -> MinedGroup:
        positives, negatives = ([d for d in side if d.leg] for side in (group.positives, group.negatives))
        return replace(group, positives=positives, negatives=negatives)

    def value(student: Student) -> float:
        means = []
        for groups, texts in parts:
            rankings = []
            asked = [kept for group in groups if (kept := found(group)).documents]
            for start in range(0, len(asked), _GROUPS_AT_ONCE):
                batch = batch_of(asked[start : start + _GROUPS_AT_ONCE], texts, device=device)
                rows = student.scores(batch).float().cpu().tolist()
                for group, row in zip(batch.groups, rows, strict=True):
                    ids = [document.id for document in group.documents]
                    scores = row[: len(ids)]
                    _check_finite(scores, group)
                    rankings.append(Ranking.from_scores(group.query, ids, scores, stage="dev", keep=len(ids)))
            qrels = {group.query.id: {document.id: 1 for document in group.positives} for group in groups}
            means.append(evaluate(rankings, qrels, [wanted]).means[str(wanted)])
        return sum(means) / len(means)

    return value


def _check_finite(scores: Sequence[float], group: MinedGroup) -> None:
    if not all(map(math.isfinite, scores)):
        raise ModelError(
            f"the model's scores for the dev query {group.query.id!r} are no numbers",
            expected="finite scores",
            next_step="The checkpoint before is kept. Begin anew with a lower learning_rate",
            where=group.where,
        )


def _student(
    source: Path, settings: TrainSettings, groups: Sequence[TrainingGroup], *, say: Callable[[str], None]
) -> Student:
    from tiercel.training import settings as kinds

    if isinstance(settings, kinds.CrossSettings):
        from tiercel.training.cross_encoder import CrossStudent

        return CrossStudent(source, settings, groups)
    if isinstance(settings, kinds.BiSettings):
        from tiercel.training.bi_encoder import BiStudent

        return BiStudent(source, settings)
    if isinstance(settings, kinds.LateSettings):
        from tiercel.training.late_interaction import LateStudent

        return LateStudent(source, settings, groups, say=say)
    if isinstance(settings, kinds.UniTrainSettings):
        from tiercel.training.uni_encoder import UniStudent

        return UniStudent(source, settings)
    if isinstance(settings, kinds.LocalSettings):
        from tiercel.training.local_attention import LocalStudent

        return LocalStudent(source, settings, groups, say=say)
    if isinstance(settings, kinds.DistilSettings):
        from tiercel.training.distil import DseStudent

        return DseStudent(source, settings)
    raise UsageError(
        f"settings of no family: {type(settings).__name__}", expected=f"those of {', '.join(kinds.FAMILIES)}"
    )


def check_torch() -> None:
    """Raise ModelError where a package that training needs is not installed."""
    from importlib.util import find_spec

    for package in ("torch", "sentence_transformers"):
        if find_spec(package) is None:
            raise ModelError(
                f"training needs the package {package}, which is not installed",
                next_step="`pip install 'tiercel[torch]'`",
            )
