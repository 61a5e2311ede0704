"""Where does a model lie, and what does an exported one say about itself? tiercel.json, the proof that it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError

FORMAT = 3

# Before there were several backends; such folders are still read, as indexes were built with them.
_FORMAT_OF_ONE_BACKEND = 2

DESCRIPTION_FILE = "tiercel.json"
GRAPH_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
HEAD_FILE = "pair_head.npz"
"""A head over two vectors, which few encoders have: `tiercel.models.pair_head`."""

_CHUNK_BYTES = 1 << 20

# What decides the vectors of a source folder; a changed README or picture does not.
_DIGESTED_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".metadata", ".npz"}

ModelFamily = Literal["encoder", "cross-encoder", "late-interaction", "local-attention", "uni-encoder"]
"""What a model makes of texts: one vector of each, one score of a pair, one vector of every token, the same with a head
that makes scores of them, or the scores of all candidates of a context from one pass."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a named model lies.

    Attributes:
        name: how the user called it.
        folder: a folder as sentence-transformers or transformers saves it, or an exported one.
        origin: where the folder came from, in words.
    """

    name: str
    folder: Path
    origin: str

    @property
    def is_exported(self) -> bool:
        """Whether the folder can be run as it is."""
        return is_exported(self.folder)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is put before every text of a kind; empty where the model asks for nothing."""

    query: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Texts with what the exported model gave for them: shows on another machine whether it still does.

    Attributes:
        texts: encoder: one text; cross-encoder and uni-encoder: a query and its documents; late-interaction and
            local-attention: a query and a document.
        values: encoder: the text's vector; cross-encoder and uni-encoder: the score of each document; the others: the
            direction of the mean of each text's token vectors, one after the other.
    """

    texts: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Everything that tiercel.json holds.

    Attributes:
        family: what it makes of texts.
        name: how the user called the model.
        source: where it came from, in words.
        precision: number format of its matrix products.
        dimension: length of a vector, of late interaction and local attention that of a token; 0 for what gives scores.
        max_tokens: most tokens of one document or pair, or of a context and a candidate, special tokens included.
        prompts: what is put before queries and documents.
        fingerprint: digest of everything that decides what the model gives.
        parity: how far that is from what the source gives: figures by name, as the family measures them.
        probe: a few texts with what the model gave.
        graph: how the graph was made, in words.
        licence: the source's licence as its model card spells it, "" where it names none.
        extra: settings that only this family has, by name; values as JSON has them.
        backend: what runs it.
    """

    family: ModelFamily
    name: str
    source: str
    precision: Precision
    dimension: int
    max_tokens: int
    prompts: Prompts
    fingerprint: str
    parity: Mapping[str, float]
    probe: Probe
    graph: str
    licence: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    backend: Backend = "onnxruntime"


def compute_fingerprint(folder: Path, description: ModelDescription) -> str:
    """Digest, as hex, of everything that decides what the model in `folder` gives: graph, tokenizer, head, settings.

    The fingerprint that `description` itself holds has no part in it.
    """
    settings: dict[str, Any] = {
        "precision": description.precision,
        "max_tokens": description.max_tokens,
        "prompts": dataclasses.asdict(description.prompts),
    }
    # Left out for encoders, whose fingerprints are in the indexes that were built before there were families.
    if description.family != "encoder":
        settings |= {"family": description.family, "extra": dict(description.extra)}
    if description.backend != "onnxruntime":  # left out where it was the only one, for the same reason
        settings["backend"] = description.backend
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in (GRAPH_FILE, TOKENIZER_FILE):
        digest.update(file_digest(folder / name))
    if (folder / HEAD_FILE).is_file():
        digest.update(file_digest(folder / HEAD_FILE))
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes. Raises ModelError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(
            f"cannot be read ({error.strerror})", next_step="Export the model again", where=str(path)
        ) from error
    return digest.digest()


