"""The commands that change an index, and what search makes of passages and filters, as a user gives them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines

Refused = Callable[..., str]

FALCONS = "The falcon hunts pigeons. It dives."
TIERCELS = "A tiercel is a male falcon. It is small."
BIRDS = [
    {"id": "a", "title": "Falcons", "text": FALCONS, "year": 2020, "tags": ["bird", "prey"]},
    {"id": "b", "title": "Tiercels", "text": TIERCELS, "year": 2021, "tags": ["bird"]},
    {"id": "c", "title": "Doves", "text": "Doves live in the city.", "year": 2019},
]


@pytest.fixture
def birds(place: Path) -> Path:
    return write_lines(place / "birds.jsonl", *BIRDS)


@pytest.fixture
def index(run: Run, birds: Path) -> str:
    outcome = run("index", "x", str(birds), "--encoder", "none")
    assert outcome.code == 0, outcome
    return "x"


def ids(run: Run, *arguments: str) -> list[str]:
    outcome = run("search", *arguments)
    assert outcome.code == 0, outcome
    return [row[2] for row in outcome.rows]


def test_index_adds_to_what_is_there_and_replaces_by_id(run: Run, index: str, place: Path) -> None:
    more = write_lines(place / "more.jsonl", {"id": "b", "text": "a hare"}, {"id": "d", "text": "a falcon"})
    outcome = run("index", index, str(more))
    assert outcome.err == (
        "tiercel: x: 4 documents, 1 of them new, 1 replaced. Ask with: tiercel search x 'your question'\n"
    )
    assert ids(run, index, "falcon") == ["a", "d"]  # a holds it twice, title included
    assert ids(run, index, "hare") == ["b"]
    assert run("verify", index).code == 0


def test_replace_builds_anew(run: Run, index: str, place: Path) -> None:
    more = write_lines(place / "more.jsonl", {"id": "d", "text": "ein Falke"})
    assert run("index", index, str(more), "--replace", "--encoder", "none", "--analyzer", "german").code == 0
    assert ids(run, index, "Falken") == ["d"]


@pytest.mark.parametrize(
    ("arguments", "found", "expected"),
    [
        (
            ["--analyzer", "none"],
            "analyzer none of fingerprint 81f29ed9b460d0af",
            "english of fingerprint a036a1b4efa070a4",
        ),
        (["--chunk", "tokens"], "--chunk tokens of at most 200 tokens, overlap 0", "none"),
        (["--encoder", "all-MiniLM-L6-v2"], "encoder all-MiniLM-L6-v2", "none: BM25 only"),
        (["--context", "none"], "--context none", "title"),
    ],
)
def test_other_settings_than_the_indexs_are_refused(
    refused: Refused, index: str, birds: Path, arguments: list[str], found: str, expected: str
) -> None:
    message = refused(4, "index", index, str(birds), *arguments)
    assert message.startswith(f"tiercel: x: {found}; expected {expected}, with which the index was made. Leave the")


def test_settings_that_are_the_indexs_are_fine(run: Run, index: str, birds: Path) -> None:
    assert run("index", index, str(birds), "--analyzer", "english", "--encoder", "none", "--context", "title").code == 0


def test_an_id_that_comes_twice_is_refused_unless_the_last_is_to_count(run: Run, refused: Refused, place: Path) -> None:
    twice = write_lines(place / "t.jsonl", *BIRDS, {"id": "a", "text": "a hare"})
    message = refused(3, "index", "x", str(twice), "--encoder", "none")
    assert message.startswith(f"tiercel: the id 'a' comes twice: {twice}:1 and {twice}:4; expected each document once.")
    assert run("index", "x", str(twice), "--encoder", "none", "--on-duplicate", "last").code == 0
    assert ids(run, "x", "hare falcon") == ["a", "b"]


def test_delete_by_ids(run: Run, index: str) -> None:
    outcome = run("delete", index, "--ids", "a", "b")
    assert (outcome.code, outcome.out) == (0, "2 deleted, 1 left\n")
    assert ids(run, index, "city") == ["c"]
    assert run("search", index, "falcon").out == ""


def test_delete_names_unknown_ids_and_does_the_rest(run: Run, index: str) -> None:
    outcome = run("delete", index, "--ids", "zz", "--ids", "a", "--json")
    assert (outcome.code, outcome.json) == (6, {"deleted": 1, "documents": 2, "unknown": ["zz"]})
    assert outcome.err == "tiercel: x: no document has the id 'zz'. The others were deleted.\n"


def test_delete_reads_ids_from_stdin(run: Run, index: str) -> None:
    outcome = run("delete", index, "-", stdin=b"c\n\na\n")
    assert (outcome.code, outcome.out) == (0, "2 deleted, 1 left\n")


def test_delete_by_metadata(run: Run, index: str) -> None:
    assert run("delete", index, "--where", "year < 2021 and tags contains 'prey'").out == "1 deleted, 2 left\n"
    assert run("delete", index, "--where", "year > 2050").out == "0 deleted, 2 left\n"


@pytest.mark.parametrize("arguments", [[], ["--ids", "a", "--where", "year > 1"]])
def test_delete_wants_one_thing(refused: Refused, index: str, arguments: list[str]) -> None:
    assert "expected one of: --ids ID..., --where EXPRESSION, or - for ids on stdin" in refused(
        2, "delete", index, *arguments
    )


@pytest.mark.parametrize("command", [["delete", "--ids", "a"], ["compact"]])
def test_what_is_no_index_cannot_be_changed(refused: Refused, place: Path, command: list[str]) -> None:
    assert refused(4, command[0], "nowhere", *command[1:]).startswith("tiercel: nowhere: no such folder.")
    assert not (place / "nowhere").exists()


def test_compact_drops_what_was_deleted(run: Run, index: str, birds: Path) -> None:
    run("index", index, str(write_lines(birds.with_name("more.jsonl"), {"id": "d", "text": "falcon"})))
    run("delete", index, "--ids", "a")
    segments = run("info", index, "--json").json["segments"]
    assert [(s["documents"], s["live_documents"], s["dead_documents"]) for s in segments] == [(3, 2, 1), (1, 1, 0)]
    before = ids(run, index, "falcon")
    outcome = run("compact", index)
    assert outcome.code == 0
    assert [row[1].split(";")[0] for row in outcome.rows if row[0].startswith("segment")] == ["3 documents"]
    assert ids(run, index, "falcon") == before == ["d", "b"]
    assert run("compact", index).err == "tiercel: it is compact already\n"


def test_a_filter_is_applied_before_the_best_are_chosen(run: Run, index: str) -> None:
    assert ids(run, index, "falcon", "-k", "1") == ["a"]
    assert ids(run, index, "falcon", "-k", "1", "--where", "year > 2020") == ["b"]
    assert ids(run, index, "falcon city", "--where", "tags is null") == ["c"]


def test_a_filter_that_cannot_be_read_is_pointed_at(refused: Refused, index: str) -> None:
    assert "character 13: found 'adn'" in refused(2, "search", index, "x", "--where", "year > 2020 adn a = 1")
    message = refused(2, "search", index, "x", "--where", "yaer > 2020")
    assert "there is no column 'yaer'; expected one of tags (list), year (number). Did you mean year?" in message


def test_metadata_that_contradicts_its_column_is_refused(refused: Refused, index: str, place: Path) -> None:
    more = write_lines(place / "more.jsonl", {"id": "d", "text": "x", "year": "soon"})
    message = refused(3, "index", index, str(more))
    assert message.startswith("tiercel: document 'd': the string 'soon' in the metadata column 'year'; expected a")


def test_types_of_csv_columns_are_declared(run: Run, place: Path) -> None:
    (place / "b.csv").write_text("id,text,year\na,falcon,2020\nb,falcon,9\n")
    assert run("index", "x", "b.csv", "--encoder", "none", "--column", "year=number").code == 0
    assert ids(run, "x", "falcon", "--where", "year > 10") == ["a"]
    assert run("info", "x", "--json").json["columns"] == {"year": "number"}


def test_types_of_columns_may_be_declared_when_adding(run: Run, refused: Refused, index: str, place: Path) -> None:
    (place / "more.csv").write_text("id,text,year,price\nd,falcon,2024,9.5\n")
    assert "With --column year=number strings are converted." in refused(3, "index", index, "more.csv")
    message = refused(2, "index", index, "more.csv", "--column", "year=date")
    assert message.startswith("tiercel: --column year=date; expected number, the column's type in this index.")
    assert run("index", index, "more.csv", "--column", "year=number", "--column", "price=number").code == 0
    assert ids(run, index, "falcon", "--where", "year > 2022 and price < 10") == ["d"]


def test_headings_are_context_only_where_they_are_found(refused: Refused, birds: Path) -> None:
    for chunk in ([], ["--chunk", "tokens"]):
        message = refused(2, "index", "z", str(birds), "--encoder", "none", "--context", "headings", *chunk)
        assert "expected --chunk headings, which finds them" in message


def test_why_nothing_is_found_is_told(run: Run, index: str) -> None:
    assert run("search", index, "falcon", "--where", "year > 3000").err == (
        "tiercel: no result for 'falcon': no document fits --where\n"
    )
    assert "no document that fits --where holds a term" in run("search", index, "falcon", "--where", "year < 2020").err
    run("delete", index, "--ids", "a", "b", "c")
    assert run("search", index, "falcon").err == "tiercel: no result for 'falcon': the index holds no document\n"


def test_what_is_not_utf8_is_refused_or_unknown(run: Run, refused: Refused, index: str, birds: Path) -> None:
    assert run("delete", index, "--ids", "\udcff", "a").code == 6
    assert "expected one that is UTF-8" in refused(2, "index", "x\udcff", str(birds), "--encoder", "none")


SLOW = """
import sys
from tiercel.cli import main
main(["index", sys.argv[1], "-", "--encoder", "none"])
"""


def test_an_index_that_is_made_meanwhile_is_not_replaced(run: Run, birds: Path, place: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SLOW, "new"], **pipes) as slow:  # type: ignore[call-overload]
        time.sleep(1.5)  # it waits for its first document
        assert run("index", "new", str(birds), "--encoder", "none").code == 0
        _, told = slow.communicate(b'{"id": "z", "text": "late"}\n')
        assert slow.returncode == 4
    assert told.decode().startswith("tiercel: new: an index has been made here meanwhile. Give the command again")
    assert ids(run, "new", "falcon") == ["a", "b"]


@pytest.fixture
def cut(run: Run, birds: Path) -> str:
    outcome = run("index", "y", str(birds), "--encoder", "none", "--chunk", "sentences", "--chunk-size", "7")
    assert outcome.code == 0, outcome
    return "y"


def test_documents_are_ranked_by_their_best_passage_and_show_it(run: Run, cut: str) -> None:
    (hits,) = [json.loads(line)["hits"] for line in run("search", cut, "dives falcon", "--json").out.splitlines()]
    assert [(hit["doc_id"], hit["span"], hit["text"]) for hit in hits] == [
        ("a", [26, 35], "It dives."),
        ("b", [0, 27], "A tiercel is a male falcon."),
    ]
    for hit in hits:
        (text,) = [bird["text"] for bird in BIRDS if bird["id"] == hit["doc_id"]]
        assert isinstance(text, str)
        assert text[slice(*hit["span"])] == hit["text"]


def test_passages_are_ranked_if_asked(run: Run, cut: str) -> None:
    outcome = run("search", cut, "falcon", "--passages", "--json")
    assert [(hit["doc_id"], hit["span"]) for hit in outcome.json["hits"]] == [
        ("a", [0, 25]), ("a", [26, 35]), ("b", [0, 27]),
    ]  # fmt: skip


def test_passages_are_refused_where_there_are_none(refused: Refused, index: str, cut: str) -> None:
    assert "whose documents are whole" in refused(2, "search", index, "falcon", "--passages")
    assert "a run ranks documents" in refused(2, "search", cut, "falcon", "--passages", "--run", "-")


def test_info_tells_of_passages_and_columns(run: Run, cut: str) -> None:
    facts = dict(row for row in run("info", cut).rows)
    assert facts["passages"].startswith("5: sentences of at most 7 tokens, overlap 0 (")
    assert facts["columns"] == "tags list, year number"


HOLD = """
import sys
from pathlib import Path
from tiercel.index.writer import IndexWriter
with IndexWriter(Path(sys.argv[1])):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_an_index_that_another_process_writes_is_refused(refused: Refused, index: str, birds: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, index], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == b"writing\n"
        for command in (["index", index, str(birds)], ["delete", index, "--ids", "a"], ["compact", index]):
            assert refused(4, *command).startswith("tiercel: x: another process is writing this index.")
        writer.kill()
