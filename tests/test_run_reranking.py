from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import REPOSITORY, environment, write_lines
from tests.index.made import add_documents, build_index, delete_documents, settings_of
from tests.rerank_kills import HITS, QUERIES, Checksums, made_run
from tiercel.data.records import FieldNames
from tiercel.data.runs import RunFormat, read_run
from tiercel.errors import InputError, ModelError, UsageError
from tiercel.protocols import CandidateGroup
from tiercel.run_reranking import CandidateRun, Listener, RunSources, RunTarget, open_run, write_reranked
from tiercel.types import DocId, Document

ASKED = {"model": Checksums.fingerprint}
TEXTS = {"a": "the falcon hunts", "b": "bread is sold", "c": "cold river"}


class Stopping(Checksums):
    """Stops after so many calls."""

    def __init__(self, calls: int, error: BaseException) -> None:
        self.sizes: list[int] = []
        self._calls = calls
        self._error = error

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        if len(self.sizes) == self._calls:
            raise self._error
        self.sizes.append(len(groups))
        return super().score(groups)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSources:
    """Two queries over three documents."""
    monkeypatch.chdir(tmp_path)
    Path("r.trec").write_text("q2 Q0 b 1 3 x\nq2 Q0 a 2 2 x\nq2 Q0 z 3 1 x\nq1 Q0 c 1 1 x\nq1 Q0 a 2 0 x\n")
    Path("q.tsv").write_text("q1\tfalcon\nq2\triver\nq3\tnot in the run\n")
    write_lines(Path("c.jsonl"), *({"id": key, "text": text, "year": 2021} for key, text in TEXTS.items()))
    return RunSources("r.trec", "q.tsv", ("c.jsonl",))


def grouped(candidates: CandidateRun) -> list[tuple[str, list[tuple[str, str]]]]:
    groups = candidates.groups(range(len(candidates.rankings)))
    return [(group.query.text, [(document.id, document.text) for document in group.documents]) for group in groups]


GROUPS = [("river", [("b", TEXTS["b"]), ("a", TEXTS["a"])]), ("falcon", [("c", TEXTS["c"]), ("a", TEXTS["a"])])]


def test_a_run_is_opened_with_its_texts(sources: RunSources) -> None:
    candidates = open_run(sources)
    assert grouped(candidates) == GROUPS
    assert list(candidates.missing) == ["z"]


def test_an_index_gives_the_same_candidates(sources: RunSources) -> None:
    documents = [Document(DocId(key), text) for key, text in TEXTS.items()]
    build_index(Path("x"), [*documents, Document(DocId("z"), "gone")], settings_of())
    delete_documents(Path("x"), DocId("z"))
    of_index = RunSources("r.trec", "q.tsv", ("x",))
    candidates = open_run(of_index)
    assert grouped(candidates) == GROUPS
    assert list(candidates.missing) == ["z"]
    add_documents(Path("x"), [Document(DocId("new"), "text")])
    assert open_run(of_index).digests["corpus"] != candidates.digests["corpus"]
    with pytest.raises(UsageError, match="the index x among other sources of --corpus; expected an index alone"):
        open_run(RunSources("r.trec", "q.tsv", ("c.jsonl", "x")))
    with pytest.raises(UsageError, match="--format or a field of the documents with an index"):
        open_run(RunSources("r.trec", "q.tsv", ("x",), corpus_fields=FieldNames(id="key")))


def test_digests_tell_what_changed(sources: RunSources) -> None:
    before = open_run(sources).digests
    assert open_run(sources).digests == before
    for name, old, new, changed in (
        ("r.trec", "q1 Q0 c 1 1 x\n", "", "run"),
        ("q.tsv", "falcon", "falcons", "queries"),
        ("c.jsonl", "sold", "bought", "corpus"),
        ("q.tsv", "not in", "no part of", ""),
        ("c.jsonl", "2021", "2022", ""),
    ):
        text = Path(name).read_text()
        Path(name).write_text(text.replace(old, new))
        now = open_run(sources).digests
        # A document that the run no longer names counts no more.
        assert {key for key in now if now[key] != before[key]} == {
            changed,
            *(["corpus"] if changed == "run" else []),
        } - {""}
        Path(name).write_text(text)


def test_a_run_without_rankings_is_refused(sources: RunSources) -> None:
    Path("r.trec").write_text("")
    with pytest.raises(InputError, match=r"r\.trec: there is no ranking in it; expected at least one"):
        open_run(sources)


def test_batches_are_bounded_in_queries_and_pairs() -> None:
    assert [len(places) for places in made_run().batches()] == [32] * 12 + [16]
    assert [place for places in made_run().batches() for place in places] == list(range(QUERIES))


