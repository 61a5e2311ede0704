from __future__ import annotations

import gzip
import json
from pathlib import Path

import bm25s
import numpy as np
import pytest
import rank_bm25

from tests.conformance.retriever import RetrieverConformance
from tests.index.made import EXAMPLES, FALCONS, asked, indexed, named, zipf_texts
from tiercel.index import build, merge
from tiercel.index.analysis import analyzer
from tiercel.index.bm25 import BM25, VARIANTS
from tiercel.index.lexical import LexicalRetriever, analyze_queries
from tiercel.index.store import Index
from tiercel.index.tokens import TokenTable
from tiercel.types import DocId, Document, Hit, Query, Ranking


def retriever_of(index: Index, parameters: BM25 | None = None, *, threads: int = 1) -> LexicalRetriever:
    return LexicalRetriever(index.views, index.analyzer, parameters=parameters, threads=threads)


class TestLexicalRetriever(RetrieverConformance):
    @pytest.fixture
    def retriever(self, tmp_path: Path) -> LexicalRetriever:
        return retriever_of(indexed(tmp_path / "x", FALCONS, "english"))

    @pytest.fixture
    def queries(self) -> list[Query]:
        return asked("male falcon", "pigeons in the city", "the falcon")

    @pytest.fixture
    def unmatched(self) -> Query:
        return asked("zeppelin")[0]


class TestLexicalRetrieverOfThreeSegments(TestLexicalRetriever):
    @pytest.fixture(autouse=True)
    def small_segments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 2)
        monkeypatch.setattr(build, "_SEGMENT_ROWS", 2)
        monkeypatch.setattr(merge, "MERGED_ROWS", 0)  # they are to stay apart


def test_scores_by_hand(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(["falcon dove", "falcon falcon dove owl", "owl", ""]))
    (ranking,) = retriever_of(index, BM25(k1=1.0, b=0.5)).retrieve(asked("falcon"), keep=10)
    # N = 4, df = 2: ln(1 + 2.5 / 2.5). Mean length 7/4: K(length) = 0.5 + length * 2/7.
    first, second = np.log(2) * 2 / (2 + 0.5 + 8 / 7), np.log(2) * 1 / (1 + 0.5 + 4 / 7)
    assert ranking.doc_ids == ["d00001", "d00000"]
    assert [hit.score for hit in ranking.hits] == pytest.approx([first, second], rel=1e-6)
    assert ranking.stage == "bm25"


def test_a_word_asked_twice_counts_twice(tmp_path: Path) -> None:
    retriever = retriever_of(indexed(tmp_path / "x", FALCONS))
    once, twice = retriever.retrieve(asked("falcon", "falcon Falcon"), keep=10)
    assert [2 * hit.score for hit in once.hits] == [hit.score for hit in twice.hits]


def test_a_title_is_searched_with_the_text(tmp_path: Path) -> None:
    documents = [Document(DocId("a"), "hunts", "Falcon"), Document(DocId("b"), "hunts")]
    (ranking,) = retriever_of(indexed(tmp_path / "x", documents)).retrieve(asked("falcon"), keep=10)
    assert ranking.doc_ids == ["a"]


@pytest.mark.parametrize("text", ["", "the of and", "... !!!", "\ud800", "\0"])
def test_a_query_without_a_term_finds_nothing(tmp_path: Path, text: str) -> None:
    index = indexed(tmp_path / "x", FALCONS, "english")
    queries = asked(text)
    assert retriever_of(index).retrieve(queries, keep=10) == [Ranking(queries[0], (), "bm25")]
    nothing, something = retriever_of(index).retrieve(asked(text, "falcon"), keep=10)
    assert not nothing.hits
    assert something.hits


