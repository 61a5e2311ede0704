"""The composition root: names and settings in, wired objects out. The one module that knows every concrete class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.config import Precision, Settings
from tiercel.data.corpus import CorpusFormat, locate_document, read_documents
from tiercel.data.files import source_name
from tiercel.data.records import USUAL_NAMES, FieldNames
from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.retrieve.spec import Leg, PipelineSpec, check_names, parse
from tiercel.types import Document, Query, QueryId

if TYPE_CHECKING:
    from tiercel.index.bm25 import BM25
    from tiercel.index.manifest import EncoderRecord, Manifest
    from tiercel.index.store import Index
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.protocols import Retriever
    from tiercel.retrieve.cascade import Cascade

RECALL_LEGS = ("bm25", "dense")
NO_ENCODER = "none"


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How documents are read and indexed.

    Attributes:
        fields: names of the id, text and title fields, where they are not the usual ones.
        format: form of the sources, where their names do not tell.
        analyzer: see `tiercel.index.analysis.analyzer`.
        encoder: a model's name or folder, "" for the default one, "none" for BM25 only.
        precision: of the encoder; None for int8, or what an exported folder has.
        ann: "auto", "flat", "hnsw" or a FAISS factory string.
        replace: build an existing index anew; it answers until the new one is complete.
    """

    fields: FieldNames = USUAL_NAMES
    format: CorpusFormat | None = None
    analyzer: str = "english"
    encoder: str = ""
    precision: Precision | None = None
    ann: str = "auto"
    replace: bool = False


def make_index(
    path: Path,
    sources: Sequence[str | Path],
    options: IndexOptions,
    *,
    settings: Settings,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda documents: None,
) -> Manifest:
    """Index the sources. `say` is told in a line what takes time, `progress` how many documents are in."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.manifest import IndexSettings
    from tiercel.index.store import RepeatedId, build_index

    _check_place(path, replace=options.replace)
    if options.encoder == NO_ENCODER and (options.ann != "auto" or options.precision):
        raise UsageError("--ann or --precision with --encoder none", expected="them only with vectors")
    found = analyzer(options.analyzer)
    documents = _at_least_one(read_documents(sources, fields=options.fields, format=options.format), sources)
    encoder = None if options.encoder == NO_ENCODER else _document_encoder(options, settings=settings, say=say)
    record = None if encoder is None else _record(encoder, options)
    try:
        manifest = build_index(
            path,
            documents,
            IndexSettings(found.name, found.fingerprint, record, options.ann),
            encoder=encoder,
            replace=options.replace,
            threads=settings.threads,
            progress=progress,
        )
    except RepeatedId as error:
        places = locate_document(sources, error.doc_id, fields=options.fields, format=options.format)
        raise RepeatedId(error.doc_id, places) from None
    _compile_search(path)
    return manifest


def open_index(path: Path) -> Index:
    """Open the last commit of an index. Raises IndexStoreError where there is none or it cannot be used."""
    from tiercel.index.store import Index

    return Index(path)


def default_pipeline(index: Index) -> PipelineSpec:
    """Every leg that the index has."""
    return parse("bm25+dense" if index.manifest.settings.encoder else "bm25")


def make_pipeline(index: Index, spec: PipelineSpec, *, settings: Settings, parameters: BM25 | None = None) -> Cascade:
    """Wire the stages of a pipeline to an index, loading the models they need.

    Raises UsageError for a stage that is not known, IndexStoreError for a leg that the index lacks or whose encoder is
    not the one that made the vectors.
    """
    (pipeline,) = make_pipelines(index, [spec], settings=settings, parameters=parameters)
    return pipeline


def make_pipelines(
    index: Index, specs: Sequence[PipelineSpec], *, settings: Settings, parameters: BM25 | None = None
) -> list[Cascade]:
    """The same for several pipelines; a leg that several of them use is loaded once. All names are checked first."""
    from tiercel.retrieve.cascade import Cascade
    from tiercel.retrieve.fusion import Fusion, FusionLeg

    for spec in specs:
        check_names(spec, recall=RECALL_LEGS, rerank=())
    used = {(leg.name, leg.model) for spec in specs for leg in spec.recall.legs}
    retrievers = {
        (name, model): _retriever(index, name, model, settings=settings, parameters=parameters)
        for name, model in sorted(used)
    }
    pipelines = []
    for spec in specs:
        legs = [FusionLeg(_leg_name(leg), retrievers[leg.name, leg.model], leg.weight) for leg in spec.recall.legs]
        recall = Fusion(legs, method=spec.recall.fusion, name=str(spec.recall))
        pipelines.append(Cascade(recall, (), index, recall_keep=spec.recall.keep))
    return pipelines


def why_empty(index: Index, text: str) -> str:
    """In words, why a query finds nothing by its terms."""
    from tiercel.index.lexical import analyze_queries

    if not text.strip():
        return "the query is empty"
    if not analyze_queries(index.analyzer, [text]).terms:
        return f"the query holds nothing but stop words or punctuation (analyzer {index.analyzer.name})"
    return "no document holds a term of the query, or all that do weigh nothing in this BM25 variant"


def export_model(
    name: str, *, settings: Settings, precision: Precision | None = None, say: Callable[[str], None] = lambda line: None
) -> Path:
    """Export a bi-encoder into the user's cache, unless it is there; returns its folder."""
    from tiercel.models.zoo import prepare_encoder

    return prepare_encoder(
        name, cache_dir=settings.cache_dir, precision=precision, offline=settings.offline, progress=say
    )


