"""Readers search while a writer changes the index: each answers as its commit does, whatever is written meanwhile."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.index.made import (
    HashedWords,
    add_documents,
    asked,
    build_index,
    compact_index,
    delete_documents,
    indexed,
    named,
    settings_of,
    zipf_texts,
)
from tiercel.index.dense import DenseRetriever
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.store import Index

ROOT = Path(__file__).resolve().parents[2]
ENCODER = HashedWords(8)
READERS = 4
SECONDS = float(os.environ.get("TIERCEL_TEST_SECONDS", "8"))
QUERIES = asked(*zipf_texts(20, words=60, seed=7, longest=3))

READ = """
import sys, time
from pathlib import Path
from tests.index.test_readers import read
read(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
"""


def answers(index: Index) -> list[list[tuple[str, float]]]:
    """What both legs answer, and the texts of the hits."""
    lexical = LexicalRetriever(index.views, index.analyzer).retrieve(QUERIES, keep=5)
    dense = DenseRetriever(index.views, ENCODER).retrieve(QUERIES, keep=5)
    rankings = [*lexical, *dense]
    return [[(hit.doc_id, hit.score) for hit in ranking.hits] for ranking in rankings]


def read(path: Path, seconds: float, out: Path) -> None:
    """Search until the time is up, now and then moving on; write down what each commit answered."""
    drawn = random.Random(str(out))
    index = Index(path)
    found: dict[int, list[list[tuple[str, float]]]] = {}
    rounds = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answered = answers(index)
        assert found.setdefault(index.manifest.commit, answered) == answered, index.manifest.commit
        index.get([hit[0] for ranking in answered[:3] for hit in ranking])  # type: ignore[misc]
        rounds += 1
        if drawn.random() < 0.3:
            index.refresh()
        elif drawn.random() < 0.2:
            index = Index(path)
    out.write_text(json.dumps({"rounds": rounds, "found": found}))


def test_readers_answer_as_their_commit_while_a_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x"
    drawn = random.Random(3)
    texts = zipf_texts(3000, words=60, seed=8)
    held = {document.id: document for document in named(texts[:200])}
    indexed(path, held.values(), encoder=ENCODER)
    states = {1: list(held.values())}
    outs = [tmp_path / f"{number}.json" for number in range(READERS)]
    readers = [
        subprocess.Popen([sys.executable, "-c", READ, path, str(SECONDS), out], cwd=ROOT, stderr=subprocess.PIPE)
        for out in outs
    ]
    while any(reader.poll() is None for reader in readers):
        before = Index(path).manifest.commit
        change = drawn.choice(["add", "add", "delete", "compact"])
        if change == "add":
            changed = named(drawn.sample(texts, 20), shape=f"n{before}-{{}}")
            changed += drawn.sample(list(held.values()), 5)
            add_documents(path, changed, encoder=ENCODER)
            held.update((document.id, document) for document in changed)
        elif change == "delete":
            gone = drawn.sample(sorted(held), min(15, len(held) - 50))
            delete_documents(path, *gone)
            for doc_id in gone:
                del held[doc_id]
        else:
            compact_index(path)
        for commit in range(before + 1, Index(path).manifest.commit + 1):
            states[commit] = list(held.values())  # merges change no answer
    rounds = 0
    for reader, out in zip(readers, outs, strict=True):
        _, error = reader.communicate()
        assert reader.returncode == 0, error.decode()
        told = json.loads(out.read_text())
        rounds += told["rounds"]
        for commit, found in told["found"].items():
            build_index(tmp_path / "static", states[int(commit)], settings_of(encoder=ENCODER), encoder=ENCODER)
            expected = json.loads(json.dumps(answers(Index(tmp_path / "static"))))
            assert found == expected, commit
    assert rounds > 20
    assert len(states) > 5
    Index(path).verify()
    compact_index(path)
    assert len(list((path / "segments").iterdir())) == 1  # all readers are gone, and so is what they held
