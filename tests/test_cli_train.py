"""`tiercel train`, as a user gives it."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import Run, environment, write_lines
from tests.models.tiny import make_cross_encoder, make_encoder
from tests.training.made import limited_files
from tiercel.training.batches import Batch
from tiercel.training.uni_encoder import UniStudent

DOCUMENTS = {"d1": "the falcon hunts", "d2": "cold bread", "d3": "the bridge is far"}
SETTINGS = ["--set", "epochs=2", "--set", "batch_groups=1", "--set", "max_tokens=24"]


def made_document(name: str, score: float) -> dict[str, object]:
    return {"id": name, "leg": "bm25", "rank": 1, "scores": {"bm25": score}, "teacher": score * 2}


GROUPS = [
    {
        "query_id": "q1",
        "query": "falcon",
        "positives": [made_document("d1", 3)],
        "negatives": [made_document("d2", 1)],
    },
    {"query_id": "q2", "query": "far", "positives": [made_document("d3", 1)], "negatives": [made_document("d1", 2)]},
]


@pytest.fixture
def data(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("TIERCEL_THREADS", "1")
    write_lines(place / "docs.jsonl", *({"_id": name, "text": text} for name, text in DOCUMENTS.items()))
    write_lines(place / "groups.jsonl", *GROUPS)
    make_encoder(place / "encoder")
    return ["--groups", "groups.jsonl", "--corpus", "docs.jsonl", *SETTINGS]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FAMILIES = {
    "cross": ("cross-encoder", ["layers=1", "residual=bm25"]),
    "bi": ("encoder", ["distil=kl"]),
    "late": ("late-interaction", ["dimension=8", "distil=margin-mse", "frozen=false"]),
    "local": ("local-attention", ["dimension=8", "distil=margin-mse", "learning_rate=0.001"]),
    "distil": ("encoder", ["head=concat", "label=bce"]),
    "uni": ("uni-encoder", ["context_tokens=24"]),
}
TALK = {"context": ["who hunts", "the falcon", "how far"], "candidates": ["cold bread", "far", "falcon"], "label": 1}


def test_every_family_is_trained_with_a_dev_measure_and_exported(place: Path, run: Run, data: list[str]) -> None:
    make_cross_encoder(place / "cross-source")
    for family, (exported_as, chosen) in FAMILIES.items():
        source = "cross-source" if family == "cross" else "encoder"
        more = [f"--set={setting}" for setting in chosen]
        outcome = run("train", family, source, family, *data, *more, "--dev", "groups.jsonl")
        assert outcome.code == 0, outcome
        assert f"{family}: 4 steps; dev nDCG@10 " in outcome.err
        assert "pairs/s" in outcome.err
        assert not (place / family / "training").exists()
        exported = run("export", family, "--family", exported_as, "--precision", "fp32")
        assert exported.code == 0, exported


def test_rows_are_trained_on_by_uni_cross_and_bi(place: Path, run: Run, data: list[str]) -> None:
    write_lines(place / "rows.jsonl", TALK, TALK | {"context": ["far"], "label": 0})
    for family in ("uni", "cross", "bi"):
        shared = [*SETTINGS, "--set", "context_tokens=12", "--dev", "rows.jsonl"]
        outcome = run("train", family, "encoder", family, "--rows", "rows.jsonl", *shared)
        assert outcome.code == 0, outcome
        assert f"{family}: 4 steps; dev nDCG@10 " in outcome.err
    lines = [TALK, TALK | {"id": "other", "context": ["cold bread", "bread", "how far"]}]
    stdin = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    outcome = run("rerank", "-", "--model", "uni", "--precision", "fp32", stdin=stdin)
    assert outcome.code == 0, outcome
    first, second = (json.loads(line)["hits"] for line in outcome.out.splitlines())
    # They ask alike and differ in their history.
    assert {hit["doc_id"]: hit["score"] for hit in first} != {hit["doc_id"]: hit["score"] for hit in second}


def test_a_uni_encoder_that_was_stopped_is_resumed_to_the_same_model(
    place: Path, run: Run, data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(place / "rows.jsonl", *(TALK | {"id": f"{number}"} for number in range(4)))
    shared = [*SETTINGS, *(f"--set={text}" for text in ("context_tokens=24", "checkpoint_minutes=0.0"))]
    arguments = ["--rows", "rows.jsonl", *shared]
    assert run("train", "uni", "encoder", "whole", *arguments).code == 0
    steps, loss = itertools.count(1), UniStudent.loss

    def stopped(student: UniStudent, batch: Batch) -> object:
        if next(steps) == 6:
            raise KeyboardInterrupt
        return loss(student, batch)

    with monkeypatch.context() as patch:
        patch.setattr(UniStudent, "loss", stopped)
        assert run("train", "uni", "encoder", "parts", *arguments).code != 0
    outcome = run("train", "uni", "encoder", "parts", *arguments, "--resume")
    assert outcome.code == 0, outcome
    assert "going on at step 4 of 8" in outcome.err
    assert files_of(place / "parts") == files_of(place / "whole")


def test_rows_and_groups_are_not_mixed(place: Path, refused: Callable[..., str], data: list[str]) -> None:
    write_lines(place / "rows.jsonl", TALK | {"label": 3})
    for code, arguments, message in (
        (2, [*data, "--rows", "rows.jsonl"], "groups and rows were given; expected one of them"),
        (2, SETTINGS, "neither groups nor rows were given; expected one of them"),
        (2, ["--groups", "groups.jsonl"], "groups without a corpus; expected --corpus FILE"),
        (2, ["--rows", "rows.jsonl", "--corpus", "docs.jsonl"], "a corpus with --rows"),
        (3, ["--rows", "rows.jsonl"], "rows.jsonl:1: the number 3 as 'label'; expected the position of the right one"),
    ):
        assert message in refused(code, "train", "uni", "encoder", "out", *arguments)
    write_lines(place / "rows.jsonl", TALK)
    message = refused(2, "train", "bi", "encoder", "out", "--rows", "rows.jsonl", *SETTINGS)
    assert "context_tokens = 128 with max_tokens = 24 and a query that has a history; expected at most half" in message
    message = refused(5, "train", "uni", "encoder", "out", "--rows", "rows.jsonl", *SETTINGS)
    assert "windows of 256 and 24 tokens; expected at most 64 together" in message


def test_a_head_over_two_vectors_reranks_by_the_vectors_of_an_index(place: Path, run: Run, data: list[str]) -> None:
    assert run("train", "distil", "encoder", "dse", *data, "--set", "head=concat").code == 0
    assert run("index", "docs.tiercel", "docs.jsonl", "--encoder", "dse", "--precision", "fp32").code == 0
    of_index = run("search", "docs.tiercel", "who hunts", "-p", "bm25+dense,pair", "--json")
    assert of_index.code == 0, of_index
    (place / "encoder" / "README.md").write_text("another\n")
    assert run("index", "other.tiercel", "docs.jsonl", "--encoder", "encoder", "--precision", "fp32").code == 0
    made = run("search", "other.tiercel", "who hunts", "-p", "bm25+dense,pair:dse", "--json")
    assert "the index's vectors are another encoder's" in made.err
    scores = [[hit["score"] for hit in outcome.json["hits"]] for outcome in (of_index, made)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    without = run("search", "other.tiercel", "who hunts", "-p", "bm25+dense,pair")
    assert without.code == 5
    assert "no pair_head.npz; expected an encoder with a head over two vectors" in without.err


def test_settings_of_a_file_and_the_same_seed_give_the_same_model(place: Path, run: Run, data: list[str]) -> None:
    (place / "recipe.toml").write_text('label = "none"\ndistil = "kl"\nseed = 1\nnegatives = 3\n')
    for out, more in {"first": [], "again": [], "other": ["--set", "seed=2"]}.items():
        outcome = run("train", "cross", "encoder", out, *data, "--config", "recipe.toml", *more)
        assert outcome.code == 0, outcome
    first, again, other = (files_of(place / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["model.safetensors"] != other["model.safetensors"]


def test_a_full_disk_stops_it_and_resuming_gives_the_model_that_would_have_been(
    place: Path, run: Run, refused: Callable[..., str], data: list[str]
) -> None:
    arguments = [*data, "--set", "checkpoint_minutes=0.0"]
    assert run("train", "bi", "encoder", "whole", *arguments).code == 0
    size = (place / "whole" / "model.safetensors").stat().st_size
    for room, message in {size // 2: "train again", 2 * size: "go on with --resume"}.items():
        with limited_files(room):
            outcome = run("train", "bi", "encoder", "parts", *arguments)
        assert outcome.code == 5
        assert "cannot be written (File too large)" in outcome.err
        assert message in outcome.err
    assert "was begun with other settings: seed = 3 (was 0)" in refused(
        2, "train", "bi", "encoder", "parts", *arguments, "--set", "seed=3", "--resume"
    )
    make_encoder(place / "other", prompts=True)
    assert "model = " in refused(2, "train", "bi", "other", "parts", *arguments, "--resume")
    assert "an unfinished training is there" in refused(2, "train", "bi", "encoder", "parts", *arguments)
    outcome = run("train", "bi", "encoder", "parts", *arguments, "--resume")
    assert outcome.code == 0, outcome
    assert "going on at step 0 of 4" in outcome.err
    assert files_of(place / "parts") == files_of(place / "whole")


def test_a_killed_training_is_resumed_to_the_same_model(place: Path, run: Run, data: list[str]) -> None:
    arguments = [*data, *(f"--set={text}" for text in ("dimension=8", "checkpoint_minutes=0.0", "epochs=100"))]
    assert run("train", "late", "encoder", "whole", *arguments).code == 0
    command = [sys.executable, "-m", "tiercel.cli", "train", "late", "encoder", "parts", *arguments]
    state = place / "parts" / "training" / "state.safetensors"
    times = set[int]()
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
        while process.poll() is None and len(times) < 5:
            with contextlib.suppress(FileNotFoundError):
                times.add(state.stat().st_mtime_ns)
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    outcome = run("train", "late", "encoder", "parts", *arguments, "--resume")
    assert outcome.code == 0, outcome
    assert "going on at step " in outcome.err
    assert files_of(place / "parts") == files_of(place / "whole")


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_a_checkpoint(
    place: Path, run: Run, data: list[str]
) -> None:
    outcome = run("train", "bi", "encoder", "out", *data, "--set", "learning_rate=1e30", "--set", "warmup=0")
    assert outcome.code == 5
    assert "the loss is nan at step 2 of 4, in the batch of the queries q" in outcome.err
    assert "(groups.jsonl:" in outcome.err
    assert [path.name for path in (place / "out" / "training").iterdir()] == ["state.safetensors"]


def group(**changes: object) -> dict[str, object]:
    return GROUPS[0] | changes


UNKNOWN = group(negatives=[made_document("d9", 1)])
EMPTY = group(positives=[], negatives=[])
ONE_SIDED = group(negatives=[made_document("d2", 1), made_document("d3", 1)], positives=[])
EQUAL = group(positives=[made_document("d1", 2)], negatives=[made_document("d2", 2)])
KL = ["--set", "distil=kl"]


@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        (UNKNOWN, [], "the document id 'd9' of query 'q1' is not in the corpus"),
        (EMPTY, [], "no documents for query 'q1'; expected at least two"),
        (ONE_SIDED, [], "no positives for query 'q1'; expected at least one positive and one negative"),
        (EQUAL, KL, "all 2 scores of 'teacher' for query 'q1' are 4"),
        (group(), [*KL, "--set", "teacher=dense"], "no score of 'dense' for document 'd1'"),
    ],
)
def test_a_bad_group_is_refused_by_its_line(
    place: Path, refused: Callable[..., str], data: list[str], line: object, arguments: list[str], message: str
) -> None:
    write_lines(place / "bad.jsonl", *GROUPS, line)
    words = refused(3, "train", "bi", "encoder", "out", *data, "--groups", "bad.jsonl", *arguments)
    assert words.startswith("tiercel: bad.jsonl:3: ") or "teacher=dense" in arguments
    assert message in words
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["--set", "epoch=1"], "the setting 'epoch' is not known; expected 'epochs'?"),
        (2, ["--corpus", "a", "--corpus", "b"], "3 corpora for 1 files of groups"),
        (2, ["--set", "patience=2"], "patience = 2 without dev groups"),
        (3, ["--config", "none.toml"], "none.toml: it cannot be read"),
        (5, ["--resume"], "no checkpoint to go on from"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    refused: Callable[..., str], data: list[str], code: int, arguments: list[str], message: str
) -> None:
    assert message in refused(code, "train", "bi", "encoder", "out", *data, *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(refused: Callable[..., str], data: list[str]) -> None:
    assert "torch finds no GPU" in refused(5, "train", "bi", "encoder", "out", *data, "--set", "device=cuda")


def test_a_folder_that_holds_something_is_left_alone(place: Path, refused: Callable[..., str], data: list[str]) -> None:
    assert "encoder: it is not empty" in refused(2, "train", "bi", "encoder", "encoder", *data)
