"""Adaptation without labels, through real sentence-transformers with tiny random weights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import tiercel
from tests.conftest import Run, python, without_packages
from tests.models.tiny import make_encoder
from tiercel.adapting import AdaptOptions, HeldGroups, KnownItemGroups, adapt, known_item_groups, left_of
from tiercel.app import open_index
from tiercel.config import Settings
from tiercel.errors import UsageError
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.settings import AdaptSettings
from tiercel.types import DocId, Document, Query, QueryId

LEXICAL = tiercel.IndexOptions(encoder="none")
WORDS = "falcon hunts river house bread winter summer cold deep bridge small far north tower".split()


def planted(count: int) -> list[dict[str, Any]]:
    """A title is two letters; the text holds their partners, b for c and d for e, among words that tell nothing."""
    chance = random.Random(3)
    found = []
    for number in range(count):
        first, second = chance.choices("bcdefghj", k=2)
        partner = dict(zip("bcdefghj", "cbedgfjh", strict=True))
        words = [*chance.choices(WORDS, k=8), partner[first], partner[second]]
        chance.shuffle(words)
        found.append({"id": f"d{number:03}", "title": f"{first} {second}", "text": " ".join(words)})
    return found


@pytest.fixture
def index(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty planted documents, and a model to adapt."""
    monkeypatch.setenv("TIERCEL_THREADS", "1")
    make_encoder(place / "encoder")
    return tiercel.create(place / "docs.tiercel", planted(60), options=LEXICAL).path


def adapted(index: Path, out: str, say: list[str], **training: Any) -> Any:
    usual: dict[str, Any] = {"learning_rate": 5e-3, "max_tokens": 24, "precision": "fp32", "dev_steps": 20}
    settings = Settings.from_environment()
    return adapt(
        index,
        index.parent / out,
        model=str(index.parent / "encoder"),
        options=AdaptOptions(30, 20),
        training=AdaptSettings(**{**usual, **training}),
        settings=settings,
        say=say.append,
    )


def test_what_is_planted_is_learnt(index: Path) -> None:
    said: list[str] = []
    found = adapted(index, "out", said, epochs=20)
    start = float(next(line for line in said if line.startswith("step 0: dev")).split()[3].rstrip(","))
    assert found.progress.best_step > 0
    assert found.progress.best > start + 0.1
    assert min(found.trained_on, found.measured_on) >= 20
    assert (index.parent / "out" / "modules.json").is_file()


def test_the_same_seed_gives_the_same_groups_of_documents_apart(index: Path) -> None:
    settings, opened = Settings.from_environment(), open_index(index)

    def made(seed: int) -> KnownItemGroups:
        return known_item_groups(opened, AdaptOptions(30, 20, seed), negatives=6, settings=settings)

    data, dev, teacher = made(1)
    assert teacher == "bm25"
    again = made(1)
    assert (data.digests(), dev.digests()) == (again[0].digests(), again[1].digests())
    assert made(2)[0].digests() != data.digests()
    right = [
        {document.id for groups, _ in half.parts for group in groups for document in group.positives}
        for half in (data, dev)
    ]
    assert right[0].isdisjoint(right[1])


def test_where_nothing_gets_better_the_model_that_it_began_with_is_written(index: Path, run: Run) -> None:
    outcome = run(
        "adapt", str(index), "out", "--model", "encoder", "--documents", "20", "--held-out", "20",
        "--set", "learning_rate=1e-15", "--set", "max_tokens=24", "--set", "dev_steps=2", "--set", "precision=fp32",
    )  # fmt: skip
    assert outcome.code == 0, outcome
    assert "nothing was better than the model that it began with, which is what was written" in outcome.err
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in ("encoder", "out"))
    assert all((before[name] == after[name]).all() for name in before)


def test_what_a_query_was_taken_from_is_left_out() -> None:
    document = Document(DocId("d"), "the falcon hunts in winter. it swims", "Falcons")
    assert left_of(document, "title", "Falcons") == "the falcon hunts in winter. it swims"
    assert left_of(document, "title", "") == "the falcon hunts in winter. it swims"
    assert left_of(document, "snippet", "falcon hunts in winter").split() == "Falcons the . it swims".split()
    assert left_of(document, "snippet", "") == document.full_text
    assert left_of(document, "keywords", "falcon winter") == document.full_text


def test_digests_are_of_groups_and_texts() -> None:
    group = MinedGroup(Query(QueryId("q"), "x"), [MinedDocument(DocId("a"))], [MinedDocument(DocId("b"))])
    texts = {DocId("a"): "one", DocId("b"): "two"}
    whole = HeldGroups([([group], texts)])
    assert whole.digests() == HeldGroups([([group], dict(reversed(texts.items())))]).digests()
    assert whole.digests() != HeldGroups([([group], {**texts, DocId("b"): "three"})]).digests()
    assert len(whole) == 1


def test_collections_that_cannot_teach_are_refused(place: Path) -> None:
    make_encoder(place / "encoder")
    few = tiercel.create(place / "few", planted(30), options=LEXICAL).path
    settings, training = Settings.from_environment(), AdaptSettings()

    def refused(path: Path, **arguments: Any) -> str:
        usual = {"model": str(place / "encoder"), "options": AdaptOptions(), "training": training, "settings": settings}
        with pytest.raises(UsageError) as error:
            adapt(path, place / "out", **{**usual, **arguments})
        return str(error.value)

    assert "30 documents give queries; expected 40 at least" in refused(few)
    assert "the index has no encoder that could be adapted" in refused(few, model="")
    index = tiercel.open(few)
    index.delete([document["id"] for document in planted(30)])
    assert "the index holds no document" in refused(few)
    with pytest.raises(UsageError, match="held_out = 3; expected at least 20"):
        AdaptOptions(held_out=3)


def test_without_titles_that_is_said(index: Path, place: Path) -> None:
    untitled = [{"id": document["id"], "text": document["text"]} for document in planted(60)]
    path = tiercel.create(place / "untitled", untitled, options=LEXICAL).path
    said: list[str] = []
    found = adapted(path, "out", said, epochs=1)
    assert "no document has a title: queries are made of keywords and snippets alone" in said
    assert found.trained_on <= 60


def test_without_torch_it_says_what_to_install(tmp_path: Path) -> None:
    env = without_packages(tmp_path / "packages", "torch")
    outcome = python("-S", "-m", "tiercel.cli", "adapt", "docs", "out", env=env)
    assert outcome.code != 0
    assert "training needs the package torch" in outcome.err
    assert json.dumps("tiercel[torch]").strip('"') in outcome.err
