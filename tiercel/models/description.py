"""Where does a model lie, and what does an exported one say about itself? tiercel.json, the proof that it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from tiercel.config import Precision
from tiercel.errors import ModelError
from tiercel.models.parity import Parity

FORMAT = 1
DESCRIPTION_FILE = "tiercel.json"
GRAPH_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a named model lies.

    Attributes:
        name: how the user called it.
        folder: a sentence-transformers folder, or an exported one.
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
    """A text with the vector that the exported model gave for it: shows on another machine whether it still does."""

    text: str
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Everything that tiercel.json holds.

    Attributes:
        name: how the user called the model.
        source: where it came from, in words.
        precision: "fp32" or "int8".
        dimension: length of a vector.
        max_tokens: most tokens of one text, special tokens included.
        prompts: what is put before queries and documents.
        fingerprint: digest of everything that decides the vectors.
        parity: how far the vectors are from the source's.
        probe: one text with its vector.
        graph: how the graph was made, in words.
        licence: the source's licence as its model card spells it, "" where it names none.
    """

    name: str
    source: str
    precision: Precision
    dimension: int
    max_tokens: int
    prompts: Prompts
    fingerprint: str
    parity: Parity
    probe: Probe
    graph: str
    licence: str = ""


def compute_fingerprint(folder: Path, *, precision: Precision, max_tokens: int, prompts: Prompts) -> str:
    """Digest, as hex, of the graph, the tokenizer and the settings that decide the vectors of the model in `folder`."""
    settings = {"precision": precision, "max_tokens": max_tokens, "prompts": dataclasses.asdict(prompts)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in (GRAPH_FILE, TOKENIZER_FILE):
        digest.update(file_digest(folder / name))
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


def is_exported(folder: Path) -> bool:
    """Whether `folder` holds a complete exported model."""
    return (folder / DESCRIPTION_FILE).is_file()


def is_intact(folder: Path) -> bool:
    """Whether the folder holds an export whose files are those that were exported."""
    if not is_exported(folder):
        return False
    try:
        known = read_description(folder)
        found = compute_fingerprint(
            folder, precision=known.precision, max_tokens=known.max_tokens, prompts=known.prompts
        )
    except ModelError:
        return False
    return found == known.fingerprint


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
    if found != FORMAT:
        raise _damaged(path, f"format {found!r}")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"a field is missing or of the wrong kind ({error})") from error


def _from_json(content: dict[str, object]) -> ModelDescription:
    fields = {name: value for name, value in content.items() if name != "format"}
    if fields["precision"] not in get_args(Precision):
        raise ValueError(f"precision {fields['precision']!r}")
    probe = cast("dict[str, list[float]]", fields["probe"])
    fields["prompts"] = Prompts(**cast("dict[str, str]", fields["prompts"]))
    fields["parity"] = Parity(**cast("dict[str, float]", fields["parity"]))  # type: ignore[arg-type]
    fields["probe"] = Probe(text=str(probe["text"]), vector=tuple(float(value) for value in probe["vector"]))
    return ModelDescription(**fields)  # type: ignore[arg-type]


def _damaged(path: Path, found: str) -> ModelError:
    return ModelError(found, expected=f"format {FORMAT}", next_step="Export the model again", where=str(path))
