from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import FeedStdin, Write
from tiercel.data.runs import RUN_FORMATS, RunFormat, read_run, run_form, tied_queries, write_run
from tiercel.errors import InputError, TiercelError, UsageError
from tiercel.types import DocId, Hit, Query, QueryId, Ranking

WORDS = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1).filter(lambda s: s.split() == [s])
SCORES = st.floats(allow_nan=False, allow_infinity=False)


def ranking(query_id: str, *hits: tuple[str, float], stage: str = "s", text: str = "") -> Ranking:
    return Ranking(Query(QueryId(query_id), text), tuple(Hit(DocId(doc_id), score) for doc_id, score in hits), stage)


@st.composite
def runs(draw: st.DrawFn) -> list[Ranking]:
    found = draw(st.dictionaries(WORDS, st.dictionaries(WORDS, SCORES, max_size=5), max_size=4))
    return [
        Ranking.from_scores(
            Query(QueryId(query_id), draw(st.text(st.characters(exclude_categories=["Cs"])))),
            [DocId(doc_id) for doc_id in scores],
            scores.values(),
            stage="s",
            keep=10,
        )
        for query_id, scores in found.items()
    ]


def refused(source: str | Path, form: RunFormat | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        read_run(source, format=form)
    return caught.value


TIED = [ranking("q1", ("b", 2.0), ("a", 1.5), ("c", 1.5)), ranking("q2"), ranking("q3", ("a", -1.0))]


def test_trec_is_written_with_scores_from_rank(tmp_path: Path) -> None:
    write_run(TIED, tmp_path / "a.trec", tag="mine")
    assert (tmp_path / "a.trec").read_text() == (
        "q1 Q0 b 1 3 mine\nq1 Q0 a 2 2 mine\nq1 Q0 c 3 1 mine\nq3 Q0 a 1 1 mine\n"
    )


def test_msmarco_is_written_with_ranks(tmp_path: Path) -> None:
    write_run(TIED, tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text() == "q1\tb\t1\nq1\ta\t2\nq1\tc\t3\nq3\ta\t1\n"


def test_jsonl_is_written_with_everything(tmp_path: Path) -> None:
    hits = (Hit(DocId("a b"), float(np.float32(0.1)), (3, 9)), Hit(DocId("c"), 0.0))
    one = Ranking(Query(QueryId("q 1"), "who?", ("before",)), hits, "cross")
    write_run([one, ranking("q2", stage="bm25")], tmp_path / "a.jsonl")
    lines = [orjson.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().split(b"\n")[:-1]]
    assert lines == [
        {
            "query_id": "q 1",
            "query": "who?",
            "history": ["before"],
            "stage": "cross",
            "hits": [
                {"doc_id": "a b", "rank": 1, "score": 0.10000000149011612, "span": [3, 9]},
                {"doc_id": "c", "rank": 2, "score": 0.0},
            ],
        },
        {"query_id": "q2", "query": "", "stage": "bm25", "hits": []},
    ]
    assert read_run(tmp_path / "a.jsonl") == [one, ranking("q2", stage="bm25")]


def test_scores_out_of_an_array_can_be_written(tmp_path: Path) -> None:
    scores = np.array([1.5], dtype=np.float32)
    one = Ranking.from_scores(Query(QueryId("q"), ""), [DocId("a")], scores, stage="s", keep=1)
    write_run([one], tmp_path / "a.jsonl")
    assert read_run(tmp_path / "a.jsonl")[0].hits == (Hit(DocId("a"), 1.5),)


@settings(deadline=None)  # each example writes a file
@given(runs())
def test_jsonl_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, run: list[Ranking]) -> None:
    path = tmp_path_factory.mktemp("run") / "a.jsonl.gz"
    write_run(run, path)
    assert read_run(path) == run


@settings(deadline=None)  # each example writes a file
@given(runs(), st.sampled_from(["a.trec", "a.run.gz", "a.tsv", "a.tsv.gz"]))
def test_ids_and_order_come_back(tmp_path_factory: pytest.TempPathFactory, run: list[Ranking], name: str) -> None:
    path = tmp_path_factory.mktemp("run") / name
    write_run(run, path)
    back = read_run(path)
    assert [(one.query.id, one.doc_ids) for one in back] == [(one.query.id, one.doc_ids) for one in run if one.hits]
    assert tied_queries(back) == 0


def test_trec_is_ordered_by_score_and_ties_by_id(write: Write) -> None:
    path = write("a.run", "q1 Q0 a 1 1 t\nq2 Q0 x 1 -2e-3 u\r\n\nq1\tQ0\tc 2 3.5 t\nq1 Q0 b 3 3.5 t\n")
    assert read_run(path) == [
        ranking("q1", ("b", 3.5), ("c", 3.5), ("a", 1.0), stage="t"),
        ranking("q2", ("x", -0.002), stage="u"),
    ]


def test_msmarco_scores_come_from_rank(write: Write) -> None:
    path = write("a.tsv", "q1\tb\t2\nq1\ta\t1\nq1\tc\t5\nq2\tz\t3\n")
    assert read_run(path) == [
        ranking("q1", ("a", 5.0), ("b", 4.0), ("c", 1.0), stage="msmarco"),
        ranking("q2", ("z", 1.0), stage="msmarco"),
    ]


def test_forms_are_told_by_the_first_line_where_the_name_says_nothing(write: Write, feed_stdin: FeedStdin) -> None:
    trec = [ranking("q", ("d", 0.5), stage="t")]
    assert read_run(write("a", "\nq Q0 d 1 0.5 t\n")) == trec
    assert read_run(write("a.tsv", "q\tQ0\td\t1\t0.5\tt\n")) == trec
    assert read_run(write("b", "q d 1\n")) == [ranking("q", ("d", 1.0), stage="msmarco")]
    feed_stdin(b' {"query_id": "q", "hits": []}\n')
    assert read_run("-") == [ranking("q", stage="")]


def test_an_empty_run(write: Write) -> None:
    assert [read_run(write(name, "\n")) for name in ("a", "a.trec", "a.tsv", "a.jsonl")] == [[]] * 4


def test_a_first_line_of_no_known_form(write: Write) -> None:
    path = write("a", "q d\n")
    error = refused(path)
    assert (error.where, error.found) == (str(path), "2 columns in the first line: 'q d'")
    assert error.expected.startswith("6 (TREC: query id, Q0, document id, rank, score, tag), 3 (MS MARCO: ")
    assert error.next_step == "Say what it is with --run-format (trec, msmarco, jsonl)"


@pytest.mark.parametrize(
    ("form", "line", "found", "expected"),
    [
        ("trec", "q Q0 d 1 0.5", "5 columns: 'q Q0 d 1 0.5'", "6: query id, Q0, document id, rank, score, tag"),
        ("trec", "q Q0 d 1 nan t", "the score 'nan'", "a finite number"),
        ("trec", "q Q0 d 1 1e999 t", "the score '1e999'", "a finite number"),
        ("trec", "q Q0 d 1 high t", "the score 'high'", "a finite number"),
        ("trec", "q Q0 d 1 1_0 t", "the score '1_0'", "a finite number"),
        ("trec", "ok Q0 ok 2 0 t", "document 'ok' a second time for query 'ok'", "each document once"),
        ("msmarco", "q d 1 0.5", "4 columns: 'q d 1 0.5'", "3: query id, document id, rank"),
        ("msmarco", "q d 0", "the rank '0'", "a whole number, 1 for the best"),
        ("msmarco", "q d 1.5", "the rank '1.5'", "a whole number, 1 for the best"),
        ("msmarco", "ok other 1", "rank 1 a second time for query 'ok'", "each rank once"),
        ("msmarco", "ok ok 2", "document 'ok' a second time for query 'ok'", "each document once"),
        ("jsonl", "[]", "a line that holds a list of 0", "one JSON object per line"),
        ("jsonl", '{"hits": []}', "no 'query_id'", "a string"),
        ("jsonl", '{"query_id": 1, "hits": []}', "the number 1 as 'query_id'", "a string"),
        (
            "jsonl",
            '{"query_id": "", "hits": []}',
            "the query id is empty",
            "an id of at least one character, without NUL",
        ),
        ("jsonl", '{"query_id": "q"}', "no 'hits'", 'a list of objects with "doc_id" and "score"'),
        (
            "jsonl",
            '{"query_id": "q", "hits": {}}',
            "an object with keys: none as 'hits'",
            'a list of objects with "doc_id" and "score"',
        ),
        ("jsonl", '{"query_id": "q", "hits": [1]}', "the number 1 in 'hits'", 'an object with "doc_id" and "score"'),
        ("jsonl", '{"query_id": "q", "hits": [{}]}', "no 'doc_id'", "a string"),
        ("jsonl", '{"query_id": "q", "hits": [{"doc_id": "d"}]}', "null as the score of 'd'", "a finite number"),
        (
            "jsonl",
            '{"query_id": "q", "hits": [{"doc_id": "d", "score": true}]}',
            "true as the score of 'd'",
            "a finite number",
        ),
        (
            "jsonl",
            '{"query_id": "q", "hits": [{"doc_id": "d", "score": 1, "span": [2, 1]}]}',
            "[2,1] as the span of 'd'",
            "[start, end] in characters, 0 <= start <= end",
        ),
        (
            "jsonl",
            '{"query_id": "q", "hits": [{"doc_id": "d", "score": 1}, {"doc_id": "d", "score": 1}]}',
            "document 'd' a second time",
            "each document once in 'hits'",
        ),
        ("jsonl", '{"query_id": "q", "stage": 1, "hits": []}', "the number 1 as 'stage'", "a string"),
    ],
)
def test_lines_that_are_refused(write: Write, form: RunFormat, line: str, found: str, expected: str) -> None:
    fine = {"trec": "ok Q0 ok 1 1 t", "msmarco": "ok ok 1", "jsonl": '{"query_id": "ok", "hits": []}'}[form]
    path = write("a", f"{fine}\n\n{line}\n")
    error = refused(path, form)
    assert error.where == f"{path}:3"
    assert (error.found, error.expected) == (found, expected)


def test_the_other_column_form_is_suggested(write: Write) -> None:
    assert refused(write("a.txt", "q d 1")).next_step == "If it is of MS MARCO form, say --run-format msmarco"
    assert refused(write("a", "q Q0 d 1 1 t"), "msmarco").next_step == "If it is of TREC form, say --run-format trec"


def test_a_query_on_two_lines_of_jsonl(write: Write) -> None:
    path = write("a.jsonl", '{"query_id": "q", "hits": []}\n' * 2)
    error = refused(path)
    assert error.where == f"{path}:2"
    assert error.found == f"the query id 'q' a second time; the first is at {path}:1"


@pytest.mark.parametrize("name", ["a.trec", "a.tsv"])
@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (ranking("q 2", ("a", 1.0)), "the query id 'q 2' has white space in it"),
        (ranking("q2", ("a", 1.0), ("b\u00a0c", 0.5)), "the document id 'b\\xa0c' has white space in it"),
        (ranking("q2", ("", 1.0)), "an empty document id"),
    ],
)
def test_ids_that_columns_cannot_hold(tmp_path: Path, name: str, broken: Ranking, found: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(InputError) as caught:
        write_run([ranking("q1", ("a", 1.0)), broken], tmp_path / name)
    assert caught.value.found == found
    assert caught.value.next_step == "Write the run as JSONL"
    assert (tmp_path / name).read_text() == "old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("form", RUN_FORMATS)
def test_half_a_surrogate_pair_cannot_be_written(tmp_path: Path, form: RunFormat) -> None:
    with pytest.raises(InputError, match="the ranking of query 'q' holds half a surrogate pair"):
        write_run([ranking("q", ("\ud800", 1.0))], tmp_path / "a", format=form)
    assert os.listdir(tmp_path) == []


def test_a_query_ranked_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the query 'q' ranked twice; expected one ranking for each query"):
        write_run([ranking("q"), ranking("q")], tmp_path / "a.trec")
    assert os.listdir(tmp_path) == []


def test_a_ranking_that_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Ranking]:
        yield ranking("q", ("a", 1.0))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_run(failing(), tmp_path / "a.trec")
    assert os.listdir(tmp_path) == []


