"""What a person sees: a table on a terminal, plain lines in a pipe, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Run, environment, on_terminal, spawned, write_lines
from tiercel.screen import shown

ESCAPE = "\x1b"
HOSTILE = [
    {"id": "a\nb", "text": "river one"},
    {"id": "tab\tid", "title": "\x1b[31mred\x1b[0m", "text": "river \x07\x9b31m two"},
    {"id": "[bold]x[/]", "title": "[red]markup[/red] [/]", "text": "river [link=http://x]three[/link]"},
]
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def index(place: Path, run: Run) -> str:
    write_lines(place / "c.jsonl", *HOSTILE)
    assert run("index", "idx", "c.jsonl", "--encoder", "none").code == 0
    return "idx"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain ünïcode 東京", "plain ünïcode 東京"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31m\x07\x00", "\\x1b[31m\\x07\\x00"),
        ("\x7f\x9b1m", "\\x7f\\x9b1m"),
        ("x\u2028y\udcff", "x\\u2028y\\udcff"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_what_a_terminal_would_obey_is_written_as_an_escape(text: str, line: str) -> None:
    assert shown(text) == line


def test_a_pipe_gets_no_escape_codes_whatever_the_terminal_wishes(index: str) -> None:
    env = environment(FORCE_COLOR="1", TERM="xterm-256color", CLICOLOR_FORCE="1")
    for arguments in (["search", index, "river"], ["info", index], ["doctor"], ["search", index, "river", "--json"]):
        outcome = spawned(*arguments, env=env)
        assert outcome.code == 0, outcome
        assert ESCAPE not in outcome.out + outcome.err


def test_every_hit_is_one_line_of_whole_cells_in_a_pipe(index: str, run: Run) -> None:
    rows = run("search", index, "river").rows
    assert {tuple(row[2:]) for row in rows} == {
        ("a\\nb", "river one"),
        ("tab\\tid", "\\x1b[31mred\\x1b[0m"),
        ("[bold]x[/]", "[red]markup[/red] [/]"),
    }


def test_json_keeps_the_exact_strings_and_writes_no_control_character(index: str, run: Run) -> None:
    outcome = run("search", index, "river", "--json")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", outcome.out)
    hits = {hit["doc_id"]: hit for hit in json.loads(outcome.out)["hits"]}
    assert hits["tab\tid"]["title"] == "\x1b[31mred\x1b[0m"
    assert hits["tab\tid"]["text"] == "river \x07\x9b31m two"


def test_an_error_stays_on_one_line(place: Path, run: Run) -> None:
    outcome = run("search", "no\nsuch\x1b[31m", "river")
    assert outcome.err.startswith("tiercel: no\\nsuch\\x1b[31m: no such folder")
    assert outcome.err.count("\n") == 1


def test_a_terminal_gets_a_table_and_the_texts_literally(index: str) -> None:
    code, sent = on_terminal(["search", index, "river [bold]two[/] [/x]"])
    assert code == 0, sent
    assert _STYLE.search(sent)
    lines = [_STYLE.sub("", line).rstrip() for line in sent.splitlines()]
    assert lines[0] == "river [bold]two[/] [/x]"
    assert lines[1].split() == ["score", "id", "document"]
    cells = "\n".join(lines[2:])
    assert ESCAPE not in cells
    assert "\x07" not in cells
    assert "\x9b" not in cells
    for literal in ("[bold]x[/]", "[red]markup[/red] [/]", "[link=http://x]three[/link]", "\\x1b[31mred", "a\\nb"):
        assert literal in cells


def test_nothing_but_the_table_is_on_the_screen_after_a_search(index: str) -> None:
    _, sent = on_terminal(["search", index, "three"], NO_COLOR="1")
    assert "searching" not in sent
    assert [line.split()[:1] for line in _STYLE.sub("", sent).splitlines()] == [["three"], ["score"], ["1"], ["river"]]


def test_no_color_leaves_no_colour(index: str) -> None:
    _, sent = on_terminal(["search", index, "river"], NO_COLOR="1")
    colours = [code for codes in re.findall(r"\x1b\[([0-9;]*)m", sent) for code in codes.split(";")]
    assert [code for code in colours if code and int(code) >= 30] == []


def test_a_long_id_is_wrapped_and_not_cut(place: Path, run: Run) -> None:
    long_id = "x" * 150
    write_lines(place / "c.jsonl", {"id": long_id, "text": "river " * 40})
    run("index", "idx", "c.jsonl", "--encoder", "none")
    _, sent = on_terminal(["search", "idx", "river"], NO_COLOR="1")
    assert _STYLE.sub("", sent).count("x") == 150


def test_a_terminal_shows_tables_of_facts(index: str) -> None:
    code, sent = on_terminal(["info", index], NO_COLOR="1")
    assert code == 0
    assert "documents" in sent
    assert "none: BM25 only" in sent


def test_progress_is_shown_on_a_terminal_only(index: str, place: Path) -> None:
    code, sent = on_terminal(["index", "new", "c.jsonl", "--encoder", "none"])
    assert code == 0
    assert "indexing" in sent
    assert sent.splitlines()[-1].endswith("new: 3 documents. Ask with: tiercel search new 'your question'")
    assert "indexing" not in spawned("index", "other", "c.jsonl", "--encoder", "none").err
