"""With what is an index made, and is that what it is asked for again? Options to settings and loaded models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.app import export_model, query_encoder
from tiercel.config import OnDuplicate, Precision, Settings, TokenCodec
from tiercel.data.chunking import Chunking
from tiercel.data.corpus import CorpusFormat
from tiercel.data.records import USUAL_NAMES, FieldNames
from tiercel.errors import IndexStoreError, UsageError
from tiercel.token_models import lasting_name, named_token_model, stored_token_model

if TYPE_CHECKING:
    from tiercel.index.columns import ColumnType
    from tiercel.index.manifest import EncoderRecord, IndexSettings, TokensRecord
    from tiercel.index.row_encoder import RowEncoder
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.protocols import TokenEncoder

NO_ENCODER = "none"
CONTEXTS = ("title", "headings")


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How documents are read and indexed. None: as the index has it, and for a new one the default.

    Attributes:
        fields: names of the id, text and title fields, where they are not the usual ones.
        format: form of the sources, where their names do not tell.
        analyzer: see `tiercel.index.analysis.analyzer`; english by default.
        encoder: a model's name or folder, "none" for BM25 only.
        precision: of the models; by default int8, or what an exported folder has.
        ann: "auto" (default), "flat", "hnsw", "ivf" or a FAISS factory string.
        recall: share of the exact 100 nearest that the ANN is to find, above 0 and at most 1.
        chunking: how documents are cut into passages; by default they are not.
        context: what precedes a passage: "title" (default), "headings", both or nothing.
        tokens: the form in which token vectors are kept; by default none are.
        token_model: what makes them; by default the encoder, in the pass that makes the rows' vectors.
        columns: types of metadata columns, where they are not to be taken from the values.
        on_duplicate: what happens to an id that comes twice in the sources.
        replace: build an existing index anew, not add to it; it answers until the new one is complete.
    """

    fields: FieldNames = USUAL_NAMES
    format: CorpusFormat | None = None
    analyzer: str | None = None
    encoder: str | None = None
    precision: Precision | None = None
    ann: str | None = None
    recall: float | None = None
    chunking: Chunking | None = None
    context: tuple[str, ...] | None = None
    tokens: TokenCodec | None = None
    token_model: str | None = None
    columns: Mapping[str, ColumnType] | None = None
    on_duplicate: OnDuplicate = "refuse"
    replace: bool = False

    def __post_init__(self) -> None:
        if self.encoder == NO_ENCODER and (self.ann or self.recall or (self.precision and not self.token_model)):
            raise UsageError("--ann, --recall or --precision with --encoder none", expected="them only with vectors")
        if self.encoder == NO_ENCODER and self.tokens and not self.token_model:
            raise UsageError(
                "--tokens with --encoder none and no --token-model",
                expected="a model to make them: --token-model MODEL, or an encoder",
            )
        if self.recall is not None and not 0 < self.recall <= 1:
            raise UsageError(f"--recall {self.recall:g}", expected="a share above 0 and at most 1")
        if unknown := [part for part in self.context or () if part not in CONTEXTS]:
            raise UsageError(f"--context {unknown[0]!r}", expected=f"{', '.join(CONTEXTS)}, or none")
        if "headings" in (self.context or ()) and self.chunking and self.chunking.kind != "headings":
            raise UsageError(
                f"--context headings with --chunk {self.chunking.kind}", expected="--chunk headings, which finds them"
            )


