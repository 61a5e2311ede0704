"""A model into ONNX, with proof that what it gives stayed what it was: all that the families of models share.

A family adds a `FamilyExport`: how its models are loaded, what the graph gives, and what is compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import ModelError
from tiercel.models.batching import GPU_BATCH_TOKENS
from tiercel.models.checkpoint import network, token_limit, write_tokenizer
from tiercel.models.description import (
    GRAPH_FILE,
    ModelDescription,
    ModelFamily,
    ModelSource,
    Probe,
    Prompts,
    compute_fingerprint,
    licence_of,
    write_description,
)
from tiercel.models.forms import MASKED, Form
from tiercel.models.gpu_graph import pack_graph, placeholder_attention
from tiercel.models.parity import Parity
from tiercel.models.quantize import Feeds
from tiercel.models.sessions import LoadedGraph, open_graph, require_form
from tiercel.models.tracing import TorchGraph, quantize, quiet, write_graph

# Worst difference of a traced fp32 graph from torch; honest ones differ by about 1e-6.
PARITY_LIMIT = 1e-3

# How the graph runs that torch has written, before anything is done to it.
_TRACED = Form("onnxruntime", "cpu", "fp32")

_Progress = Callable[[str], None]

Values = TypeVar("Values")
"""What parity is measured on: whatever `FamilyExport.compare` takes."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        folder: where the model lies now.
        description: what its tiercel.json says, parity included.
        graph_parity: parity of the fp32 graph, before any quantisation.
        fused: operators the fuser made, by name; empty when the plain graph was kept.
        size_bytes: size of model.onnx.
        seconds: wall time of the whole export.
    """

    folder: Path
    description: ModelDescription
    graph_parity: Parity
    fused: Mapping[str, int]
    size_bytes: int
    seconds: float


class FamilyExport(ABC, Generic[Values]):
    """What one family of models adds to an export. Everything is called once, in the order of the methods.

    Args:
        source: the folder that is exported.

    Attributes:
        texts: what parity and speed are measured on, at least twenty.
        form: how `open_graph` runs what is exported; it and `workers` are set by whoever exports or measures.
        workers: how many runs go on at a time.
        torch_batch: how many texts or pairs torch runs at once.
    """

    family: ClassVar[ModelFamily]
    other_model: ClassVar[str]
    """The next step where this model cannot be used."""
    unit: ClassVar[str]
    """What is counted where speed is measured."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.texts = bundled_sample_texts()
        self.form = _TRACED
        self.workers = 1
        self.torch_batch = 8

    def open_graph(self, folder: Path) -> LoadedGraph:
        """The graph in `folder`, run in the form that is being exported or measured."""
        return open_graph(folder, self.form, workers=self.workers)

    @property
    def batch_tokens(self) -> int | None:
        """Most padded tokens of one run; None: one text or pair per run, as on the CPU."""
        return None if self.form.provider == "cpu" else GPU_BATCH_TOKENS

    @abstractmethod
    def check_source(self) -> None:
        """Refuse, before anything is loaded, what may not be loaded or cannot be such a model. Raises ModelError."""

    @abstractmethod
    def load(self) -> Any:
        """The model, commonly as sentence-transformers loads it, in evaluation mode. It has a `tokenizer`.

        Raises ModelError.
        """

    def network(self, model: Any) -> Any:
        """The network of transformers inside a loaded model."""
        return network(model)

    def declared_limit(self, model: Any) -> int | None:
        """Most tokens of a text as the source has it; None where it says nothing."""
        limit: int | None = model.max_seq_length
        return limit

    def limit(self, model: Any, max_tokens: int | None) -> int:
        """Most tokens of a text: `max_tokens`, or the model's own limit. Raises ModelError for more than that."""
        declared = self.declared_limit(model)
        return token_limit(self.network(model), max_tokens, declared=declared, where=str(self.source))

    def check_packable(self) -> None:
        """Raise ModelError where runs without padding would give other values; called once it is loaded."""

    @abstractmethod
    def graph(self, model: Any, *, masked: bool) -> TorchGraph:
        """What is traced; `masked`: with an attention mask among its inputs, so that texts can be padded."""

    @abstractmethod
    def torch_values(self, model: Any, *, max_tokens: int) -> Values:
        """What the source gives for the texts that parity is measured on."""

    @abstractmethod
    def runner(self, folder: Path, *, max_tokens: int) -> Callable[[], Values]:
        """Loads the graph and the tokenizer in `folder`; what is called cuts the texts into tokens and runs them.

        It gives the same as `torch_values`, in the same shape.
        """

    def onnx_values(self, folder: Path, *, max_tokens: int) -> Values:
        """What the graph in `folder` gives, once."""
        return self.runner(folder, max_tokens=max_tokens)()

    @abstractmethod
    def count(self) -> int:
        """How many texts or pairs are measured; known once `torch_values` was called."""

    @abstractmethod
    def compare(self, reference: Values, other: Values) -> Parity:
        """How far the graph's values are from the source's: a dataclass of numbers."""

    @abstractmethod
    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """Inputs of runs of one text each that show the quantiser the usual size of activations."""

    @abstractmethod
    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """Texts with what the finished graph in `folder` gives for them."""

    def dimension(self, probe: Probe) -> int:
        """Length of a vector; 0 for a family that gives none."""
        return 0

    def prompts(self, model: Any) -> Prompts:
        """What is put before queries and documents."""
        return Prompts()

    def copy(self, folder: Path) -> None:
        """Put into `folder` what of the source goes along as it is."""

    def extra(self, model: Any) -> dict[str, Any]:
        """Settings that only this family has, as JSON has them; part of the fingerprint."""
        return {}