def test_a_tag_of_two_words(tmp_path: Path) -> None:
    for tag in ("two words", ""):
        with pytest.raises(UsageError, match=f"the tag '{tag}'; expected one word"):
            write_run([], tmp_path / "a.trec", tag=tag)


def test_a_target_that_says_no_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the run .*a\.out without a format; .*Say which with --run-format"):
        write_run([], tmp_path / "a.out")
    with pytest.raises(UsageError, match="the run on standard output without a format"):
        write_run([], "-")


def test_the_form_of_a_target_is_known_before_it_is_written() -> None:
    assert (run_form("a.jsonl.gz"), run_form("a.run"), run_form("-", "msmarco")) == ("jsonl", "trec", "msmarco")
    with pytest.raises(UsageError, match=r"the run a\.bin without a format.*Say which with --out-format, or give"):
        run_form("a.bin", flag="--out-format")


def test_scores_of_the_rankings_that_were_reranked(tmp_path: Path) -> None:
    before = [ranking("q1", ("a", 9.0), ("b", 8.0)), ranking("q3", ("a", 7.0))]
    write_run(TIED, tmp_path / "r.jsonl", retrieved=before)
    lines = [orjson.loads(line) for line in (tmp_path / "r.jsonl").read_bytes().splitlines()]
    # What was not retrieved, or in a ranking that is not told, has none.
    assert [[hit.get("retrieval_score") for hit in line["hits"]] for line in lines] == [[8.0, 9.0, None], [], [7.0]]
    assert read_run(tmp_path / "r.jsonl") == TIED
    write_run(TIED, tmp_path / "r.trec", retrieved=before)
    write_run(TIED, tmp_path / "plain.trec")
    assert (tmp_path / "r.trec").read_bytes() == (tmp_path / "plain.trec").read_bytes()


