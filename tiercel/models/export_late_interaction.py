"""What a late-interaction model adds to an export: unit vectors of every token out, MaxSim compared.

Four kinds of folder are read through sentence-transformers' MultiVectorEncoder: Stanford's ColBERT (BERT with
`linear.weight` and artifact.metadata), PyLate's, a MultiVectorEncoder's own, and that of a SentenceTransformer. The
last one's token vectors are its last hidden states, or, where a linear Dense on `token_embeddings` stands behind the
pooling in modules.json, what that makes of them; a Dense on the sentence vector has no part in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.config import Backend, Precision
from tiercel.errors import ModelError
from tiercel.models.checkpoint import (
    check_complete,
    check_has_weights,
    check_modules,
    check_pooling,
    check_vocabulary,
    load_with_torch,
    network,
    read_architecture,
    read_modules,
    read_prompts,
    read_settings,
    token_limit,
    torch_arguments,
)
from tiercel.models.description import ModelSource, Probe, Prompts
from tiercel.models.export import ExportReport, FamilyExport, export_model, rounded
from tiercel.models.export_encoder import text_graph, text_network
from tiercel.models.forms import Wanted, find_form
from tiercel.models.parity import EncodedTexts, Parity, compare_tokens
from tiercel.models.quantize import Feeds
from tiercel.models.texts import (
    MASK_INPUT,
    SENTENCE_OUTPUT,
    TOKEN_OUTPUT,
    Filler,
    TextNetwork,
    probe_vectors,
    read_sides,
    unit_rows,
)
from tiercel.models.tracing import TorchGraph, quiet

_STANFORD = "HF_ColBERT"
_STANFORD_SETTINGS = "artifact.metadata"

_PYLATE_MODULES = {"pylate.models.Dense.Dense"}

# What the folder's config_sentence_transformers.json calls it: PyLate, sentence-transformers, a bi-encoder.
_LATE_KINDS = ("ColBERT", "MultiVectorEncoder")
_PLAIN_KIND = "SentenceTransformer"

# Every so many of the bundled texts is a query of the scores that parity is measured on.
_QUERY_STEP = 6


def export(
    source: ModelSource,
    target: Path,
    *,
    precision: Precision,
    backend: Backend | None = None,
    max_tokens: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write the late-interaction model of `source` as an exported one into the new folder `target`; see `export_model`.

    The graph gives `token_embeddings`, float32 of shape (texts, tokens, dimension), rows of L2 norm 1, and, where the
    model pools, `sentence_embedding` of shape (texts, dimension). It has a mask also in int8 where short queries are
    filled up with tokens that are not attended to. `max_tokens` cuts documents; queries keep the model's own length.
    """
    form = find_form(Wanted(precision, backend, provider=None))
    return export_model(
        LateInteractionExport(source.folder), source, target, form=form, max_tokens=max_tokens, progress=progress
    )


def is_late(source: Path) -> bool:
    """Whether a folder was saved as a late-interaction model; a bi-encoder that could serve as one was not.

    Raises ModelError where its settings are damaged.
    """
    settings = read_settings(source)
    # PyLate's older folders do not say what they are, but have a marker for queries; Stanford's have other settings.
    named = settings.get("model_type") in _LATE_KINDS or "query_prefix" in settings
    return named or (source / _STANFORD_SETTINGS).is_file()


