from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conformance.reranker import RerankerConformance
from tests.conftest import UniModel
from tiercel.errors import ModelError, UsageError
from tiercel.models.uni_checkpoint import load_uni_encoder
from tiercel.models.uni_scores import Scored
from tiercel.protocols import CandidateGroup
from tiercel.rerankers import uni_encoder
from tiercel.rerankers.uni_encoder import OnnxUniEncoder
from tiercel.types import DocId, Document, Query, QueryId

TURNS = ("the falcon hunts", "who swims?", "nobody swims by the river")
TEXTS = ["bread is sold", "In winter the river is cold and deep.", "", "a small house", "far north"]
ROUNDING = 2e-5


def _group(turns: Sequence[str], texts: Sequence[str], *, name: str = "q") -> CandidateGroup:
    documents = [Document(DocId(f"d{i:04}"), text) for i, text in enumerate(texts)]
    return CandidateGroup(Query(QueryId(name), turns[-1], tuple(turns[:-1])), documents)


@pytest.fixture
def one_way(uni_models: dict[str, UniModel]) -> OnnxUniEncoder:
    return OnnxUniEncoder(uni_models["one-way"].exported)


@pytest.fixture
def arrow(uni_models: dict[str, UniModel]) -> OnnxUniEncoder:
    return OnnxUniEncoder(uni_models["arrow"].exported)


class _Conformance(RerankerConformance):
    score_tolerance = ROUNDING
    mask = "one-way"

    @pytest.fixture
    def reranker(self, uni_models: dict[str, UniModel]) -> OnnxUniEncoder:
        return OnnxUniEncoder(uni_models[self.mask].exported, threads=2)

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return [
            _group(TURNS, TEXTS[:4]),
            _group(["cold bread"], TEXTS[:2], name="r"),
            _group([""], TEXTS[1:2], name="s"),
        ]


class TestOneWay(_Conformance):
    pass


class TestArrow(_Conformance):
    mask = "arrow"
    listwise = True


@pytest.mark.parametrize("mask", ["one-way", "arrow"])
def test_it_gives_the_scores_of_torch(uni_models: dict[str, UniModel], mask: str) -> None:
    source, exported = uni_models[mask]
    network, tokenizer, _ = load_uni_encoder(source)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text)["input_ids"])

    rows = [ids(text) for text in TEXTS]
    width = max(map(len, rows))
    padded = torch.tensor([[row + [0] * (width - len(row)) for row in rows]])
    present = torch.tensor([[[1] * len(row) + [0] * (width - len(row)) for row in rows]])
    with torch.no_grad():
        expected = network(torch.tensor([ids(" [SEP] ".join(TURNS))]), padded, None, present)[0].numpy()
    (scores,) = OnnxUniEncoder(exported).score([_group(TURNS, TEXTS)])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=ROUNDING)
    assert np.ptp(scores) > 0.1


def test_the_history_is_read(one_way: OnnxUniEncoder) -> None:
    (with_history,), (alone,) = (one_way.score([_group(turns, TEXTS)]) for turns in (TURNS, TURNS[-1:]))
    assert np.abs(with_history - alone).max() > 1e-3


def test_what_does_not_fit_is_cut_and_counted(one_way: OnnxUniEncoder) -> None:
    """40 tokens of context, of which 39 stay after [CLS] and 21 are left for the turns before; 24 of a candidate."""
    newest = "the river is deep " * 4 + "."
    groups = [
        _group(["the falcon hunts " * n, newest], ["bread " * m, "cold"]) for n, m in ((90, 90), (30, 60), (1, 22))
    ]
    first, second, third = one_way.score(groups)
    assert (one_way.truncated_queries, one_way.truncated) == (2, 2)
    np.testing.assert_allclose(first, second, rtol=0, atol=ROUNDING)
    assert abs(third[0] - first[0]) > 1e-4
    assert one_way.score([_group(["who " * 90], [])])[0].shape == (0,)
    assert one_way.truncated_queries == 2
    # [CLS], 38 tokens and a [SEP]; 24 of the long candidate, 3 of the short one.
    assert one_way.tokens_read == 2 * (40 + 27) + (1 + 3 + 1 + 17 + 1) + 27


def test_lengths_that_save_little_are_told(uni_models: dict[str, UniModel]) -> None:
    reranker = OnnxUniEncoder(uni_models["one-way"][1])
    assert reranker.advice == ""
    # 4 tokens of context, 10 of each of two candidates: 2 * (4 + 10) against 4 + 2 * 10, 1.2 times.
    reranker.score([_group(["who hunts"], ["the river is cold and deep in winter"] * 2)])
    assert reranker.advice.startswith("a cross-encoder would have read 1.2 times as many tokens: a Uni-Encoder pays")
    for _ in range(20):
        reranker.score([_group(["the falcon hunts " * 20], ["cold"] * 3)])
    assert reranker.advice == ""