def test_an_unknown_format(tmp_path: Path) -> None:
    words = "the run format 'xml'; expected one of trec, msmarco, jsonl"
    with pytest.raises(UsageError, match=words):
        write_run([], tmp_path / "a.trec", format="xml")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=words):
        read_run(tmp_path, format="xml")  # type: ignore[arg-type]


def test_standard_output_and_gzip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(TIED, "-", format="msmarco")
    write_run(TIED, tmp_path / "a.tsv.gz")
    assert capsys.readouterr().out == gzip.decompress((tmp_path / "a.tsv.gz").read_bytes()).decode()


def test_an_empty_run_is_an_empty_file(tmp_path: Path) -> None:
    write_run([], tmp_path / "a.trec")
    assert (tmp_path / "a.trec").read_bytes() == b""


def test_tied_queries() -> None:
    assert tied_queries(TIED) == 1
    assert tied_queries([]) == 0


@settings(deadline=None)  # each example writes a file
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text("\t\r\n qd01.-e", max_size=60).map(str.encode),
        st.dictionaries(
            st.sampled_from(["query_id", "query", "stage", "hits", "history"]),
            st.recursive(
                st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["doc_id", "score", "span"]), inner, max_size=3)
                ),
            ),
        ).map(orjson.dumps),
    )
)
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a"
    path.write_bytes(content)
    for form in (None, *RUN_FORMATS):
        try:
            run = read_run(path, format=form)
        except TiercelError:
            continue
        assert len({one.query.id for one in run}) == len(run)


def test_a_query_whose_lines_do_not_stand_together_is_one_ranking(tmp_path: Path) -> None:
    path = tmp_path / "scattered.run"
    path.write_text("q1 Q0 a 1 3 t\nq2 Q0 a 1 1 u\nq1 Q0 b 1 4 v\nq2 Q0 c 1 2 u\nq1 Q0 c 1 1 t\n")
    rankings = read_run(path)
    assert [(r.query.id, r.stage, r.doc_ids) for r in rankings] == [
        ("q1", "t", ["b", "a", "c"]),
        ("q2", "u", ["c", "a"]),
    ]
    path.write_text("q1 Q0 a 1 3 t\nq2 Q0 a 1 1 t\nq1 Q0 b 1 4 t\nq2 Q0 c 1 2 t\nq1 Q0 a 1 1 t\n")
    with pytest.raises(InputError, match=r"scattered\.run:5: document 'a' a second time"):
        read_run(path)