class LateInteractionExport(FamilyExport[EncodedTexts]):
    """Exports one late-interaction model, or a bi-encoder as such."""

    family = "late-interaction"
    unit = "texts"
    other_model = "Use another late-interaction model, or a bi-encoder such as all-MiniLM-L6-v2"

    def check_source(self) -> None:
        """Refuse foreign code, weights that are pickled, damaged or missing, and folders that are not whole."""
        self._network_folder = self.source
        if (self.source / "modules.json").is_file():
            modules = read_modules(self.source)
            check_modules(self.source, modules, next_step=self.other_model, known=_PYLATE_MODULES)
            self._network_folder = modules[0][1] if modules else self.source
            self._is_late = self._is_saved_as_late()
        else:
            self._check_stanford()
            self._is_late = True
        check_has_weights(self._network_folder)
        check_vocabulary(self.source)

    def _is_saved_as_late(self) -> bool:
        settings = read_settings(self.source)
        kind = settings.get("model_type", _PLAIN_KIND)
        if kind not in (*_LATE_KINDS, _PLAIN_KIND):
            raise ModelError(
                f"it was saved as a {kind}",
                expected=f"a {', '.join(_LATE_KINDS)} or {_PLAIN_KIND}",
                next_step=self.other_model,
                where=str(self.source),
            )
        return is_late(self.source)

    def _check_stanford(self) -> None:
        expected = f"modules.json, or config.json of a {_STANFORD}"
        architecture = read_architecture(self.source, expected=expected)
        if architecture != _STANFORD:
            raise ModelError(
                f"its architecture is {architecture}, without a projection of tokens",
                expected=expected,
                next_step=self.other_model,
                where=str(self.source),
            )
        if not (self.source / _STANFORD_SETTINGS).is_file():
            raise ModelError(
                f"no {_STANFORD_SETTINGS}",
                expected="it, which has the markers and lengths that the model was trained with",
                next_step="Download the model again",
                where=str(self.source),
            )

    def load(self) -> Any:
        """The MultiVectorEncoder of the folder, or one made of its SentenceTransformer."""
        expected = "a late-interaction model or bi-encoder with safetensors weights"
        model = load_with_torch(self._load, expected=expected, next_step=self.other_model, where=self.source)
        check_pooling(model, next_step=self.other_model, where=self.source)
        self._check_stages(model)
        loader = type(network(model)).__name__
        check_complete(self._network_folder, loader, expected="all weights of a trained model", unused="pooler.")
        self._prompts = read_prompts(model)
        self._pools = any(_is(stage, "Pooling") for stage in model)
        self._extra: dict[str, Any] = {
            "query": _query_settings(model, where=str(self.source)),
            "document": {"skipped": _skipped(model, "document")},
        }
        return model

    def _load(self) -> Any:
        from sentence_transformers import MultiVectorEncoder, SentenceTransformer
        from sentence_transformers.base.modules import Normalize
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        if self._is_late:
            model = MultiVectorEncoder(str(self.source), **torch_arguments())
        else:
            plain = SentenceTransformer(str(self.source), **torch_arguments())
            modules = [*plain, MultiVectorMask(), Normalize(module_input_name=TOKEN_OUTPUT)]
            prompts, name = plain.prompts, plain.default_prompt_name
            model = MultiVectorEncoder(modules=modules, prompts=prompts, default_prompt_name=name, device="cpu")
        return model

    def _check_stages(self, model: Any) -> None:
        """Refuse what the graph would leave out, and token vectors that are not normalised."""
        stages = list(model)
        known = ["Dense", "Normalize", "Pooling", "MultiVectorMask"]
        for position, stage in enumerate(stages):
            if not _is(stage, *known if position else ["Transformer"]):
                raise ModelError(
                    f"its module {position} is a {type(stage).__name__}",
                    expected=" or ".join(known) if position else "a Transformer",
                    next_step=self.other_model,
                    where=str(self.source),
                )
        masked = next((i for i, stage in enumerate(stages) if _is(stage, "MultiVectorMask")), len(stages))
        writers = [stage for stage in stages[1:] if getattr(stage, "module_output_name", "") == TOKEN_OUTPUT]
        if not all(_is(stage, "MultiVectorMask", "Normalize") for stage in stages[masked:]):
            raise ModelError(
                "modules that make vectors stand behind its MultiVectorMask",
                expected="only a Normalize there",
                next_step=self.other_model,
                where=str(self.source),
            )
        if not writers or not _is(writers[-1], "Normalize"):
            raise ModelError(
                "it does not normalise the vectors of its tokens",
                expected="a Normalize of token_embeddings, so that products are cosines",
                next_step=self.other_model,
                where=str(self.source),
            )

    def declared_limit(self, model: Any) -> int | None:
        """The length of documents, or that of all texts where documents have none of their own."""
        limit: int | None = model[0].document_length or model.max_seq_length
        return limit

    def graph(self, model: Any, *, masked: bool) -> TorchGraph:
        """The model's modules as one: input ids (and mask) in, unit vectors of tokens, and of the text, out."""
        filler = self._extra["query"]["filler"]
        stages = [stage for stage in model if not _is(stage, "MultiVectorMask")]
        needs_mask = filler is not None and not filler["attended"]
        return text_graph(model, stages, dict.fromkeys(self._outputs, True), masked=masked or needs_mask)

    @property
    def _outputs(self) -> list[str]:
        return [SENTENCE_OUTPUT, TOKEN_OUTPUT] if self._pools else [TOKEN_OUTPUT]

    def torch_values(self, model: Any, *, max_tokens: int) -> EncodedTexts:
        """What sentence-transformers gives, prompts and all."""
        model[0].document_length = max_tokens
        queries, documents = self._measured()
        with quiet():
            sides = [
                model.encode_query(queries, output_value=None),
                model.encode_document(documents, output_value=None),
            ]
        values = self._values([[self._arrays(item) for item in side] for side in sides])
        self._extra["sentence_dimension"] = 0 if values.sentences is None else values.sentences.shape[1]
        return values

    def runner(self, folder: Path, *, max_tokens: int) -> Callable[[], EncodedTexts]:
        """Gives what the graph gives for the same texts."""
        network = self._network(folder, max_tokens)

        def run() -> EncodedTexts:
            sides = [network.run(texts, self._outputs, query=query) for texts, query in self._prompted()]
            return self._values([[result for slab in side for result in slab] for side in sides])

        return run

    def count(self) -> int:
        """Queries and documents."""
        return sum(map(len, self._measured()))

    def samples(self, folder: Path, *, max_tokens: int) -> list[Feeds]:
        """The texts that parity is measured on, of both sides."""
        network = self._network(folder, max_tokens)
        return [feeds for texts, query in self._prompted() for feeds in network.feeds(texts, query=query)]

    def check_packable(self) -> None:
        """Refuse a filler that is not attended to: what the mask hides is taken out, and it has vectors that count."""
        filler = self._extra["query"]["filler"]
        if filler is not None and not filler["attended"]:
            raise ModelError(
                "its queries are filled up with tokens that are not attended to, which fp16 takes for padding",
                expected="precision fp32 on a GPU",
                next_step="Export it with --precision fp32",
                where=str(self.source),
            )

    def _measured(self) -> tuple[list[str], list[str]]:
        """Queries and documents: texts, and all of them in one, so that truncation is seen too."""
        return self.texts[::_QUERY_STEP], [*self.texts, " ".join(self.texts)]

    def _prompted(self) -> list[tuple[list[str], bool]]:
        """The same with what is put before them, and whether they are queries."""
        queries, documents = self._measured()
        return [
            ([self._prompts.query + text for text in queries], True),
            ([self._prompts.document + text for text in documents], False),
        ]

    def _arrays(self, item: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        """Of what sentence-transformers gives for a text, padded, the arrays in the order of `_outputs`."""
        counted = item[MASK_INPUT].bool()
        return [(item[name][counted] if name == TOKEN_OUTPUT else item[name]).numpy() for name in self._outputs]

    def _values(self, sides: Sequence[Sequence[Sequence[NDArray[np.float32]]]]) -> EncodedTexts:
        """Of arrays in the order of `_outputs`, for each query and each document."""
        queries, documents = ([arrays[-1] for arrays in side] for side in sides)
        sentences = [arrays[0] for side in sides for arrays in side] if self._pools else None
        return EncodedTexts(queries, documents, None if sentences is None else unit_rows(np.stack(sentences)))

    def compare(self, reference: EncodedTexts, other: EncodedTexts) -> Parity:
        """Vectors of tokens, MaxSim, the order of documents."""
        return compare_tokens(reference, other)

    def probe(self, folder: Path, *, max_tokens: int) -> Probe:
        """A query and a document with the mean of their tokens' vectors."""
        queries, documents = self._measured()
        texts = (self._prompts.query + queries[0], self._prompts.document + documents[0])
        return Probe(texts, rounded(probe_vectors(self._network(folder, max_tokens), texts).ravel()))

    def dimension(self, probe: Probe) -> int:
        """Length of a token's vector."""
        return len(probe.values) // len(probe.texts)

    def prompts(self, model: Any) -> Prompts:
        """The markers of queries and documents, or what else is put before them."""
        return self._prompts

    def extra(self, model: Any) -> dict[str, Any]:
        """How queries are cut and filled up, which tokens are skipped, and how long the vector of a whole text is."""
        return self._extra

    def _network(self, folder: Path, max_tokens: int) -> TextNetwork:
        return text_network(self, folder, read_sides(max_tokens, self._extra))


def _is(stage: Any, *names: str) -> bool:
    return type(stage).__name__ in names


def _query_settings(model: Any, *, where: str) -> dict[str, Any]:
    """How many tokens of a query are read, what it is filled up with, and which tokens are skipped."""
    stage, tokenizer = model[0], model.tokenizer
    expansion = stage.query_expansion
    declared = stage.query_length or model.max_seq_length
    filler = None
    if expansion is not None:
        length = int(expansion["length"])
        declared = length if expansion["strategy"] == "fixed" else max(declared or 0, length)
        named = expansion["token"]
        ids = (tokenizer.mask_token_id, tokenizer.eos_token_id)
        token = next((i for i in ids if i is not None), 0) if named is None else tokenizer.convert_tokens_to_ids(named)
        filler = dataclasses.asdict(Filler(int(token), length, bool(expansion["attend"])))
    return {
        "max_tokens": token_limit(network(model), None, declared=declared, where=where),
        "filler": filler,
        "skipped": _skipped(model, "query"),
    }


def _skipped(model: Any, task: str) -> list[int]:
    """Ids of the tokens that the model's own mask leaves out of the texts of a task, ascending."""
    import torch

    ids = torch.arange(network(model).get_input_embeddings().weight.shape[0])[None]
    kept = torch.ones_like(ids)
    for stage in model:
        if _is(stage, "MultiVectorMask"):
            kept = stage({"input_ids": ids, MASK_INPUT: kept}, task=task)[MASK_INPUT]
    skipped: list[int] = torch.nonzero(~kept[0].bool()).flatten().tolist()
    return skipped


EXPORT = LateInteractionExport
