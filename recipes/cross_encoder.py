"""A cross-encoder that is to rank collections it has not seen: very many known items first, then labels. For a GPU.

    python recipes/cross_encoder.py DATA OUT [--left-out scifact] [--documents 20000] [--device cuda] [--set NAME=VALUE]

1. Of every collection but the one left out, documents are drawn, titles, snippets and keywords are made queries, and
   the scores of the default pipeline's last stage over what it ranks are learnt, without a label (the first half of
   Trans-Encoder, Liu et al., ICLR 2022): the network knows then what the stages before it know.
2. It goes on as a correction of that stage, starting at zero, on judged queries, and learns the scores beside them.

Each step's dev measure is nDCG@10 of the judged queries of the collection left out: the first figure is that of the
weights it begins with, in step 2 that of the stage itself, and the best weights are written. docs/MODELS.md says what
came of smaller trials. OUT gets the indexes and the models; what is there is used, so a recipe that stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiercel.adapting import AdaptOptions, HeldGroups, known_item_groups
from tiercel.app import open_index
from tiercel.config import Settings
from tiercel.data.chunking import Chunking
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.index.store import Index
from tiercel.index_settings import IndexOptions
from tiercel.indexing import index_documents
from tiercel.learning import STATE_FOLDER, legs_of_index, starting_model, train
from tiercel.training.groups import MinedGroup
from tiercel.training.mining import MiningOptions, mine
from tiercel.training.settings import CrossSettings, read_settings

JUDGED = ("squad-part/train", "medquad/train", "policyqa/dev", "nq-qed-dev/dev", "scifact/train")
"""Splits that are trained on; test splits have no part in anything."""

_DEPTH = 50
_NEGATIVES = 7


@dataclass(frozen=True, slots=True)
class Collection:
    """A BEIR folder, its index and the split whose judgments are used."""

    folder: Path
    index: Index
    split: str


@dataclass(frozen=True, slots=True)
class _Step:
    """A training: from which weights, with which settings, on what."""

    name: str
    source: Path
    settings: Sequence[str]
    data: HeldGroups


def main() -> None:
    options = _arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = Settings.from_environment()
    collections = [_collection(options, place, settings) for place in options.judged]
    learnt = [one for one in collections if one.folder.name != options.left_out]
    held = [one for one in collections if one.folder.name == options.left_out]
    if not learnt or not held:
        raise SystemExit(f"--left-out {options.left_out}: expected one of {', '.join(options.judged)}, and another")
    dev = HeldGroups([_judged(one, settings, options.queries) for one in held])

    known = [
        known_item_groups(
            one.index, AdaptOptions(options.documents), negatives=_NEGATIVES, settings=settings, say=print
        )
        for one in learnt
    ]
    teacher = known[0].teacher
    pairs = HeldGroups([part for groups in known for part in groups.learnt.parts])
    first = ["label=none", "distil=kl", f"teacher={teacher}", *options.settings]
    start = starting_model(options.model, offline=True)
    begun = _trained(options, _Step("imitation", start, first, pairs), dev, settings)

    labels = HeldGroups([_judged(one, settings, None) for one in learnt])
    second = ["label=listwise", "distil=kl", f"teacher={teacher}", f"residual={teacher}", *options.settings]
    _trained(options, _Step("correction", begun, second, labels), dev, settings)


def _collection(options: argparse.Namespace, place: str, settings: Settings) -> Collection:
    name, split = place.split("/")
    path = options.out / f"{name}.tiercel"
    if not path.exists():
        print(f"{path}: indexing", flush=True)
        wanted = IndexOptions(tokens="4bit", encoder=options.encoder, chunking=Chunking("sentences"))
        index_documents(path, [options.data / name], wanted, settings=settings)
    return Collection(options.data / name, open_index(path), split)


def _judged(one: Collection, settings: Settings, most: int | None) -> tuple[list[MinedGroup], dict[str, str]]:
    """Groups of the judged queries of a collection, with their texts."""
    qrels = read_qrels(one.folder, split=one.split)
    queries = [query for query in read_queries(one.folder) if qrels.get(query.id)][:most]
    legs, _ = legs_of_index(one.index.path, queries, pipeline=None, depth=_DEPTH, settings=settings)
    groups = mine(queries, qrels, legs, options=MiningOptions(2 * _NEGATIVES, _DEPTH)).groups
    ids = list(dict.fromkeys(document.id for group in groups for document in group.documents))
    return groups, {document.id: document.full_text for document in one.index.get(ids)}


def _trained(options: argparse.Namespace, step: _Step, dev: HeldGroups, settings: Settings) -> Path:
    out: Path = options.out / step.name
    if (out / "config.json").is_file():
        print(f"{out}: it is there", flush=True)
        return out
    training = read_settings(CrossSettings, None, [f"device={options.device}", "dev_steps=500", *step.settings])
    print(f"{step.name}: {len(step.data)} groups, measured on {len(dev)} of {options.left_out}", flush=True)
    progress = train(
        step.source, out, settings=training, data=step.data, dev=dev, threads=settings.threads,
        resume=(out / STATE_FOLDER).exists(), say=print,
    )  # fmt: skip
    print(f"{step.name}: {progress}", flush=True)
    return out


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--left-out", default="scifact", help="collection that is measured on")
    parser.add_argument("--judged", nargs="+", default=list(JUDGED), metavar="NAME/SPLIT")
    parser.add_argument("--documents", type=int, default=20_000, help="of each collection, to make queries of")
    parser.add_argument("--queries", type=int, default=400, help="most queries of the collection left out")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="what it starts as")
    parser.add_argument("--encoder", default="", help="of the indexes; default: the bundled one")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