def export_model(
    export: FamilyExport[Values],
    source: ModelSource,
    target: Path,
    *,
    form: Form,
    max_tokens: int | None = None,
    progress: _Progress | None = None,
) -> ExportReport:
    """Write the model of `source` as an exported model into the new folder `target`.

    Parity with torch fp32 is measured on the bundled texts, some of them long enough that truncation is seen too.
    `max_tokens` None keeps the model's own limit. The folder is made beside and renamed, so it is there whole or
    not at all.

    Raises:
        ModelError: the extra is missing, the folder is no safetensors model of the family, `target` is taken, the
            graph cannot be written, what it gives in fp32 differs by more than `PARITY_LIMIT`, or the form cannot run
            here.
    """
    started = time.monotonic()
    tell = progress or _silent
    _check_target(target)
    export.check_source()
    require_form(form)
    with _partial_folder(target) as folder:
        tell(f"exporting {source.name} to {form.precision} ONNX for {form.backend}, once; it is kept in {target}")
        model = export.load()
        inner = export.network(model)
        limit = export.limit(model, max_tokens)
        write_tokenizer(model.tokenizer, inner, folder, next_step=export.other_model)
        tell("Writing the graph")
        is_masked = form.precision in MASKED
        graph = write_graph(export.graph(model, masked=is_masked), folder, next_step=export.other_model)
        tell("Comparing with torch")
        reference = export.torch_values(model, max_tokens=limit)
        export.form = _TRACED
        graph_parity = export.compare(reference, export.onnx_values(folder, max_tokens=limit))
        _check_parity(graph_parity, source, next_step=export.other_model)
        _convert(export, folder, form, model=model, max_tokens=limit, tell=tell)
        export.form = form
        parity = export.compare(reference, export.onnx_values(folder, max_tokens=limit))
        probe = export.probe(folder, max_tokens=limit)
        export.copy(folder)
        description = ModelDescription(
            family=export.family,
            name=source.name,
            source=source.origin,
            precision=form.precision,
            dimension=export.dimension(probe),
            max_tokens=limit,
            prompts=export.prompts(model),
            fingerprint="",
            parity=dataclasses.asdict(parity),  # type: ignore[call-overload]
            probe=probe,
            graph=graph.summary,
            licence=licence_of(source.folder),
            extra=export.extra(model),
            backend=form.backend,
        )
        description = dataclasses.replace(description, fingerprint=compute_fingerprint(folder, description))
        size_bytes = (folder / GRAPH_FILE).stat().st_size
        write_description(folder, description)
    return ExportReport(target, description, graph_parity, graph.fused, size_bytes, time.monotonic() - started)


def _convert(
    export: FamilyExport[Values], folder: Path, form: Form, *, model: Any, max_tokens: int, tell: _Progress
) -> None:
    """Bring the fp32 graph in `folder` to the precision of the form; what a backend converts by itself is left."""
    if form.precision == "int8":
        tell("Quantising to int8")
        quantize(folder, export.samples(folder, max_tokens=max_tokens))
    if form.precision == "fp16":
        tell("Packing for the GPU in fp16")
        export.check_packable()
        with placeholder_attention(export.network(model)):
            write_graph(export.graph(model, masked=True), folder, next_step=export.other_model)
        traced = folder / "traced.onnx"
        (folder / GRAPH_FILE).replace(traced)
        with quiet():
            pack_graph(traced, folder / GRAPH_FILE)
        traced.unlink()


def partial_folders(target: Path) -> list[Path]:
    """Unfinished exports to `target`: of a running process, or left by one that was killed."""
    return sorted(target.parent.glob(f".{target.name}.partial-*"))


def bundled_sample_texts() -> list[str]:
    """The English sentences that parity is measured on."""
    text = importlib.resources.files("tiercel.models").joinpath("sample_texts.txt").read_text(encoding="utf-8")
    return text.splitlines()


def rounded(values: NDArray[np.float32]) -> tuple[float, ...]:
    """The values of an array of shape (values,) as a probe stores them."""
    return tuple(round(float(value), 6) for value in values)


def _silent(_message: str) -> None:
    """Take a status line and drop it."""


def _check_target(target: Path) -> None:
    if target.exists():
        raise ModelError(
            "exists already",
            expected="a folder that is to be made",
            next_step="Remove it or name another one",
            where=str(target),
        )


@contextlib.contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that becomes it in one rename when the block ends well, and is removed otherwise."""
    folder = target.parent / f".{target.name}.partial-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ModelError(
            f"cannot be made ({error.strerror})", next_step="Choose a place that can be written to", where=str(folder)
        ) from error
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_parity(parity: Parity, source: ModelSource, *, next_step: str) -> None:
    if not parity.worst <= PARITY_LIMIT:  # also when it is not a number
        raise ModelError(
            f"the ONNX graph differs from torch by {parity.worst:.2g}",
            expected=f"at most {PARITY_LIMIT:g}",
            next_step=next_step,
            where=str(source.folder),
        )