def _check_place(path: Path, *, replace: bool) -> None:
    """Refuse a place where an index would be in the way of something else, or something else in its way."""
    from tiercel.index.store import already_there, is_index

    if path.exists() and not path.is_dir():
        raise IndexStoreError("this is a file", where=str(path), expected="a new path, or an index to replace")
    if is_index(path):
        if not replace:
            raise already_there(path)
    elif path.is_dir() and (other := _not_of_a_build(path)):
        raise IndexStoreError(
            f"the folder holds something else ({other})",
            where=str(path),
            expected="a new path, an empty folder, or an index to replace",
        )


def _not_of_a_build(folder: Path) -> str:
    """The first name in a folder that a build which did not finish cannot have left; "" if there is none."""
    left = {"write.lock", "segments", "manifest.json.new"}
    names = sorted(path.name for path in folder.iterdir() if path.name not in left and not path.name.startswith("."))
    names += sorted(f"segments/{path.name}" for path in folder.glob("segments/*") if not path.name.isdecimal())
    return names[0] if names else ""


def _at_least_one(documents: Iterator[Document], sources: Sequence[str | Path]) -> Iterator[Document]:
    """The documents again, the first of them read: what cannot be read is known before a model is loaded."""
    first = next(documents, None)
    if first is None:
        raise InputError(
            "no document in it",
            where=", ".join(map(source_name, sources)),
            expected="at least one",
            next_step="Check that this is the right file or folder.",
        )
    return chain([first], documents)


def _leg_name(leg: Leg) -> str:
    return f"{leg.name}:{leg.model}" if leg.model else leg.name


def _retriever(index: Index, name: str, model: str, *, settings: Settings, parameters: BM25 | None) -> Retriever:
    if name == "bm25":
        if model:
            raise UsageError(f"the leg bm25 with the model {model!r}", expected="bm25, which runs no model")
        from tiercel.index.lexical import LexicalRetriever

        return LexicalRetriever(index.segments, index.analyzer, parameters=parameters, threads=settings.threads)
    from tiercel.index.dense import DenseRetriever

    return DenseRetriever(index.segments, _query_encoder(index, model, settings=settings), threads=settings.threads)


def _query_encoder(index: Index, model: str, *, settings: Settings) -> OnnxEncoder:
    """The encoder that made the index's vectors, or a refusal."""
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.models.zoo import find_exported

    record = index.manifest.settings.encoder
    if record is None:
        raise IndexStoreError(
            "the index has no vectors",
            where=str(index.path),
            expected="an index built with an encoder for the stage 'dense'",
            next_step="Use --pipeline bm25, or build the index again without --encoder none.",
        )
    folder = None if model else find_exported(record.fingerprint, cache_dir=settings.cache_dir)
    if folder is None:
        folder = export_model(model or record.name, settings=settings, precision=record.precision)
    encoder = OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)
    if encoder.fingerprint != record.fingerprint:
        raise IndexStoreError(
            f"encoder {model or record.name!r} has the fingerprint {encoder.fingerprint}",
            where=str(index.path),
            expected=f"{record.fingerprint}, of the encoder that made its vectors ({record.name}, {record.precision})",
            next_step="Vectors of two encoders cannot be compared: build the index again, or name the first encoder.",
        )
    return encoder


def _compile_search(path: Path) -> None:
    """Ask something, so that the search kernels are compiled and cached now and no search waits for the compiler."""
    from tiercel.index.lexical import LexicalRetriever

    index = open_index(path)
    LexicalRetriever(index.segments, index.analyzer).retrieve([Query(QueryId(""), "falcon")], keep=1)


def _document_encoder(options: IndexOptions, *, settings: Settings, say: Callable[[str], None]) -> OnnxEncoder:
    from tiercel.index.vectors import check_ann
    from tiercel.models.encoder import OnnxEncoder

    name = options.encoder or _default_encoder()
    folder = export_model(name, settings=settings, precision=options.precision, say=say)
    encoder = OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)
    check_ann(options.ann, encoder.dimension)
    return encoder


def _record(encoder: OnnxEncoder, options: IndexOptions) -> EncoderRecord:
    from tiercel.index.manifest import EncoderRecord
    from tiercel.models.zoo import known_names

    name = options.encoder or _default_encoder()
    if name not in known_names() and Path(name).is_dir():
        name = str(Path(name).resolve())
    description = encoder.description
    return EncoderRecord(
        name, description.precision, description.fingerprint, description.dimension, description.max_tokens
    )


def _default_encoder() -> str:
    from tiercel.models.zoo import DEFAULT_ENCODER

    return DEFAULT_ENCODER
