from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.data.conftest import FeedStdin, Write
from tiercel.data.candidates import (
    Candidates,
    HeldDocuments,
    Labelled,
    named_by,
    queries_of_run,
    read_candidates,
    read_labelled,
)
from tiercel.errors import InputError
from tiercel.protocols import CandidateGroup
from tiercel.types import DocId, Document, Query, QueryId, Ranking


def document(name: str, text: str, title: str = "") -> Document:
    return Document(DocId(name), text, title)


def query(name: str, text: str, *history: str) -> Query:
    return Query(QueryId(name), text, history)


def ranking(name: str, *doc_ids: str, text: str = "") -> Ranking:
    """The documents in this order."""
    ids = [DocId(doc_id) for doc_id in doc_ids]
    return Ranking.from_scores(query(name, text), ids, range(len(ids), 0, -1), stage="bm25", keep=len(ids))


def candidates(asked: Query, *documents: Document, scores: Sequence[float | None] | None = None) -> Candidates:
    """As they are read, none of them with a score if none is given."""
    return Candidates(CandidateGroup(asked, list(documents)), tuple(scores or [None] * len(documents)))


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        list(read_candidates(path))
    return caught.value


def test_strings_and_objects(write: Write) -> None:
    path = write(
        "c.jsonl",
        '{"query": "fast birds", "documents": ["one", {"id": "x", "text": "two", "title": "T"}, {"text": ""}]}\n'
        '\n{"query_id": 7, "query": "", "documents": [], "history": ["and?"], "context": [1]}\r\n'
        '{"query_id": "k", "query": "u", "documents": [{"_id": 5, "text": "t", "title": null, "year": 2021}]}',
    )
    assert list(read_candidates(path)) == [
        candidates(query("1", "fast birds"), document("0", "one"), document("x", "two", "T"), document("2", "")),
        candidates(query("7", "", "and?")),
        candidates(query("k", "u"), Document(DocId("5"), "t", "", {"year": 2021})),
    ]


def test_scores_of_the_stage_before_are_kept_apart(write: Write) -> None:
    path = write(
        "c.jsonl", '{"query": "q", "documents": [{"text": "t", "score": 2}, "s", {"text": "", "score": null}]}'
    )
    documents = [document("0", "t"), document("1", "s"), document("2", "")]
    assert list(read_candidates(path)) == [candidates(query("1", "q"), *documents, scores=[2.0, None, None])]


def test_what_search_prints_is_read(write: Write) -> None:
    hits = (
        '[{"rank": 1, "doc_id": "b", "score": 1.5, "retrieval_score": 9, "title": "T", "text": "x", '
        '"metadata": {"year": 2021}}, {"rank": 2, "doc_id": "a", "score": 1, "span": [0, 1], "title": "", "text": "y"}]'
    )
    path = write("c.jsonl", f'{{"query_id": "q", "query": "birds", "stage": "bm25", "hits": {hits}}}')
    first, second = (Document(DocId("b"), "x", "T", {"year": 2021}), Document(DocId("a"), "y", "", {"span": [0, 1]}))
    assert list(read_candidates(path)) == [candidates(query("q", "birds"), first, second, scores=[1.5, 1.0])]


def test_a_conversation_is_its_last_turn_after_the_others(write: Write) -> None:
    path = write(
        "c.jsonl",
        '{"id": "talk-1", "context": ["who hunts?", "a falcon", "and where?"], "candidates": ["a", {"id": "x", '
        '"text": "b"}], "label": 1}\n{"context": [""], "candidates": []}\n'
        '{"query_id": 7, "id": "not this", "context": ["only"], "documents": ["d"]}\n'
        '{"id": "of no query", "query": "q", "candidates": ["d"]}',
    )
    assert list(read_candidates(path)) == [
        candidates(query("talk-1", "and where?", "who hunts?", "a falcon"), document("0", "a"), document("x", "b")),
        candidates(query("2", "")),
        candidates(query("7", "only"), document("0", "d")),
        candidates(query("4", "q"), document("0", "d")),
    ]