def test_an_empty_document_is_counted_and_never_found(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(["falcon", "", "the of", "dove"]), "english")
    for variant in VARIANTS:
        for b in (0.0, 1.0):
            rankings = retriever_of(index, BM25(1.2, b, variant)).retrieve(asked("falcon", "dove owl"), keep=10)
            assert [ranking.doc_ids for ranking in rankings] == [["d00000"], ["d00003"]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_collection_of_nothing_but_empty_documents_answers_nothing(tmp_path: Path, variant: str) -> None:
    index = indexed(tmp_path / "x", named(["", "the", "..."]), "english")
    index.verify()
    for b in (0.0, 0.4, 1.0):
        (ranking,) = retriever_of(index, BM25(0.9, b, variant)).retrieve(asked("falcon the"), keep=10)
        assert ranking.hits == ()


def test_ties_are_broken_by_id_and_not_by_place(tmp_path: Path) -> None:
    ids = ["b", "é", "a", "10", "9", "B", "a\n", 'a"', "a\tb", "東", "𠀀", "\ue000", "a" * 300]
    index = indexed(tmp_path / "x", [Document(DocId(name), "falcon") for name in ids])
    for keep in (1, 3, len(ids), 100):
        (ranking,) = retriever_of(index).retrieve(asked("falcon"), keep=keep)
        assert ranking.doc_ids == sorted(ids)[:keep]


def test_keep_beyond_the_collection_gives_what_there_is(tmp_path: Path) -> None:
    retriever = retriever_of(indexed(tmp_path / "x", FALCONS))
    assert retriever.retrieve(asked("falcon"), keep=10**6) == retriever.retrieve(asked("falcon"), keep=3)


def test_texts_of_more_than_65535_terms(tmp_path: Path) -> None:
    texts = ["owl " * 70_000, "owl " * 70_001, "owl", "dove"]
    index = indexed(tmp_path / "x", named(texts))
    (ranking,) = retriever_of(index, BM25(k1=1.2, b=0.0)).retrieve(asked("owl"), keep=10)
    idf = np.log(1 + 1.5 / 3.5)
    assert [hit.score for hit in ranking.hits] == pytest.approx(
        [idf * f / (f + 1.2) for f in (70_001, 70_000, 1)], rel=1e-6
    )
    assert sorted(ranking.doc_ids) == ["d00000", "d00001", "d00002"]


QUERIES = ["w0", "w1 w5 w9", "w0 w0 w1 w2 w3", "w200 w3", "w0 " + " ".join(f"w{i}" for i in range(0, 300, 3)), "none"]


@pytest.mark.parametrize("seed", [1, 2])
def test_segments_score_as_if_they_were_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    # Few words and short texts: most scores are shared by many documents, and segments lack terms that others have.
    documents = named(zipf_texts(400, words=300, seed=seed))
    documents = [
        Document(DocId(f"{hash_ % 997:03d}-{i}"), d.text)
        for i, (hash_, d) in enumerate(
            zip(np.random.default_rng(seed).integers(0, 10**6, 400).tolist(), documents, strict=True)
        )
    ]
    one = indexed(tmp_path / "one", documents)
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(build, "_SEGMENT_ROWS", 60)
    monkeypatch.setattr(merge, "MERGED_ROWS", 0)  # they are to stay apart
    many = indexed(tmp_path / "many", documents)
    assert (len(one.views), len(many.views)) == (1, 7)
    queries = asked(*QUERIES)
    for variant in VARIANTS:
        parameters = BM25(1.2, 0.75, variant)
        for keep in (1, 3, 20, 1000):
            expected = retriever_of(one, parameters).retrieve(queries, keep=keep)
            assert retriever_of(many, parameters).retrieve(queries, keep=keep) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_query_alone_scores_as_in_any_batch(tmp_path: Path, variant: str) -> None:
    index = indexed(tmp_path / "x", named(zipf_texts(300, words=200, seed=3)))
    drawn = np.random.default_rng(4)
    texts = [" ".join(f"w{i}" for i in drawn.integers(0, 200, drawn.integers(1, 30))) for _ in range(150)]
    parameters = BM25(1.2, 0.75, variant)
    queries = asked(*texts)
    retriever = retriever_of(index, parameters)
    alone = [ranking for query in queries for ranking in retriever.retrieve([query], keep=20)]
    assert retriever.retrieve(queries, keep=20) == alone
    assert retriever.retrieve(queries[::-1], keep=20)[::-1] == alone
    assert retriever_of(index, parameters, threads=3).retrieve(queries, keep=20) == alone


def test_a_constant_that_all_share_changes_no_order(tmp_path: Path) -> None:
    """The constant is so large that float32 could not tell the sums apart."""
    texts = ["owl " + "dove " * i for i in range(40)][::-1]
    index = indexed(tmp_path / "x", named(texts))
    retriever = retriever_of(index, BM25(1.2, 0.75, "bm25+", delta=3e5))
    (complete,) = retriever.retrieve(asked("owl"), keep=40)
    assert complete.doc_ids == [f"d{i:05d}" for i in range(40)][::-1]
    for keep in (1, 5, 39):
        (ranking,) = retriever.retrieve(asked("owl"), keep=keep)
        assert ranking.hits == complete.hits[:keep]


def test_analyzed_queries_by_hand() -> None:
    queries = analyze_queries(analyzer("english"), ["The falcon hunts falcons", "the", "", "dove falcon"])
    assert queries.terms == [b"falcon", b"hunt", b"dove"]
    assert queries.starts.tolist() == [0, 2, 2, 2, 4]
    assert queries.numbers.tolist() == [0, 1, 0, 2]
    assert queries.counts.tolist() == [2, 1, 1, 1]


def test_no_queries_are_analyzed_to_none() -> None:
    queries = analyze_queries(analyzer("english"), [])
    assert (queries.terms, queries.starts.tolist()) == ([], [0])


# Against the packages whose formulas these are, on a part of a real collection.

DOCUMENTS = 1500


def read_example(name: str) -> list[dict[str, str]]:
    with gzip.open(EXAMPLES / "scifact" / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def scifact(tmp_path_factory: pytest.TempPathFactory) -> Index:
    documents = [
        Document(DocId(row["_id"]), row["text"], row["title"]) for row in read_example("corpus.jsonl.gz")[:DOCUMENTS]
    ]
    return indexed(tmp_path_factory.mktemp("scifact") / "x", documents, "english")


@pytest.fixture(scope="module")
def questions() -> list[Query]:
    return asked(*(row["text"] for row in read_example("queries.jsonl.gz")[:50]))


def terms_of(index: Index, texts: list[str]) -> list[list[str]]:
    table = TokenTable(cjk_bigrams=index.analyzer.cjk_bigrams)
    tokens, ends = table.tokenize(texts)
    terms = index.analyzer.terms(table.strings())
    parts = np.split(tokens, ends[:-1])
    return [[term for term in (terms[token] for token in part) if term is not None] for part in parts]


@pytest.fixture(scope="module")
def stored(scifact: Index) -> list[Document]:
    documents = scifact.views[0].segment.documents
    return documents.documents(np.arange(len(documents)))


def check_scores(rankings: list[Ranking], ids: list[DocId], expected: list[np.ndarray]) -> None:
    """Every hit has the expected score, and no document left out had a better one than the last hit."""
    for ranking, scores in zip(rankings, expected, strict=True):
        assert ranking.hits
        by_id = dict(zip(ids, scores.tolist(), strict=True))
        assert [hit.score for hit in ranking.hits] == pytest.approx(
            [by_id[hit.doc_id] for hit in ranking.hits], abs=1e-4
        )
        left_out = [score for doc_id, score in by_id.items() if doc_id not in set(ranking.doc_ids)]
        assert max(left_out) <= ranking.hits[-1].score + 1e-4


@pytest.mark.parametrize(
    ("variant", "peer"),
    [
        ("rank-bm25-okapi", rank_bm25.BM25Okapi),
        ("rank-bm25-l", rank_bm25.BM25L),
        ("bm25+", rank_bm25.BM25Plus),
    ],
)
def test_scores_are_those_of_rank_bm25(
    scifact: Index, stored: list[Document], questions: list[Query], variant: str, peer: type
) -> None:
    oracle = peer(terms_of(scifact, [document.full_text for document in stored]), k1=1.5, b=0.75)
    chosen = questions[:20]
    expected = [np.asarray(oracle.get_scores(terms)) for terms in terms_of(scifact, [q.text for q in chosen])]
    retriever = retriever_of(scifact, BM25(1.5, 0.75, variant))
    check_scores(retriever.retrieve(chosen, keep=100), [document.id for document in stored], expected)


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_scores_are_those_of_bm25s(
    scifact: Index, stored: list[Document], questions: list[Query], variant: str
) -> None:
    parameters = BM25(1.2, 0.75, variant)
    oracle = bm25s.BM25(method=variant, k1=1.2, b=0.75, delta=parameters.shift)
    oracle.index(terms_of(scifact, [document.full_text for document in stored]), show_progress=False)
    known = set(oracle.vocab_dict)
    asked_terms = [
        [term for term in terms if term in known] for terms in terms_of(scifact, [q.text for q in questions])
    ]
    expected = [np.asarray(oracle.get_scores(terms)) for terms in asked_terms]
    rankings = retriever_of(scifact, parameters).retrieve(questions, keep=100)
    check_scores(rankings, [document.id for document in stored], expected)


def test_the_best_hit_explains_itself(scifact: Index) -> None:
    (ranking,) = retriever_of(scifact).retrieve(asked("cerebral white matter newborn diffusion tensor"), keep=1)
    assert [type(part) for part in ranking.hits[0]] == [str, float, type(None)]
    assert isinstance(ranking.hits[0], Hit)
    assert "white matter" in scifact.get(ranking.doc_ids)[0].text


@pytest.mark.parametrize("count", [1, 2, 9, 64, 200])
def test_any_number_of_threads_gives_the_same_rankings(tmp_path: Path, count: int) -> None:
    index = indexed(tmp_path / "x", named(zipf_texts(300, words=60, seed=5)))
    queries = asked(*zipf_texts(count, words=60, seed=6, longest=5))
    alone = LexicalRetriever(index.views, index.analyzer, threads=1).retrieve(queries, keep=20)
    assert LexicalRetriever(index.views, index.analyzer, threads=4).retrieve(queries, keep=20) == alone
