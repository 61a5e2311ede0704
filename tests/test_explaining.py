"""Explanations add up: by hand, against what the stages rank, and stage by stage down to the one that drops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.index.made import FALCONS, HashedTokens, JointWords, asked, indexed, named, zipf_texts
from tests.retrieve.small import ShorterFirst
from tiercel.data.chunking import Chunking
from tiercel.errors import UsageError
from tiercel.explaining import Explanation, StageExplanation, explain
from tiercel.explanation_tables import verdict
from tiercel.index.bm25 import BM25, VARIANTS
from tiercel.index.dense import DenseRetriever
from tiercel.index.lexical import LexicalRetriever
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.parts import CosineParts, TermParts, TokenParts
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.retrieve.cascade import Cascade, RerankStep
from tiercel.retrieve.fusion import Fusion, FusionLeg, FusionMethod
from tiercel.types import DocId, Document

CUT = Chunking("tokens", 6)
MANY = named(zipf_texts(300, words=40, seed=3, longest=20))
IDS = [document.id for document in MANY]


def bm25(index: Index, parameters: BM25 | None = None) -> LexicalRetriever:
    return LexicalRetriever(index.views, index.analyzer, parameters=parameters)


def cascade(index: Index, *, recall_keep: int = 20, method: FusionMethod = FusionMethod.RRF) -> Cascade:
    """Both legs fused, late interaction with stored vectors fused with that, and the shortest texts of it."""
    legs = [FusionLeg("bm25", bm25(index), 2), FusionLeg("dense", DenseRetriever(index.views, JointWords()))]
    late = LateInteraction(HashedTokens(), stored=StoredTokens(index.views))
    steps = [
        RerankStep("minmax:late@10", late, 10, FusionMethod.MINMAX, reads=False),
        RerankStep("short@3", ShorterFirst(), 3),
    ]
    return Cascade(Fusion(legs, method=method), steps, index, recall_keep=recall_keep)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return indexed(tmp_path_factory.mktemp("many") / "x", MANY, encoder=JointWords(), tokens="fp16")


@pytest.fixture(scope="module")
def passages(tmp_path_factory: pytest.TempPathFactory) -> Index:
    path = tmp_path_factory.mktemp("passages") / "x"
    return indexed(path, MANY, encoder=JointWords(), tokens="int8", chunking=CUT)


def test_terms_by_hand(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(["falcon dove", "falcon falcon dove owl", "owl", ""]))
    parts = bm25(index, BM25(k1=1.0, b=0.5)).explain(
        asked("owl falcon falcon zeppelin")[0], index.get([DocId("d00001")])[0]
    )
    assert parts is not None
    # N = 4, both terms in 2 documents; mean length 7/4, so K(4) = 0.5 + 4 * 2/7.
    norm = 0.5 + 8 / 7
    assert [parts.length, parts.mean_length, parts.norm] == pytest.approx([4, 1.75, norm])
    falcon, owl, zeppelin = parts.terms
    assert (falcon.term, falcon.asked, falcon.frequency, falcon.document_frequency) == ("falcon", 2, 2, 2)
    assert [falcon.idf, falcon.saturation] == pytest.approx([math.log(2), 2 / (2 + norm)])
    assert falcon.part == pytest.approx(2 * math.log(2) * 2 / (2 + norm))
    assert owl.part == pytest.approx(math.log(2) / (1 + norm))
    assert (zeppelin.frequency, zeppelin.document_frequency, zeppelin.part) == (0, 0, 0)
    assert [(mark.start, mark.end) for mark in parts.marks] == [(0, 6), (7, 13), (19, 22)]
    assert [mark.weight for mark in parts.marks] == [falcon.part, falcon.part, owl.part]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (0.0, 1.0), (2.0, 0.0)])
def test_terms_sum_to_the_score_whatever_the_variant(many: Index, variant: str, k1: float, b: float) -> None:
    retriever = bm25(many, BM25(k1, b, variant))
    for query in asked("w0 w3 w3 w17", "w39"):
        (ranking,) = retriever.retrieve([query], keep=300)
        assert ranking.hits or (variant == "bm25l" and k1 == 0)  # its saturation is then the same for all
        for hit, document in list(zip(ranking.hits, many.get(ranking.doc_ids), strict=True))[::9]:
            parts = retriever.explain(query, document)
            assert parts is not None
            assert parts.score == pytest.approx(hit.score, abs=1e-5)
            for term in parts.terms:
                assert term.part == pytest.approx(term.constant + term.weight * term.saturation)


def test_the_passage_that_ranks_is_the_one_explained(passages: Index) -> None:
    (query,) = asked("w3 w5 w9")
    late = LateInteraction(HashedTokens(), stored=StoredTokens(passages.views))
    for retriever in (bm25(passages), DenseRetriever(passages.views, JointWords())):
        (ranking,) = retriever.retrieve([query], keep=300)
        for hit, document in list(zip(ranking.hits, passages.get(ranking.doc_ids), strict=True))[::9]:
            parts = retriever.explain(query, document)
            assert parts is not None
            assert parts.score == pytest.approx(hit.score, abs=1e-5)
            assert parts.read.text == document.text[slice(*(parts.read.span or ()))]
            matches = late.explain(query, document)
            assert matches.read.text == document.text[slice(*(matches.read.span or ()))]


def check(explanation: Explanation, index: Index, pipeline: Cascade, keep: int) -> None:
    """Holds an explanation against the trace of the pipeline."""
    (trace,) = pipeline.trace([explanation.query], keep=keep)
    assert [stage.stage for stage in explanation.stages] == [stage.name for stage in trace.stages]
    for stage, traced in zip(explanation.stages, trace.stages, strict=True):
        ids = traced.ranking.doc_ids
        assert stage.kept == (explanation.document.id in ids)
        assert (stage.last.doc_id if stage.last else None) == (ids[-1] if ids else None)
        if stage.kept:
            assert stage.rank is not None
            assert traced.ranking.hits[stage.rank - 1][:2] == (explanation.document.id, stage.score)
        check_sums(stage)


def check_sums(stage: StageExplanation) -> None:
    if stage.fusion:
        assert math.fsum(part.part for part in stage.fusion) == pytest.approx(stage.score, abs=1e-12)
    elif stage.parts is not None and stage.rank is not None:
        assert stage.parts.score == pytest.approx(stage.score, abs=1e-5)
    if isinstance(stage.parts, TokenParts):
        assert math.fsum(match.similarity for match in stage.parts.tokens) == pytest.approx(stage.parts.score)


@pytest.mark.parametrize("method", FusionMethod)
@pytest.mark.parametrize("whole", [True, False])
def test_every_stage_of_every_document_adds_up(many: Index, passages: Index, whole: bool, method: FusionMethod) -> None:
    index = many if whole else passages
    if method is FusionMethod.INTERLEAVE:
        legs = [FusionLeg("bm25", bm25(index)), FusionLeg("dense", DenseRetriever(index.views, JointWords()))]
        pipeline = Cascade(Fusion(legs, method=method), [], index, recall_keep=20)
    else:
        pipeline = cascade(index, method=method)
    dropped = set()
    (query,) = asked("w3 w5 w9")
    (found,) = pipeline.retrieve([query], keep=3)
    for explanation in explain(index, pipeline, query, list(dict.fromkeys([*found.doc_ids, *IDS[::15]])), keep=3):
        check(explanation, index, pipeline, 3)
        dropped.add(explanation.dropped_by.stage if explanation.dropped_by else "")
    assert len(dropped) > 1


def test_who_dropped_it_and_by_how_much(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    pipeline = Cascade(bm25(index), [RerankStep("short@1", ShorterFirst(), 1)], index, recall_keep=3)
    (query,) = asked("male falcon")
    # BM25 ranks d2 (both words), d4 (male, short), d5 (falcon three times) and d1.
    by_id = {one.document.id: one for one in explain(index, pipeline, query, [f.id for f in FALCONS], keep=1)}
    assert {key: one.dropped_by.stage if one.dropped_by else None for key, one in by_id.items()} == {
        "d1": "bm25", "d2": "short@1", "d3": "bm25", "d4": None, "d5": "short@1", "d6": "bm25",
    }  # fmt: skip
    assert (by_id[DocId("d4")].rank, verdict(by_id[DocId("d4")])) == (1, "Rank 1 of the result.")
    recall, short = by_id[DocId("d1")].stages
    assert (recall.rank, recall.keep, recall.kept, short.reached, short.rank) == (4, 3, False, False, None)
    (ranking,) = bm25(index).retrieve([query], keep=6)
    assert recall.margin == pytest.approx(ranking.hits[3].score - ranking.hits[2].score)
    assert verdict(by_id[DocId("d1")]).startswith("Dropped by bm25: rank 4 where 3 are kept")
    # d2 has 26 characters, d4 15: it is behind by 11.
    assert "rank 3 where 1 are kept, score -26.0000, 11 below d4" in verdict(by_id[DocId("d2")])
    assert "Not found by bm25: it holds nothing" in verdict(by_id[DocId("d6")])


def test_a_document_below_the_cut_of_a_leg_is_found_however_deep(many: Index) -> None:
    pipeline = Cascade(bm25(many), [], many, recall_keep=1)
    (query,) = asked("w0 w1")
    (ranking,) = bm25(many).retrieve([query], keep=300)
    (explanation,) = explain(many, pipeline, query, [ranking.hits[-1].doc_id], keep=1)
    (stage,) = explanation.stages
    assert (stage.rank, stage.kept, stage.score) == (len(ranking.hits), False, ranking.hits[-1].score)


def test_a_tie_that_the_id_decides_is_said(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(["owl", "owl"]))
    (explanation,) = explain(index, Cascade(bm25(index), [], index), asked("owl")[0], [DocId("d00001")], keep=1)
    assert "as much as d00000, the last one kept" in verdict(explanation)


@pytest.mark.parametrize("text", ["", "  ", "?!"])
def test_a_query_that_asks_for_nothing(many: Index, text: str) -> None:
    (explanation,) = explain(many, cascade(many), asked(text)[0], IDS[:1], keep=3)
    assert explanation.stages[0].parts is None
    assert explanation.stages[0].rank is None


def test_an_empty_document_has_no_token_and_no_term(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(["", "owl"]), encoder=JointWords(), tokens="fp16")
    (explanation,) = explain(index, cascade(index), asked("owl falcon")[0], [DocId("d00000")], keep=3)
    lexical, dense, _, late, _ = (stage.parts for stage in explanation.stages)
    assert isinstance(lexical, TermParts)
    assert (lexical.score, lexical.marks) == (0, ())
    assert isinstance(dense, CosineParts)
    assert isinstance(late, TokenParts)
    assert [(match.found, match.similarity) for match in late.tokens] == [(None, -1.0)] * 2


def test_a_document_that_the_filter_leaves_out(tmp_path: Path) -> None:
    documents = [
        Document(DocId("a"), "owl", metadata={"year": 1999}),
        Document(DocId("b"), "owl", metadata={"year": 7}),
    ]
    index = indexed(tmp_path / "x", documents)
    views, where = index.filtered("year > 100"), "year > 100"
    pipeline = Cascade(LexicalRetriever(views, index.analyzer), [], index)
    first, second = explain(index, pipeline, asked("owl")[0], [DocId("a"), DocId("b")], keep=3, where=where)
    assert (first.eligible, first.rank, second.eligible, second.rank) == (True, 1, False, None)
    assert "The filter does not select it" in verdict(second)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([], "no document to explain"),
        (["d1", "d1"], "the document 'd1' twice; expected each id once"),
        (["d11"], "no document has the id 'd11'; expected an id of the index, such as 'd1'"),
        (["zeppelin"], "no document has the id 'zeppelin'; expected an id of the index, such as 'd"),
    ],
)
def test_documents_that_cannot_be_explained(tmp_path: Path, ids: Sequence[str], found: str) -> None:
    index = indexed(tmp_path / "x", FALCONS)
    with pytest.raises(UsageError, match=found):
        explain(index, Cascade(bm25(index), [], index), asked("falcon")[0], [DocId(i) for i in ids], keep=3)
