"""A cross-encoder that is to rank what it has not seen: layers of all-MiniLM-L6-v2, labels and what the stages know.

    python recipes/cross_encoder.py DATA OUT [--left-out scifact/train] [--device cuda] [--set NAME=VALUE]

DATA holds BEIR folders. Of each, judged queries are drawn and queries are made of documents (titles, snippets and
keywords, which need no judgment); the default pipeline of an index finds what they are to be told from. The network
learns labels and, beside them, the scores of the pipeline's last stage, brought to the scale at which they say most
about the labels. The judged queries of the collection left out, with which nothing is trained, say at which step it
ranked best, and those weights are kept. docs/MODELS.md says what it reaches, and why it does not come along.

OUT gets the indexes, `checkpoint`, which transformers loads, and `tiercel-cross`, exported in int8: 16 MB. What is
there is used, so a recipe that stopped goes on. An hour on two cores; for a GPU, `make cross-encoder-gpu`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tiercel.adapting import AdaptOptions, HeldGroups, known_item_groups
from tiercel.app import open_index
from tiercel.config import Settings
from tiercel.data.corpus import read_documents
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.index.store import Index
from tiercel.index_settings import IndexOptions
from tiercel.indexing import add_documents
from tiercel.learning import STATE_FOLDER, legs_of_index, starting_model, train
from tiercel.models.description import ModelSource
from tiercel.models.export_cross_encoder import export
from tiercel.training.batches import TrainingGroup, objective_of
from tiercel.training.cross_encoder import fit_stage_before
from tiercel.training.groups import MinedGroup
from tiercel.training.mining import MiningOptions, mine
from tiercel.training.rows import Part
from tiercel.training.settings import CrossSettings, read_settings
from tiercel.training.sources import load_classifier
from tiercel.types import Qrels, Query

NAME = "tiercel-cross"

JUDGED = ("squad-part/train", "nq-qed-dev/dev", "policyqa/dev", "medquad/train", "pubmedqa-l/train")
"""Whose queries are learnt: CC BY-SA 4.0 and 3.0, MIT, CC BY 4.0, MIT. Test splits have no part in anything."""

SETTINGS = ("learning_rate=1e-4", "dropout=0.0", "max_tokens=160", "distil=kl", "distil_weight=0.3", "dev_steps=150")

_DEPTH = 50
_MINED = 15
_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Collection:
    """An index and those of the judged queries of a split that were drawn."""

    index: Index
    queries: Sequence[Query]
    qrels: Qrels


def main() -> None:
    options = _arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint, exported = options.out / "checkpoint", options.out / NAME
    if not (checkpoint / "config.json").is_file():
        _train(options, checkpoint)
    if not exported.exists():
        _widen(checkpoint)
        source = ModelSource(NAME, checkpoint, "sentence-transformers/all-MiniLM-L6-v2, trained to compare")
        report = export(source, exported, precision="int8")
        print(f"{exported}: {report.size_bytes / 1e6:.1f} MB, {report.description.parity}")


def _train(options: argparse.Namespace, checkpoint: Path) -> None:
    settings = Settings.from_environment()
    held = _collection(options, options.left_out, options.held_queries, settings)
    dev = HeldGroups([_judged(held, settings)])
    parts: list[Part] = []
    teacher = ""
    for place in options.judged:
        one = _collection(options, place, options.queries, settings)
        wanted = AdaptOptions(documents=options.known_items)
        known = known_item_groups(one.index, wanted, negatives=_MINED, settings=settings, say=print)
        teacher = known.teacher
        parts += [_judged(one, settings), *known.learnt.parts]
    training = read_settings(CrossSettings, None, [f"device={options.device}", *SETTINGS, *options.settings])
    data = HeldGroups(_taught(parts, teacher, training))
    begin = options.out / "begin"
    write_begin(starting_model(options.model, offline=True), begin, options.layers, options.vocabulary)
    print(f"{len(data)} groups, measured on {len(dev)} of {options.left_out}", flush=True)
    progress = train(
        begin, checkpoint, settings=training, data=data, dev=dev, threads=settings.threads,
        resume=(checkpoint / STATE_FOLDER).exists(), say=print,
    )  # fmt: skip
    print(f"{checkpoint}: {progress}", flush=True)


def _collection(options: argparse.Namespace, place: str, most: int, settings: Settings) -> Collection:
    """Queries that are drawn, and an index of what answers them and of other documents, up to `--documents`."""
    name, split = place.split("/")
    folder, path = options.data / name, options.out / f"{name}.tiercel"
    qrels = read_qrels(folder, split=split)
    queries = [query for query in read_queries(folder) if qrels.get(query.id)]
    random.Random(0).shuffle(queries)
    queries = queries[:most]
    if not path.exists():
        print(f"{path}: indexing", flush=True)
        answers = {doc_id for query in queries for doc_id in qrels[query.id]}
        documents = sorted(read_documents([folder]), key=lambda document: document.id)
        random.Random(0).shuffle(documents)
        documents.sort(key=lambda document: document.id not in answers)
        wanted = IndexOptions(tokens="4bit", encoder=options.encoder)
        add_documents(path, documents[: options.documents], wanted, settings=settings)
    return Collection(open_index(path), queries, qrels)


def _judged(one: Collection, settings: Settings) -> Part:
    """Groups of judged queries, with their texts."""
    legs, _ = legs_of_index(one.index.path, one.queries, pipeline=None, depth=_DEPTH, settings=settings)
    groups = mine(one.queries, one.qrels, legs, options=MiningOptions(_MINED, _DEPTH)).groups
    ids = list(dict.fromkeys(document.id for group in groups for document in group.documents))
    return groups, {document.id: document.full_text for document in one.index.get(ids)}


def _taught(parts: Sequence[Part], stage: str, training: CrossSettings) -> list[Part]:
    """The groups with the stage's scores as the teacher's, times the weight that predicts the labels best.

    Groups about which it has no opinion are left out.
    """
    told = [([group for group in groups if group.is_told_apart_by(stage)], texts) for groups, texts in parts]
    labels = objective_of(replace(training, distil="none"))
    weight = float(
        fit_stage_before(
            [TrainingGroup(group, texts) for groups, texts in told for group in groups], stage, labels
        ).weight
    )
    print(f"teacher: {weight:.2f} times {stage}", flush=True)

    def scored(group: MinedGroup) -> MinedGroup:
        scores = [weight * score for score in group.teacher_scores(stage)]
        taught = [replace(one, teacher=score) for one, score in zip(group.documents, scores, strict=True)]
        count = len(group.positives)
        return replace(group, positives=taught[:count], negatives=taught[count:])

    return [([scored(group) for group in groups], texts) for groups, texts in told]


def write_begin(source: Path, folder: Path, layers: int, vocabulary: int) -> None:
    """The encoder with fewer layers, a new head and the `vocabulary` most frequent tokens, as transformers saves it.

    Tokens stand in the vocabulary in the order of how frequent they are. Single characters are kept but for those of
    scripts that the encoder was hardly trained on: what is none of these is cut into smaller pieces.
    """
    torch.manual_seed(0)
    network, tokenizer = load_classifier(source, layers=layers)
    ids = tokenizer.get_vocab()
    named = [token for token in sorted(ids, key=ids.__getitem__) if not token.startswith("[unused")]
    single = [token for token in named if _is_common_character(token)]
    longer = [token for token in named if len(token.removeprefix("##")) > 1]
    kept = {*single, *longer[: max(0, vocabulary - len(single))]} if vocabulary else set(ids)
    tokens = [token for token in sorted(ids, key=ids.__getitem__) if token in kept]
    network.set_input_embeddings(_rows(network.get_input_embeddings(), [ids[token] for token in tokens]))
    window = min(_TOKENS, network.config.max_position_embeddings)
    places = network.bert.embeddings
    places.position_embeddings = _rows(places.position_embeddings, range(window))
    places.position_ids, places.token_type_ids = places.position_ids[:, :window], places.token_type_ids[:, :window]
    network.config.vocab_size, network.config.max_position_embeddings = len(tokens), window
    network.config.pad_token_id = tokens.index(tokenizer.pad_token)
    network.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    type(tokenizer)(str(folder / "vocab.txt"), model_max_length=window).save_pretrained(folder)


def _widen(checkpoint: Path) -> None:
    """Let it read as many tokens as it has places for, and not only as many as it was trained with."""
    network, tokenizer = load_classifier(checkpoint)
    tokenizer.model_max_length = network.config.max_position_embeddings
    tokenizer.save_pretrained(checkpoint)


def _is_common_character(token: str) -> bool:
    """Latin, Greek, punctuation and the signs of mathematics."""
    character = token.removeprefix("##")
    return len(character) == 1 and (ord(character) < 0x400 or 0x2000 <= ord(character) < 0x2300)


def _rows(table: Any, kept: Sequence[int]) -> Any:
    return torch.nn.Embedding.from_pretrained(table.weight.data[list(kept)], freeze=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--left-out", default="scifact/train", metavar="NAME/SPLIT", help="what is measured on")
    parser.add_argument("--judged", nargs="+", default=list(JUDGED), metavar="NAME/SPLIT")
    parser.add_argument("--queries", type=int, default=1300, help="most judged queries of a collection")
    parser.add_argument("--known-items", type=int, default=100, help="documents of a collection to make queries of")
    parser.add_argument("--documents", type=int, default=6000, help="most documents of a collection")
    parser.add_argument("--held-queries", type=int, default=100, help="most queries of the collection left out")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="what it starts as")
    parser.add_argument("--layers", type=int, default=3, help="that are kept")
    parser.add_argument("--vocabulary", type=int, default=24_000, help="tokens that are kept; 0: all")
    parser.add_argument("--encoder", default="", help="of the indexes; default: the bundled one")
    parser.add_argument("--device", default="cpu", choices=["cuda", "cpu"])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
