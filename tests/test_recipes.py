"""The recipe of the cross-encoder from end to end, on collections and weights that are tiny."""

from __future__ import annotations

import json
import random
from pathlib import Path
from string import ascii_lowercase

from tests.conftest import Outcome, python, write_lines
from tests.models.tiny import make_encoder
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
from tiercel.types import DocId, Document, Query, QueryId

RECIPE = Path(__file__).parents[1] / "recipes" / "cross_encoder.py"
WORDS = "falcon hunts river house bread winter summer cold deep bridge small far north tower".split()


def make_collection(folder: Path, seed: int) -> None:
    """50 documents of seven words under a title of three, and a query for each of the first twenty."""
    chance = random.Random(seed)
    documents = [
        {"_id": f"d{n}", "title": " ".join(chance.sample(WORDS, 3)), "text": " ".join(chance.sample(WORDS, 7))}
        for n in range(50)
    ]
    folder.mkdir()
    (folder / "qrels").mkdir()
    write_lines(folder / "corpus.jsonl", *documents)
    write_lines(folder / "queries.jsonl", *({"_id": f"q{n}", "text": documents[n]["title"]} for n in range(20)))
    rows = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(20))]
    (folder / "qrels" / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_a_cross_encoder_learns_what_the_stages_know_and_labels_and_is_exported(tmp_path: Path) -> None:
    for seed, name in enumerate(["one", "two"]):
        make_collection(tmp_path / name, seed)
    encoder, out = str(make_encoder(tmp_path / "encoder")), tmp_path / "out"
    command = [
        str(RECIPE), str(tmp_path), str(out), "--judged", "one/train", "--left-out", "two/train", "--known-items", "20",
        "--model", encoder, "--encoder", encoder, "--layers", "1", "--vocabulary", "70", "--set", "max_tokens=24",
    ]  # fmt: skip

    said = python(*command, seconds=300).out

    assert "teacher: " in said
    assert "measured on 20 of two/train" in said
    config = json.loads((out / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert (config["num_hidden_layers"], config["vocab_size"]) == (1, 70)
    words = (out / "begin" / "vocab.txt").read_text(encoding="utf-8").split()
    assert "the" in words
    assert "tower" not in words
    assert set(ascii_lowercase) < set(words)
    documents = [Document(DocId(text), text) for text in ("falcon hunts", "bread")]
    ((first, second),) = OnnxCrossEncoder(out / "tiercel-cross").score(
        [CandidateGroup(Query(QueryId("q"), "falcon"), documents)]
    )
    assert first != second
    (out / "tiercel-cross" / "tiercel.json").rename(out / "kept.json")
    (out / "tiercel-cross").rename(out / "other")

    again = python(*command, seconds=300)  # goes on with what is there

    assert (again.code, again.out.count("\n")) == (0, 1)
    assert (out / "tiercel-cross" / "tiercel.json").read_bytes() == (out / "kept.json").read_bytes()
    assert python(*command) == Outcome(0, "", "")