def new_settings(
    options: IndexOptions, *, settings: Settings, say: Callable[[str], None]
) -> tuple[IndexSettings, RowEncoder]:
    """The settings of a new index, and the models that they name."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.manifest import DEFAULT_RECALL, IndexSettings
    from tiercel.index.row_encoder import RowEncoder

    found = analyzer(options.analyzer or "english")
    if "headings" in (options.context or ()) and options.chunking is None:
        raise UsageError("--context headings without --chunk", expected="--chunk headings, which finds them")
    if options.token_model is not None and options.tokens is None:
        raise UsageError("--token-model without --tokens", expected="the form to keep them in, such as --tokens 2bit")
    encoder = record = tokens = token_model = None
    if options.encoder != NO_ENCODER:
        from tiercel.index.vectors import check_ann

        encoder, record = _named_encoder(options.encoder, options.precision, settings=settings, say=say)
        check_ann(options.ann or "auto", encoder.dimension)
    if options.tokens is not None and options.token_model is not None:
        token_model, tokens = _named_tokens(options.token_model, options.tokens, options, settings=settings, say=say)
    elif options.tokens is not None and encoder is not None and record is not None:
        tokens = _tokens_of_encoder(encoder, record, options.tokens)
    made = IndexSettings(
        analyzer=found.name,
        analyzer_fingerprint=found.fingerprint,
        encoder=record,
        ann=options.ann or "auto",
        recall=options.recall or DEFAULT_RECALL,
        chunking=options.chunking,
        chunking_fingerprint=options.chunking.fingerprint if options.chunking else "",
        context=("title",) if options.context is None else options.context,
        declared=dict(options.columns or {}),
        tokens=tokens,
    )
    return made, RowEncoder(encoder, token_model, jointly=tokens is not None and tokens.of_encoder)


def refuse_other_settings(path: Path, has: IndexSettings, options: IndexOptions) -> None:
    """Raises IndexStoreError for an option that is not what the index was made with."""
    from tiercel.index.analysis import analyzer
    from tiercel.index.store import enforced_analyzer

    enforced_analyzer(path, has)
    if options.analyzer is not None:
        asked = analyzer(options.analyzer)
        if asked.fingerprint != has.analyzer_fingerprint:
            raise _other(
                path,
                f"analyzer {asked.name} of fingerprint {asked.fingerprint}",
                f"{has.analyzer} of fingerprint {has.analyzer_fingerprint}",
            )
    if has.chunking is not None and has.chunking.fingerprint != has.chunking_fingerprint:
        raise _other(
            path, f"passages of fingerprint {has.chunking.fingerprint}, as this Tiercel cuts", has.chunking_fingerprint
        )
    compared: dict[str, tuple[object, object]] = {
        "--chunk": (options.chunking, has.chunking),
        "--context": (options.context, has.context),
        "--ann": (options.ann, has.ann),
        "--recall": (options.recall, has.recall),
        "--tokens": (options.tokens, has.tokens.codec if has.tokens else None),
    }
    for flag, (wanted, there) in compared.items():
        if wanted is not None and wanted != there:
            raise _other(path, f"{flag} {_in_words(wanted)}", _in_words(there))


def _in_words(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)


def _other(path: Path, found: str, expected: str) -> IndexStoreError:
    return IndexStoreError(
        found,
        where=str(path),
        expected=f"{expected}, with which the index was made",
        next_step="Leave the option out to add to it, or build it anew with --replace.",
    )


def same_models(
    path: Path, has: IndexSettings, options: IndexOptions, *, settings: Settings, say: Callable[[str], None]
) -> RowEncoder:
    """The models that made the vectors of an index. Raises IndexStoreError if the options name others."""
    from tiercel.index.row_encoder import RowEncoder

    encoder = _same_encoder(path, has, options, settings=settings, say=say)
    record = has.tokens
    if record is None or record.of_encoder:
        if options.token_model is not None:
            raise _other(
                path, f"--token-model {options.token_model}", f"the tokens of {record.name}" if record else "no tokens"
            )
        return RowEncoder(encoder, jointly=record is not None)
    if options.token_model is None:
        return RowEncoder(encoder, stored_token_model(path, record, settings=settings))
    named, _ = _named_tokens(options.token_model, record.codec, options, settings=settings, say=say)
    if named.fingerprint != record.fingerprint:
        raise _other(
            path,
            f"token model {options.token_model} of fingerprint {named.fingerprint}",
            f"{record.name}, {record.precision}, of fingerprint {record.fingerprint}",
        )
    return RowEncoder(encoder, named)


def _same_encoder(
    path: Path, has: IndexSettings, options: IndexOptions, *, settings: Settings, say: Callable[[str], None]
) -> OnnxEncoder | None:
    """The encoder that made the index's vectors. Raises IndexStoreError if the options name another."""
    record = has.encoder
    if record is None:
        if options.encoder not in (None, NO_ENCODER) or options.precision:
            raise _other(path, f"encoder {options.encoder or options.precision}", "none: BM25 only")
        return None
    if options.encoder == NO_ENCODER:
        raise _other(path, "encoder none", f"{record.name} of fingerprint {record.fingerprint}")
    if options.encoder is None and options.precision is None:
        return query_encoder(path, record, "", settings=settings)
    encoder, _ = _named_encoder(options.encoder or record.name, options.precision, settings=settings, say=say)
    if encoder.fingerprint != record.fingerprint:
        raise _other(
            path,
            f"encoder {options.encoder or record.name} of fingerprint {encoder.fingerprint}",
            f"{record.name}, {record.precision}, of fingerprint {record.fingerprint}",
        )
    return encoder


def _named_encoder(
    name: str | None, precision: Precision | None, *, settings: Settings, say: Callable[[str], None]
) -> tuple[OnnxEncoder, EncoderRecord]:
    from tiercel.index.manifest import EncoderRecord
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.models.zoo import DEFAULT_ENCODER

    name = name or DEFAULT_ENCODER
    folder = export_model(name, settings=settings, precision=precision, say=say)
    encoder = OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)
    about = encoder.description
    return encoder, EncoderRecord(
        lasting_name(name), about.precision, about.fingerprint, encoder.dimension, about.max_tokens
    )


def _named_tokens(
    name: str, codec: TokenCodec, options: IndexOptions, *, settings: Settings, say: Callable[[str], None]
) -> tuple[TokenEncoder, TokensRecord]:
    """A late-interaction model, and what an index says about it."""
    from tiercel.index.manifest import TokensRecord
    from tiercel.models.description import check_family

    made = named_token_model(
        name, settings=settings, family="late-interaction", precision=options.precision, say=say
    )  # fmt: skip
    about = made.about
    check_family(about, "late-interaction", where=name)
    facts = (about.precision, made.encoder.fingerprint, made.encoder.dimension, about.max_tokens)
    return made.encoder, TokensRecord(lasting_name(name), "late-interaction", *facts, codec)


def _tokens_of_encoder(encoder: OnnxEncoder, record: EncoderRecord, codec: TokenCodec) -> TokensRecord:
    from tiercel.index.manifest import TokensRecord

    tokens = encoder.tokens
    facts = (record.precision, tokens.fingerprint, tokens.dimension, record.max_tokens)
    return TokensRecord(record.name, "encoder", *facts, codec)
