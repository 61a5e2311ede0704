"""Why a document is where it is, from the shell: tables, JSON, a page, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.html.browser import opened

Refused = Callable[..., str]

DOCUMENTS = [
    {"id": "a", "title": "Falcons", "text": "the falcon hunts in winter", "year": 1999},
    {"id": "b", "text": "bread <script>alert(1)</script> is sold by the river", "year": 2001},
    {"id": "c", "text": "the falcon and the river, a cold river", "year": 1999},
]


@pytest.fixture
def index(place: Path, run: Run) -> str:
    write_lines(place / "c.jsonl", *DOCUMENTS)
    (place / "q.tsv").write_text("q1\tfalcon river\nq2\twinter\n")
    assert run("index", "idx", "c.jsonl", "--encoder", "none").code == 0
    return "idx"


def test_every_stage_and_its_parts_in_a_table(index: str, run: Run) -> None:
    outcome = run("explain", index, "falcon river", "a", "-k", "1")
    assert outcome.code == 0, outcome
    assert outcome.rows[0] == ["# a Falcons the falcon hunts in winter"]
    stages = dict(zip(outcome.rows[1], outcome.rows[2], strict=True))
    assert (stages["stage"], stages["kept"], stages["last kept"], stages["verdict"]) == ("bm25", "1", "c", "dropped")
    terms = {row[0]: row for row in outcome.rows[5:]}
    assert terms["falcon"][1:4] == ["1", "2", "2"]
    assert float(terms["falcon"][-1]) + float(terms["river"][-1]) == pytest.approx(float(terms["sum"][-1]), abs=2e-6)
    assert float(stages["score"]) == pytest.approx(float(terms["sum"][-1]), abs=1e-4)
    assert outcome.err.startswith("tiercel: a: Dropped by bm25: rank 2 where 1 are kept")


def test_as_json_the_parts_add_up(index: str, run: Run) -> None:
    found = run("explain", index, "falcon river", "c", "b", "--json").json
    assert (found["query"], found["pipeline"]) == ("falcon river", "bm25")
    first, second = found["documents"]
    assert (first["doc_id"], first["rank"], first["dropped_by"], second["doc_id"]) == ("c", 1, None, "b")
    (stage,) = first["stages"]
    hits = run("search", index, "falcon river", "--json").json["hits"]
    assert stage["score"] == hits[0]["score"]
    assert sum(term["part"] for term in stage["parts"]["terms"]) == pytest.approx(stage["score"], abs=1e-5)
    assert stage["parts"]["kind"] == "terms"
    assert stage["parts"]["marks"][0].keys() == {"start", "end", "weight"}
    assert stage["last"] == {"doc_id": "b", "score": hits[-1]["score"]}


def test_a_query_of_a_file_by_its_id(index: str, run: Run) -> None:
    found = run("explain", index, "q2", "a", "--queries", "q.tsv", "--json").json
    assert (found["query"], found["documents"][0]["rank"]) == ("winter", 1)


def test_a_filter_and_parameters_are_those_of_the_search(index: str, run: Run) -> None:
    common = ("--where", "year = 1999", "--k1", "2", "--variant", "bm25+", "--json")
    found = run("explain", index, "falcon river", "a", "b", *common).json["documents"]
    hits = run("search", index, "falcon river", *common).json["hits"]
    assert [(hit["doc_id"], hit["score"]) for hit in hits][1] == ("a", found[0]["stages"][0]["score"])
    assert (found[0]["rank"], found[0]["eligible"], found[1]["rank"], found[1]["eligible"]) == (2, True, None, False)
    assert found[1]["verdict"] == "The filter does not select it, so no stage can find it."


def test_a_page_with_coloured_text(index: str, run: Run, place: Path) -> None:
    outcome = run("explain", index, "falcon <b>river</b>", "a", "b", "--html", "page.html")
    assert outcome.code == 0, outcome
    document = opened(place / "page.html")
    assert document.count("<h2>") == 2
    assert document.count("<mark") == 3
    assert "<script" not in document
    assert "&lt;script&gt;" in document
    assert "Why here? falcon &lt;b&gt;river&lt;/b&gt;" in document


def test_a_terminal_obeys_no_id_and_no_term(place: Path, run: Run) -> None:
    write_lines(place / "c.jsonl", {"id": "a\n\x1b[31m", "text": "owl \x1b[31m\nowl"})
    assert run("index", "idx", "c.jsonl", "--encoder", "none").code == 0
    outcome = run("explain", "idx", "owl \x1b[31m", "a\n\x1b[31m", "--html", "page.html")
    assert outcome.code == 0, outcome
    assert "\x1b" not in outcome.out + outcome.err + (place / "page.html").read_text()
    assert outcome.rows[0] == ["# a\\n\\x1b[31m owl \\x1b[31m owl"]


def test_a_page_on_stdout_is_all_there_is(index: str, run: Run) -> None:
    outcome = run("explain", index, "falcon", "a", "--html", "-")
    assert outcome.out.startswith("<!doctype html>")
    assert outcome.out.endswith("</html>\n")


@pytest.mark.parametrize(
    ("code", "arguments", "parts"),
    [
        (2, ["falcon", "z"], ["no document has the id 'z'; expected an id of the index, such as 'a'"]),
        (2, ["falcon \udcff", "a"], ["a query that is not UTF-8"]),
        (2, ["falcon", "a\udcff"], ["the id of a document that is not UTF-8"]),
        (2, ["falcon", "a", "b", "a"], ["the document 'a' twice; expected each id once"]),
        (2, ["q3", "a", "--queries", "q.tsv"], ["q.tsv: no query has the id 'q3'; expected one of 2 ids, such as 'q"]),
        (4, ["falcon", "a", "-p", "bm25+dense"], ["the index has no vectors"]),
        (4, ["falcon", "a", "-p", "bm25,late"], ["the index has no token vectors"]),
        (2, ["falcon", "a", "-p", "bm25,crossed:x"], ["no rerank stage called 'crossed'"]),
        (2, ["falcon", "a", "--where", "size = 1"], ["'size'"]),
        (2, ["falcon", "a", "--html", "-", "--json"], ["--json and --html -"]),
        (2, ["falcon", "a", "--long", "max"], ["--long without a stage that heeds it"]),
        (3, ["falcon", "a", "--html", "nowhere/page.html"], ["nowhere"]),
    ],
)
def test_what_cannot_be_explained(
    code: int, arguments: list[str], parts: list[str], index: str, refused: Refused
) -> None:
    message = refused(code, "explain", index, *arguments)
    assert [part for part in parts if part not in message] == []