def test_title_and_text_are_scored(one_way: OnnxUniEncoder) -> None:
    titled = CandidateGroup(Query(QueryId("q"), "river"), [Document(DocId("a"), "is cold", title="The river")])
    np.testing.assert_array_equal(
        one_way.score([titled])[0], one_way.score([_group(["river"], ["The river is cold"])])[0]
    )


def test_a_thousand_candidates(one_way: OnnxUniEncoder, arrow: OnnxUniEncoder) -> None:
    many = _group(TURNS, TEXTS * 200)
    (scores,), (few,) = one_way.score([many]), one_way.score([_group(TURNS, TEXTS)])
    np.testing.assert_allclose(scores, np.tile(few, 200), rtol=0, atol=ROUNDING)
    (listwise,), (of_five,) = arrow.score([many]), arrow.score([_group(TURNS, TEXTS)])
    np.testing.assert_allclose(listwise, np.tile(of_five, 200), rtol=0, atol=ROUNDING)


def test_arrow_reads_groups_of_its_size_in_the_order_given(arrow: OnnxUniEncoder) -> None:
    texts = [*TEXTS, "cold bread", "the tower"]
    (scores,) = arrow.score([_group(TURNS, texts)])
    (first,), (last,) = (arrow.score([_group(TURNS, some)]) for some in (texts[:5], texts[-5:]))
    np.testing.assert_allclose(scores, np.concatenate([first, last[-2:]]), rtol=0, atol=ROUNDING)
    assert arrow.group_size == 5


def test_groups_are_held_some_at_a_time(one_way: OnnxUniEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [_group(TURNS, TEXTS), _group(["bread"], []), _group(["cold"], TEXTS[:3])]
    whole = one_way.score(groups)
    monkeypatch.setattr(uni_encoder, "_SLAB_CANDIDATES", 4)
    for parted, together in zip(one_way.score(groups), whole, strict=True):
        np.testing.assert_array_equal(parted, together)


def test_sigmoid_is_asked_for(uni_models: dict[str, UniModel], one_way: OnnxUniEncoder) -> None:
    sigmoid = OnnxUniEncoder(uni_models["one-way"].exported, score="sigmoid")
    (logits,), (scores,) = (reranker.score([_group(TURNS, TEXTS)]) for reranker in (one_way, sigmoid))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-5)
    assert sigmoid.fingerprint != one_way.fingerprint
    with pytest.raises(UsageError, match="score 'softmax'; expected logit or sigmoid"):
        OnnxUniEncoder(uni_models["one-way"].exported, score="softmax")  # type: ignore[arg-type]


def test_an_explanation_has_the_score_and_what_was_read(one_way: OnnxUniEncoder, arrow: OnnxUniEncoder) -> None:
    group = _group(["who hunts?", "bread"], ["river " * 30])
    ((score,),) = one_way.score([group])
    parts = one_way.explain(group.query, group.documents[0])
    assert parts is not None
    (window,) = parts.windows
    # `who hunts ?` and `bread`, and 22 tokens beside the two special ones.
    assert (parts.score, window.tokens, window.cut_tokens, window.read.end) == (score, 4 + 22, 8, 22 * 6 - 1)
    assert arrow.explain(group.query, group.documents[0]) is None


def test_changed_files_other_families_and_other_scores_are_noticed(
    uni_models: dict[str, UniModel], tmp_path: Path
) -> None:
    changed = shutil.copytree(uni_models["arrow"].exported, tmp_path / "changed")
    path = changed / "tiercel.json"
    description = json.loads(path.read_text())
    description["probe"]["values"][1] += 1.0
    path.write_text(json.dumps(description))
    with pytest.raises(ModelError, match=r"other scores than where it was exported \(by 1\)"):
        OnnxUniEncoder(changed)
    path.write_text(json.dumps(description | {"extra": description["extra"] | {"group_size": 6}}))
    with pytest.raises(ModelError, match=r"as exported\. Export the model again"):
        OnnxUniEncoder(changed)
    path.write_text(json.dumps(description | {"family": "cross-encoder"}))
    with pytest.raises(ModelError, match="this model is exported as cross-encoder; expected uni-encoder"):
        OnnxUniEncoder(changed)


def test_a_score_that_is_no_number_names_the_pair(one_way: OnnxUniEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Scored:
        return Scored([np.array([0.5, np.nan], dtype=np.float32)], 7)

    monkeypatch.setattr(uni_encoder, "score_groups", broken)
    with pytest.raises(ModelError, match=r"one-way: .* score nan to the pair of query 'q' and document 'd0001'"):
        one_way.score([_group(TURNS, TEXTS[:2])])
