"""Sets that the real ir_datasets package serves from files of the test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import JsonlDocs, TrecQrels, TrecQueries, TsvQueries
from ir_datasets.util import LocalDownload

from tests.conftest import Run
from tiercel.data.corpus import locate_document, read_documents
from tiercel.data.irds import is_irds
from tiercel.data.qrels import read_qrels
from tiercel.data.queries import read_queries
from tiercel.data.records import FieldNames
from tiercel.errors import InputError, UsageError
from tiercel.types import Document, Query, QueryId

SET = "irds:falcons/test"
TREC = "<top>\n<num> Number: 7\n<title> cold river\n<desc> Description: what is cold\n<narr> Narrative: ice\n</top>\n"


class Abstract(NamedTuple):
    doc_id: str
    title: str
    abstract: str
    tags: list[str]

    def default_text(self) -> str:
        return f"{self.title}: {self.abstract}"


class Page(NamedTuple):
    doc_id: str
    title: str
    body: str
    year: int
    tags: list[str]
    raw: bytes = b"\0"

    def default_text(self) -> str:
        return "not asked for"


class Broken(NamedTuple):
    """Documents whose files are nowhere."""

    path: Path

    def docs_iter(self) -> Any:
        return iter(LocalDownload(self.path).path().read_text())

    def docs_handler(self) -> Any:
        return self


@pytest.fixture(scope="session", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("irds")
    pages = [
        {"doc_id": "a", "title": "Falcons", "body": "the falcon hunts", "year": 1998, "tags": ["bird", "prey"]},
        {"doc_id": "b", "title": "", "body": "a cold river", "year": 2004, "tags": []},
    ]
    (place / "pages.jsonl").write_text("".join(f"{json.dumps(page)}\n" for page in pages))
    abstract = {"doc_id": "x", "title": "Ice", "abstract": "is cold", "tags": []}
    (place / "abstracts.jsonl").write_text(f"{json.dumps(abstract)}\n")
    (place / "queries.tsv").write_text("q1\tfalcon\nq2\triver\n")
    (place / "topics.txt").write_text(TREC)
    (place / "qrels.txt").write_text("q1 0 a 1\nq2 0 b 2\nq2 0 a 0\n")
    mapping = {field: field for field in ("doc_id", "title", "body", "year", "tags")}
    pages_of_set = JsonlDocs(LocalDownload(place / "pages.jsonl"), Page, mapping)
    queries, qrels = TsvQueries(LocalDownload(place / "queries.tsv")), TrecQrels(LocalDownload(place / "qrels.txt"), {})
    ir_datasets.registry.register("falcons/test", Dataset(pages_of_set, queries, qrels))
    mapping = {field: field for field in Abstract._fields}
    abstracts = JsonlDocs(LocalDownload(place / "abstracts.jsonl"), Abstract, mapping)
    ir_datasets.registry.register("falcons/trec", Dataset(abstracts, TrecQueries(LocalDownload(place / "topics.txt"))))
    ir_datasets.registry.register("falcons/broken", Dataset(Broken(place / "nowhere.jsonl")))


def test_documents_with_what_else_the_set_says_of_them() -> None:
    assert list(read_documents([SET])) == [
        Document("a", "the falcon hunts", "Falcons", {"year": 1998, "tags": ["bird", "prey"]}),  # type: ignore[arg-type]
        Document("b", "a cold river", "", {"year": 2004, "tags": []}),  # type: ignore[arg-type]
    ]


def test_documents_without_a_field_of_text_are_what_the_set_takes_for_their_text() -> None:
    assert list(read_documents(["irds:falcons/trec"])) == [Document("x", "Ice: is cold")]  # type: ignore[arg-type]


def test_a_field_can_be_named() -> None:
    (first, _) = read_documents([SET], fields=FieldNames(text="title"))
    assert (first.text, first.title) == ("Falcons", "")


def test_queries_and_judgments() -> None:
    assert read_queries(SET) == [Query(QueryId("q1"), "falcon"), Query(QueryId("q2"), "river")]
    assert read_queries("irds:falcons/trec") == [Query(QueryId("7"), "cold river")]
    assert read_qrels(SET) == {"q1": {"a": 1}, "q2": {"b": 2, "a": 0}}


def test_a_document_is_found_again_by_its_place() -> None:
    assert locate_document([SET], "b") == [f"{SET} item 2"]


def test_a_path_that_is_there_is_no_name(place: Path) -> None:
    assert is_irds(SET)
    (place / "irds:falcons").mkdir()
    (place / SET).write_text('{"query_id": "local", "text": "of a file"}\n')
    assert not is_irds(SET)
    assert read_queries(SET, format="jsonl") == [Query(QueryId("local"), "of a file")]
    assert not is_irds(Path("irds:other"))


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("irds:nothing/here", r"^irds:nothing/here: ir_datasets knows no set of this name; expected one as its"),
        (
            "irds:falcons/trec",
            r"^irds:falcons/trec: the set has no qrels; expected a set with qrels; it has docs, quer",
        ),
    ],
)
def test_what_is_not_there_is_said(source: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_qrels(source)


def test_files_that_cannot_be_had_are_said() -> None:
    with pytest.raises(InputError, match=r"^irds:falcons/broken: ir_datasets cannot read it: .*Fetch the set where"):
        list(read_documents(["irds:falcons/broken"]))


def test_a_split_is_part_of_the_name() -> None:
    with pytest.raises(UsageError, match=r"the split 'dev' with irds:falcons/test, which is a set; expected a split"):
        read_qrels(SET, split="dev")


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    for read in (read_queries, read_qrels):
        with pytest.raises(InputError, match=r"not installed\. Install it with: pip install 'tiercel\[irds\]'"):
            read(SET)


def test_a_set_is_indexed_and_evaluated_by_its_name(run: Run) -> None:
    assert run("index", "idx", SET, "--encoder", "none").code == 0
    outcome = run("eval", "idx", "--queries", SET, "--qrels", SET, "-m", "RR@10", "--json")
    assert outcome.json["name"] == SET
    assert outcome.json["pipelines"]["bm25"]["stages"][0]["measures"] == {"RR@10": 1.0}