def test_labelled_lines_are_the_same_with_the_right_one(write: Write) -> None:
    path = write("c.jsonl", '{"context": ["hello", "who?"], "candidates": ["a", "b"], "label": 1}\n')
    (candidates_of_line,) = read_candidates(path)
    assert list(read_labelled(path)) == [Labelled(candidates_of_line, 1, f"{path}:1")]


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("", "no 'label'"),
        (', "label": 2', "the number 2"),
        (', "label": -1', "the number -1"),
        (', "label": true', "true"),
        (', "label": "1"', "the string '1'"),
        (', "label": [1]', "a list of 1"),
    ],
)
def test_labels_that_are_none(write: Write, label: str, found: str) -> None:
    path = write("c.jsonl", f'{{"query": "who?", "candidates": ["a", "b"]{label}}}\n')
    with pytest.raises(InputError) as caught:
        list(read_labelled(path))
    assert caught.value.where == f"{path}:1"
    assert caught.value.found == (f"{found} as 'label'" if label else found)
    assert caught.value.expected == "the position of the right one of the 2, 0 the first"
    assert len(list(read_candidates(path))) == 1  # nothing but training needs it


def test_standard_input(feed_stdin: FeedStdin) -> None:
    feed_stdin(b'{"query": "q", "documents": ["a", "b"]}\n')
    assert list(read_candidates("-")) == [candidates(query("1", "q"), document("0", "a"), document("1", "b"))]


def test_an_empty_file(write: Write) -> None:
    assert list(read_candidates(write("c.jsonl", ""))) == []
    assert list(read_candidates(write("d.jsonl", "\n \n"))) == []


def test_lines_are_read_as_they_are_asked_for(write: Write) -> None:
    lines = read_candidates(write("c.jsonl", '{"query": "q", "documents": ["a"]}\nnot JSON\n'))
    assert next(lines).group.query.text == "q"
    with pytest.raises(InputError, match="this is not JSON"):
        next(lines)


def test_a_file_that_is_not_there_is_noticed_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_candidates(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("[1]", "a line that holds a list of 1", "one JSON object per line"),
        ('{"documents": []}', "no 'query'", "a string"),
        ('{"query": 1, "documents": []}', "the number 1 as 'query'", "a string"),
        ('{"query": "q"}', "no 'documents'", "a list of strings and objects"),
        ('{"query": "q", "documents": "d"}', "the string 'd' as 'documents'", "a list of strings and objects"),
        ('{"query": "q", "query_id": "", "documents": []}', "the query id is empty", ""),
        ('{"query": "q", "query_id": 1.5, "documents": []}', "the number 1.5 as the query id", ""),
        ('{"query": "q", "documents": [], "history": "h"}', "the string 'h' as 'history'", ""),
        ('{"context": "c", "candidates": []}', "the string 'c' as 'context'", "a list of strings, oldest first"),
        ('{"context": ["c", 1], "candidates": []}', "the number 1 in 'context'", "strings only"),
        ('{"context": [], "candidates": []}', "a list of 0 as 'context'", "at least one turn"),
        ('{"context": ["c"]}', "no 'documents'", "a list of strings and objects"),
        ('{"context": ["c"], "candidates": 2}', "the number 2 as 'candidates'", "a list of strings and objects"),
        (
            '{"query": "q", "documents": ["a", null]}',
            "null at position 1 of 'documents'",
            'a string or an object with "text"',
        ),
        ('{"query": "q", "documents": [{"id": "a"}]}', "no 'text' of the document at position 0", "a string"),
        (
            '{"query": "q", "documents": [{"text": "a", "title": 3}]}',
            "the number 3 as 'title' of the document at position 0",
            "a string",
        ),
        (
            '{"query": "q", "documents": [{"id": true, "text": "a"}]}',
            "true as the id of the document at position 0",
            "a string or a whole number",
        ),
        (
            '{"query": "q", "documents": [{"text": "a", "score": "high"}]}',
            "the string 'high' as 'score' of the document at position 0",
            "a finite number",
        ),
        (
            '{"query": "q", "hits": ["a", 3]}',
            "the number 3 at position 1 of 'hits'",
            'a string or an object with "text"',
        ),
        (
            '{"query": "q", "documents": [{"id": 1, "text": "a"}, "b"]}',
            "document '1' a second time, at position 1",
            "each id once in 'documents'; a document without one goes by its position, 0 the first",
        ),
    ],
)
def test_lines_that_are_refused(write: Write, line: str, found: str, expected: str) -> None:
    path = write("c.jsonl", f'{{"query": "q", "documents": []}}\n{line}\n')
    error = refused(path)
    assert (error.where, error.found) == (f"{path}:2", found)
    assert error.expected.startswith(expected)


