"""The recipe of the cross-encoder from end to end, on collections and weights that are tiny."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.conftest import python, write_lines
from tests.models.tiny import make_encoder

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


def test_a_cross_encoder_imitates_and_then_corrects_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for seed, name in enumerate(["one", "two"]):
        make_collection(tmp_path / name, seed)
    encoder, out = str(make_encoder(tmp_path / "encoder")), tmp_path / "out"
    command = [
        str(RECIPE), str(tmp_path), str(out), "--judged", "one/train", "two/train", "--left-out", "two",
        "--documents", "20", "--model", encoder, "--encoder", encoder, "--device", "cpu", "--set", "max_tokens=24",
    ]  # fmt: skip

    said = python(*command).out

    assert "imitation: " in said
    assert "measured on 20 of two" in said
    assert "correction: " in said
    config = json.loads((out / "correction" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert python(*command).out.count("it is there") == 2