def source_digest(folder: Path) -> str:
    """Digest, as hex, of the weights, settings and vocabularies below `folder`: names and bytes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _DIGESTED_SUFFIXES and path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(file_digest(path))
    return digest.hexdigest()


def cache_stem(source: ModelSource, family: ModelFamily) -> str:
    """How the names begin of all that the cache keeps of a source: they tell source, weights and family apart."""
    safe_name = re.sub(r"[^\w.-]+", "--", source.name)
    return f"{safe_name}-{source_digest(source.folder)[:12]}-{family}"


def is_exported(folder: Path) -> bool:
    """Whether `folder` holds a complete exported model."""
    return (folder / DESCRIPTION_FILE).is_file()


def is_intact(folder: Path) -> bool:
    """Whether the folder holds an export whose files are those that were exported."""
    if not is_exported(folder):
        return False
    try:
        known = read_description(folder)
        return compute_fingerprint(folder, known) == known.fingerprint
    except ModelError:
        return False


def read_intact(folder: Path, *, family: ModelFamily) -> ModelDescription:
    """The description of an exported model that is about to be run.

    Raises ModelError when the folder is incomplete, holds a model that cannot serve as one of this family, or its files
    have changed.
    """
    description = read_description(folder)
    check_family(description, family, where=str(folder))
    found = compute_fingerprint(folder, description)
    if found != description.fingerprint:
        raise ModelError(
            f"its files have the fingerprint {found[:12]}",
            expected=f"{description.fingerprint[:12]}, as exported",
            next_step="Export the model again",
            where=str(folder),
        )
    return description


def check_family(description: ModelDescription, family: ModelFamily, *, where: str) -> None:
    """Raise ModelError unless the model can serve as one of this family.

    An encoder has token vectors too, its hidden states, and a local-attention model; a late-interaction model may have
    a vector of the whole text.
    """
    served: set[ModelFamily] = {description.family}
    if description.family in ("encoder", "local-attention"):
        served.add("late-interaction")
    if description.family == "late-interaction" and description.extra.get("sentence_dimension"):
        served.add("encoder")
    if family not in served:
        raise ModelError(
            f"this model is exported as {description.family}",
            expected=family,
            next_step=f"Name a model of the family {family}, or the folder that this one was exported from",
            where=where,
        )


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write tiercel.json into `folder`; the last step of making a model there."""
    content = {"format": FORMAT, **dataclasses.asdict(description)}
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")


def read_description(folder: Path) -> ModelDescription:
    """Read tiercel.json of `folder`. Raises ModelError when it is missing, damaged or of another format."""
    path = folder / DESCRIPTION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"no {DESCRIPTION_FILE}",
            expected="a completely exported model",
            next_step="Export the model again with `tiercel export`",
            where=str(folder),
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, f"cannot be read as JSON ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found not in (FORMAT, _FORMAT_OF_ONE_BACKEND):
        raise _damaged(path, f"format {found!r}")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"a field is missing or of the wrong kind ({error})") from error


def _from_json(content: dict[str, Any]) -> ModelDescription:
    fields = {name: value for name, value in content.items() if name != "format"}
    known_values = {"precision": Precision, "family": ModelFamily, "backend": Backend}
    for name, known in known_values.items():
        if name in fields and fields[name] not in get_args(known):
            raise ValueError(f"{name} {fields[name]!r}")
    probe = cast("dict[str, list[Any]]", fields["probe"])
    fields["prompts"] = Prompts(**fields["prompts"])
    fields["parity"] = {name: float(value) for name, value in dict(fields["parity"]).items()}
    fields["probe"] = Probe(
        texts=tuple(str(text) for text in probe["texts"]), values=tuple(float(value) for value in probe["values"])
    )
    fields["extra"] = dict(fields["extra"])
    return ModelDescription(**fields)


def _damaged(path: Path, found: str) -> ModelError:
    return ModelError(found, expected=f"format {FORMAT}", next_step="Export the model again", where=str(path))


def licence_of(folder: Path) -> str:
    """The `license` line of the model card's front matter; "" where there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    front_matter = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
    found = re.search(r"^license:\s*(\S+)", front_matter, flags=re.MULTILINE)
    return found[1] if found else ""
