"""From ids, or passages, to stored token vectors, whatever was added, replaced, deleted and merged before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.index.made import (
    FALCONS,
    HashedTokens,
    JointWords,
    add_documents,
    asked,
    build_index,
    compact_index,
    delete_documents,
    indexed,
    named,
    settings_of,
    zipf_texts,
)
from tiercel.config import TokenCodec
from tiercel.data.chunking import Chunking, passages_of
from tiercel.errors import IndexStoreError
from tiercel.index import build, token_vectors
from tiercel.index.residual import same
from tiercel.index.row_encoder import RowEncoder
from tiercel.index.store import Index
from tiercel.index.stored_tokens import StoredTokens
from tiercel.index.writer import IndexWriter
from tiercel.protocols import CandidateGroup
from tiercel.rerankers.late_interaction import LateInteraction
from tiercel.types import DocId, Document, Span

WORST: dict[TokenCodec, float] = {"fp16": 1e-3, "int8": 0.03, "4bit": 0.3, "2bit": 0.8}
"""How far a sum over three tokens of the query may be off, for so few vectors of 16 dimensions."""

QUERY = asked("male falcon pigeons")[0]
CUT = Chunking("tokens", 3, 1)


def scores(index: Index, documents: Sequence[Document], spans: Sequence[Span | None] = ()) -> list[float]:
    """By the stored vectors; the texts of the candidates are not looked at."""
    reranker = LateInteraction(HashedTokens(), stored=StoredTokens(index.views))
    nameless = [Document(document.id, "") for document in documents]
    (found,) = reranker.score([CandidateGroup(QUERY, nameless, spans)])
    return [float(score) for score in found]


def recomputed(texts: Sequence[str]) -> list[float]:
    candidates = [Document(DocId(str(i)), text) for i, text in enumerate(texts)]
    (found,) = LateInteraction(HashedTokens()).score([CandidateGroup(QUERY, candidates)])
    return [float(score) for score in found]


@pytest.mark.parametrize("codec", list(WORST))
def test_stored_is_as_made_anew(tmp_path: Path, codec: TokenCodec) -> None:
    index = indexed(tmp_path / "x", FALCONS, encoder=JointWords(), tokens=codec)
    assert_allclose(scores(index, FALCONS), recomputed([document.text for document in FALCONS]), atol=WORST[codec])


def test_a_document_scores_as_its_best_passage_and_a_passage_as_itself(tmp_path: Path) -> None:
    documents = [*FALCONS, Document(DocId("t"), "a b c d e male falcon", title="Pigeons"), Document(DocId("none"), "")]
    index = indexed(tmp_path / "x", documents, encoder=JointWords(), tokens="fp16", chunking=CUT)
    best, alone, owners, spans = [], [], [], []
    for document in documents:
        passages = passages_of(document, CUT)
        of_one = recomputed([replace(document, text=passage.text).full_text for passage in passages])
        best.append(max(of_one))
        alone += of_one
        owners += [document] * len(passages)
        spans += [(passage.start, passage.end) for passage in passages]
    assert_allclose(scores(index, documents), best, atol=1e-3)
    assert_allclose(scores(index, owners, spans), alone, atol=1e-3)
    backwards = scores(index, owners[::-1], spans[::-1])
    assert backwards == scores(index, owners, spans)[::-1]


def test_a_document_without_tokens_is_last(tmp_path: Path) -> None:
    documents = [*FALCONS, Document(DocId("empty"), ""), Document(DocId("stop"), "the in a")]
    found = scores(indexed(tmp_path / "x", documents, encoder=JointWords(), tokens="2bit"), documents)
    assert found[-2:] == [-3.0, -3.0]
    assert min(found[:-2]) > -3


def test_one_very_long_document(tmp_path: Path) -> None:
    long = Document(DocId("long"), ("the falcon hunts by the cold river " * 3000)[:100_000])
    whole = indexed(tmp_path / "x", [*FALCONS, long], encoder=JointWords(), tokens="int8")
    assert_allclose(scores(whole, [long]), recomputed([long.text]), atol=0.03)
    cut = indexed(tmp_path / "y", [*FALCONS, long], encoder=JointWords(), tokens="int8", chunking=Chunking("tokens"))
    assert_allclose(scores(cut, [long]), recomputed([long.text[:500]]), atol=0.05)


def test_an_index_without_documents_has_no_candidates(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS, encoder=JointWords(), tokens="2bit")
    delete_documents(tmp_path / "x", *(document.id for document in FALCONS))
    index.refresh()
    assert scores(index, []) == []
    with pytest.raises(IndexStoreError, match="no document has the id 'd1'"):
        scores(index, FALCONS)


def test_a_passage_that_is_not_there_is_named(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS, encoder=JointWords(), tokens="fp16", chunking=CUT)
    with pytest.raises(IndexStoreError, match=r"document 'd1' has no passage \(0, 5\)"):
        scores(index, FALCONS[:1], [(0, 5)])


@pytest.mark.parametrize("chunking", [None, CUT])
@pytest.mark.parametrize("codec", ["fp16", "int8", "4bit"])
def test_after_any_change_it_is_as_a_fresh_build(
    tmp_path: Path, codec: TokenCodec, chunking: Chunking | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 16)
    monkeypatch.setattr(build, "_SEGMENT_ROWS", 40)
    encoder = JointWords()
    first, more = named(zipf_texts(90, words=40, seed=1)), named(zipf_texts(30, words=40, seed=2), shape="e{:05d}")
    indexed(tmp_path / "x", first, encoder=encoder, tokens=codec, chunking=chunking)
    changed = [replace(document, text=f"male {document.text}") for document in first[10:20]]
    add_documents(tmp_path / "x", [*more, *changed], encoder=encoder)
    delete_documents(tmp_path / "x", *(document.id for document in first[::7]))
    now = {document.id: document for document in [*first, *more, *changed]}
    for document in first[::7]:
        del now[document.id]
    documents = list(now.values())
    fresh = indexed(tmp_path / "y", documents, encoder=encoder, tokens=codec, chunking=chunking)
    expected = scores(fresh, documents)
    before = scores(Index(tmp_path / "x"), documents)
    compact_index(tmp_path / "x")
    index = Index(tmp_path / "x")
    index.verify()
    (record,) = index.manifest.segments
    assert record.tokens is not None
    assert record.tokens.vectors == sum(part.tokens.vectors for part in fresh.manifest.segments if part.tokens)
    for found in (before, scores(index, documents)):
        if codec == "4bit":
            assert_allclose(found, expected, atol=0.9)  # what was added is coded as what was there
        else:
            assert found == expected


def test_what_is_added_is_coded_as_what_is_there(tmp_path: Path) -> None:
    encoder = JointWords()
    index = indexed(tmp_path / "x", named(zipf_texts(300, words=60, seed=1)), encoder=encoder, tokens="2bit")
    add_documents(tmp_path / "x", FALCONS, encoder=encoder)
    index.refresh()
    first, second = (view.segment.tokens.codec for view in index.views)
    assert same(first, second)
    assert_allclose(scores(index, FALCONS), recomputed([document.text for document in FALCONS]), atol=2 * WORST["2bit"])


def test_what_has_outgrown_its_codec_is_trained_anew(tmp_path: Path) -> None:
    encoder = JointWords()
    index = indexed(tmp_path / "x", FALCONS, encoder=encoder, tokens="4bit")
    add_documents(tmp_path / "x", named(zipf_texts(200, words=60, seed=1)), encoder=encoder)
    index.refresh()
    sizes = [len(view.segment.tokens.codec.arrays["centroids"]) for view in index.views]
    assert sizes[0] == 1
    assert sizes[1] > 8


def test_a_model_beside_the_encoder_or_without_one(tmp_path: Path) -> None:
    for encoder in (None, JointWords(8)):
        beside = HashedTokens(window=2)
        made = settings_of(encoder=encoder, tokens="fp16", token_encoder=beside)
        build_index(tmp_path / "x", FALCONS, made, encoder=encoder, token_encoder=beside)
        index = Index(tmp_path / "x")
        (record,) = index.manifest.segments
        assert record.tokens is not None
        assert (record.tokens.truncated, record.truncated) == (6, 0)
        index.verify()
        assert_allclose(scores(index, FALCONS), recomputed([" ".join(d.text.split()[:2]) for d in FALCONS]), atol=1e-3)


def test_other_models_are_refused(tmp_path: Path) -> None:
    indexed(tmp_path / "x", FALCONS, encoder=JointWords(), tokens="int8")
    expected = "expected the one that made its vectors, of fingerprint hashed-tokens-16-1000000"
    other = JointWords()
    other.tokens = HashedTokens(8)
    for models, found in (
        (RowEncoder(other, jointly=True), "the model of token vectors of fingerprint hashed-tokens-8-1000000"),
        (RowEncoder(JointWords()), "no model of token vectors"),
    ):
        with pytest.raises(IndexStoreError, match=f"{found}; {expected}"), IndexWriter(tmp_path / "x") as writer:
            writer.add(FALCONS, encoder=models)
    indexed(tmp_path / "y", FALCONS, encoder=JointWords())
    with (
        pytest.raises(IndexStoreError, match="expected none: the index keeps no token vectors"),
        IndexWriter(tmp_path / "y") as writer,
    ):
        writer.add(FALCONS, encoder=RowEncoder(JointWords(), jointly=True))


def test_one_pass_makes_both_and_the_bytes_do_not_depend_on_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = named(zipf_texts(60, words=30, seed=3))
    encoder = JointWords()
    first = indexed(tmp_path / "x", documents, encoder=encoder, tokens="4bit")
    assert sum(encoder.passes) == sum(encoder.tokens.encoded) == 60
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(token_vectors, "_BLOCK", 64)
    second = indexed(tmp_path / "y", documents, encoder=JointWords(), tokens="4bit")
    (one,), (other,) = first.manifest.segments, second.manifest.segments
    names = [name for name in one.files if name.startswith("tokens/")]
    assert len(names) == 5
    assert [one.files[name] for name in names] == [other.files[name] for name in names]


def test_ids_of_every_kind_are_found(tmp_path: Path) -> None:
    names = ["", "a", "aa", "b", "é", "鷹", "👩‍👩‍👧", "a" * 300, "\x00", "\U0010ffff"]
    documents = [Document(DocId(name), f"word{i}") for i, name in enumerate(names) if name]
    index = indexed(tmp_path / "x", documents, encoder=JointWords(), tokens="fp16")
    source = StoredTokens(index.views)
    for document in documents:
        ((part,),) = source.parts([CandidateGroup(QUERY, [document, document])])
        expected = HashedTokens().encode_documents([document.text])[0].astype(np.float16)
        assert part.sizes.tolist() == [1, 1]
        assert np.array_equal(part.vectors(0, 1)[0], expected.astype(np.float32))
    for absent in ("", "ab", "zz", "鷹鷹"):
        with pytest.raises(IndexStoreError, match="no document has the id"):
            list(source.parts([CandidateGroup(QUERY, [Document(DocId(absent), "")])]))