def test_a_missing_key_says_what_a_line_is(write: Write) -> None:
    path = write("c.jsonl", '{"query": "q"}\n')
    assert str(refused(path)) == (
        f"{path}:1: no 'documents'; expected a list of strings and objects. "
        'A line is {"query": …, "documents": ["text", {"id": …, "text": …, "title": …, "score": …}, …]} '
        'or {"context": ["turn", …], "candidates": […]}'
    )


def test_each_query_once(write: Write) -> None:
    path = write("c.jsonl", '{"query": "q", "query_id": 2, "documents": []}\n{"query": "r", "documents": []}\n')
    error = refused(path)
    assert error.where == f"{path}:2"
    assert error.found == f"the query id '2' a second time; the first is at {path}:1"


def test_the_queries_of_a_run() -> None:
    run = [ranking("2", "a", text="of the run"), ranking("1"), ranking("3", "a", text="of the run")]
    asked = [query("1", "one"), query("2", "two", "before"), query("4", "not in the run")]
    assert queries_of_run(run, asked) == [query("2", "two", "before"), query("1", "one"), query("3", "of the run")]
    # One that is empty on purpose is as good as any.
    assert queries_of_run([ranking("1", "a")], [query("1", "")]) == [query("1", "")]


def test_a_query_without_text_is_refused() -> None:
    with pytest.raises(InputError, match="no text for the query '1' of the run; expected each query of the run among"):
        queries_of_run([ranking("1", "a")], [query("2", "x")])
    with pytest.raises(InputError, match="no text for the query '1' of the run and 1 more; expected"):
        queries_of_run([ranking("1", "a"), ranking("2"), ranking("3")], [query("2", "x")])


def test_documents_that_a_run_names_are_held() -> None:
    read: list[str] = []

    def corpus() -> Iterator[Document]:
        for name in "abcde":
            read.append(name)
            yield Document(DocId(name), f"text {name}", "T", {"year": 2021})

    ids = named_by([ranking("2", "d", "z", "a"), ranking("1", "b", "d", "y", "z"), ranking("3")])
    assert ids == ["d", "z", "a", "b", "y"]
    held = HeldDocuments(ids, corpus())
    assert held.get([DocId("d"), DocId("a")]) == [document("d", "text d", "T"), document("a", "text a", "T")]
    assert held.missing(ids) == ["z", "y"]
    assert read == list("abcde")
    for absent in ("z", "c"):
        with pytest.raises(InputError, match=f"no document has the id '{absent}'"):
            held.get([DocId(absent)])


def test_the_digest_of_what_is_held_is_that_of_the_texts() -> None:
    ids = [DocId("a"), DocId("b")]
    held = [document("a", "x", "T"), document("c", "not named"), document("b", "y")]
    digest = HeldDocuments(ids, held).digest()
    assert digest == HeldDocuments(ids, held[::-1]).digest()
    changed = [
        [document("a", "x"), held[2]],
        [held[0]],
        [held[0], document("b", "")],
        [document("a", "T", "x"), held[2]],
    ]
    assert len({digest, *(HeldDocuments(ids, documents).digest() for documents in changed)}) == 5


def test_a_document_of_the_run_that_comes_twice() -> None:
    corpus = [document("b", "x"), document("b", "y"), document("a", "x"), document("a", "y")]
    with pytest.raises(InputError, match="the document id 'a' a second time; expected each document of the run once"):
        HeldDocuments([DocId("a")], corpus)