@pytest.mark.parametrize("form", ["trec", "msmarco", "jsonl"])
def test_a_stopped_run_is_gone_on_with(tmp_path: Path, form: RunFormat) -> None:
    candidates = made_run()
    whole, target = (RunTarget(str(tmp_path / name), keep=5, format=form) for name in ("whole", "out"))
    write_reranked(Checksums(), candidates, whole, asked=ASKED)
    said: list[str] = []
    told: list[tuple[int, str]] = []
    listener = Listener(said.append, lambda done, pace: told.append((done, pace)))
    sizes = []
    for error in (KeyboardInterrupt(), ModelError("broken")):
        stopping = Stopping(3, error)
        with pytest.raises(type(error)):
            write_reranked(stopping, candidates, target, asked=ASKED, listener=listener)
        sizes += stopping.sizes
        assert not (tmp_path / "out").exists()
    last = Stopping(99, AssertionError())
    write_reranked(last, candidates, target, asked=ASKED, listener=listener)
    assert sizes + last.sizes == [32] * 12 + [16]  # nothing is scored twice, and in the batches of a whole run
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    name = tmp_path / "out.partial"
    goes_on = "the same command goes on from there"
    assert said == [
        f"96 of 400 queries are kept in {name}; {goes_on}",
        f"96 of 400 queries were done before; {name} has them",
        f"192 of 400 queries are kept in {name}; {goes_on}",
        f"192 of 400 queries were done before; {name} has them",
    ]
    assert [done for done, _ in told] == [0, 32, 64, 96, 96, 128, 160, 192, 192, 224, 256, 288, 320, 352, 384, 400]
    assert told[-1][1].endswith(" pairs/s, 0:00:00 left")


def test_nothing_is_said_of_a_run_that_stops_before_anything_is_done(tmp_path: Path) -> None:
    said: list[str] = []
    stopping = Stopping(0, ModelError("broken"))
    with pytest.raises(ModelError):
        write_reranked(
            stopping,
            made_run(),
            RunTarget(str(tmp_path / "o.trec"), keep=5),
            asked=ASKED,
            listener=Listener(said.append),
        )
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_and_restart_begins_anew(tmp_path: Path) -> None:
    candidates = made_run()
    path = str(tmp_path / "o.trec")
    with pytest.raises(KeyboardInterrupt):
        write_reranked(Stopping(3, KeyboardInterrupt()), candidates, RunTarget(path, keep=5), asked=ASKED)
    with pytest.raises(InputError, match=r"it was begun with model checksums, -k 5; expected model other, -k 4\. Give"):
        write_reranked(Checksums(), candidates, RunTarget(path, keep=4), asked={"model": "other"})
    last = Stopping(99, AssertionError())
    write_reranked(last, candidates, RunTarget(path, keep=4, restart=True), asked=ASKED)
    assert sum(last.sizes) == QUERIES
    assert {len(ranking.hits) for ranking in read_run(path)} == {4}


def test_retrieval_scores_are_kept_apart(tmp_path: Path) -> None:
    candidates = made_run()
    write_reranked(Checksums(), candidates, RunTarget(str(tmp_path / "o.jsonl"), keep=HITS), asked=ASKED)
    hits = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[1])["hits"]
    before = {hit.doc_id: hit.score for hit in candidates.rankings[1].hits}
    assert {hit["doc_id"]: hit["retrieval_score"] for hit in hits} == before
    assert all(hit["score"] != hit["retrieval_score"] for hit in hits)


def test_a_device_gets_the_run_and_nothing_lies_beside_it(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write_reranked(Checksums(), made_run(), RunTarget("/dev/null", keep=5, format="trec"), asked=ASKED)
    assert not Path("/dev/null.partial").exists()
    write_reranked(Checksums(), made_run(), RunTarget("-", keep=1), asked=ASKED)
    assert capsysbinary.readouterr().out.startswith(b"q1 Q0 ")


def test_a_target_is_checked_before_the_work(tmp_path: Path) -> None:
    for path, error, part in (
        (tmp_path, InputError, "this is a folder"),
        (tmp_path / "no" / "o.trec", InputError, "its folder does not exist"),
        (tmp_path / "o.bin", UsageError, "Say which with --out-format"),
    ):
        with pytest.raises(error, match=part):
            RunTarget(str(path), keep=5).check()


def test_a_process_that_is_killed_costs_no_byte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rerank_kills", str(tmp_path), "5"],
        cwd=REPOSITORY, env=environment(), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    killed, resumed = map(int, done.stdout.split())
    assert killed > 5
    assert resumed > 3
