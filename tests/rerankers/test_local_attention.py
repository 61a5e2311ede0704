from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.reranker import RerankerConformance
from tests.index.made import build_index, settings_of
from tests.models.local import save_network
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.models.description import read_description
from tiercel.models.export_local_attention import export
from tiercel.models.local_attention import Geometry, head_of
from tiercel.models.token_encoder import OnnxTokenEncoder
from tiercel.models.zoo import find_source
from tiercel.protocols import CandidateGroup, Explains, Locates, Reranker
from tiercel.rerankers import local_attention
from tiercel.rerankers.local_attention import LocalAttention
from tiercel.types import DocId, Document, Query, QueryId

NOISE = "the house is small and bread is sold by the north tower "
HUNT = "falcons hunt in deep winter "
LONG = Document(DocId("long"), NOISE * 20 + HUNT + NOISE * 20, title="A query")
DOCUMENTS = [
    LONG,
    Document(DocId("short"), "the falcon hunts by the cold river"),
    Document(DocId("other"), NOISE * 7),
    Document(DocId("none"), ""),
    Document(DocId("titled"), "", title="falcons hunt"),
]


def query(text: str) -> Query:
    return Query(QueryId(text), text)


GROUPS = [
    CandidateGroup(query("falcons hunt"), DOCUMENTS),
    CandidateGroup(query("who swims in the deep river?"), DOCUMENTS[1:4]),
    CandidateGroup(query("cold"), DOCUMENTS[:1]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("local")
    source = find_source(str(save_network(place / "source", dimension=16)), offline=True)
    return export(source, place / "model", precision="fp32").folder


def made(folder: Path, *, stored: StoredTokens | None = None, threads: int = 1) -> LocalAttention:
    extra = read_description(folder).extra
    geometry, head = Geometry(**extra["geometry"]), head_of(extra["head"])
    return LocalAttention(OnnxTokenEncoder(folder), geometry, head, stored=stored, threads=threads)


class TestEncoded(RerankerConformance):
    @pytest.fixture
    def reranker(self, folder: Path) -> Reranker:
        return made(folder)

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return GROUPS


def test_threads_and_slabs_do_not_change_a_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(folder).locate(GROUPS)
    monkeypatch.setattr(local_attention, "_SLAB_CHARACTERS", 100)
    for first, second in zip(one, made(folder, threads=3).locate(GROUPS), strict=True):
        assert first.scores.tolist() == second.scores.tolist()
        assert first.spans == second.spans


def test_the_span_is_that_of_the_best_region(folder: Path) -> None:
    reranker = made(folder)
    assert isinstance(reranker, Locates)
    (located,) = reranker.locate(GROUPS[:1])
    for document, span in zip(DOCUMENTS[:3], located.spans, strict=False):
        assert span is not None
        start, end = span
        assert 0 <= start < end <= len(document.text)
        if len(document.text) > 400:
            assert len(document.text[start:end].split()) <= 40
    assert located.spans[3:] == [None, None]  # nothing, and a title alone


def test_regions_explain_the_score_and_lie_in_the_text(folder: Path) -> None:
    reranker = made(folder)
    assert isinstance(reranker, Explains)
    parts = reranker.explain(GROUPS[0].query, LONG)
    (located,) = reranker.locate([CandidateGroup(GROUPS[0].query, [LONG])])
    assert len(parts.windows) == 3
    assert sum(window.score for window in parts.windows) == pytest.approx(located.scores[0], rel=1e-5)
    assert parts.windows[0].read.span == located.spans[0]
    for window in parts.windows:
        assert window.read.span is not None
        assert LONG.text[slice(*window.read.span)] in window.read.text
    short = reranker.explain(GROUPS[0].query, DOCUMENTS[1])
    assert [bool(window.read.text) for window in short.windows] == [True, False, False]


def test_vectors_of_an_index_score_as_new_ones(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tokens="fp16", token_encoder=OnnxTokenEncoder(folder))
    build_index(tmp_path / "x", DOCUMENTS, settings, token_encoder=OnnxTokenEncoder(folder))
    stored = made(folder, stored=StoredTokens(Index(tmp_path / "x").views), threads=2)
    assert stored.is_stored
    for new, kept in zip(made(folder).locate(GROUPS), stored.locate(GROUPS), strict=True):
        np.testing.assert_allclose(kept.scores, new.scores, rtol=0.01, atol=0.05)
        assert kept.spans == new.spans
    whole_slabs = stored.locate(GROUPS)
    monkeypatch.setattr(local_attention, "_SLAB_TOKENS", 30)
    for whole, slabs in zip(whole_slabs, stored.locate(GROUPS), strict=True):
        assert slabs.scores.tolist() == whole.scores.tolist()


def test_what_a_document_is_cut_to_is_counted(tmp_path: Path) -> None:
    source = find_source(str(save_network(tmp_path / "source", dimension=16)), offline=True)
    reranker = made(export(source, tmp_path / "model", precision="fp32", max_tokens=50).folder)
    reranker.score(GROUPS)
    assert reranker.truncated == 2  # the long one and the other, each once


def test_short_documents_are_told(folder: Path) -> None:
    reranker = made(folder)
    assert reranker.advice == ""
    reranker.score(GROUPS[1:2])
    assert "tokens a document: late and cross read such as a whole" in reranker.advice
    reranker.score(GROUPS[2:] * 20)
    assert reranker.advice == ""
