"""The network against BERT of transformers with the mask written out, and what each mask promises."""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import pytest
import torch

from tests.models.tiny import make_bert, quiet
from tiercel.models.uni_inputs import UniMask
from tiercel.models.uni_network import UniEncoder

Tensor: TypeAlias = Any

MASKS: list[UniMask] = ["arrow", "one-way"]
EXACT = 2e-5
CONTEXT, COUNT, TOKENS = 9, 4, 5


def _network(mask: UniMask, *, layers: int = 3) -> UniEncoder:
    network = UniEncoder(make_bert(layers=layers), mask)
    torch.nn.init.normal_(network.head.weight)
    network.eval()
    return network


def _ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 60, shape, generator=torch.Generator().manual_seed(seed))


CONTEXTS, CANDIDATES = _ids(1, CONTEXT), _ids(1, COUNT, TOKENS, seed=1)


def _scores(network: UniEncoder, *arguments: Tensor) -> Tensor:
    with torch.no_grad():
        return network(*arguments)


def _dense(network: UniEncoder, context: Tensor, candidates: list[Tensor], *, square: bool = False) -> Tensor:
    """One context and candidates of any lengths as one row through transformers' own BERT, its mask written out.

    `square`: everybody reads everything.
    """
    spans = list(itertools.accumulate([len(context), *map(len, candidates)]))
    owners = torch.tensor([0] * len(context) + [i for i, c in enumerate(candidates, 1) for _ in c])
    positions = [torch.arange(len(context)), *(len(context) + torch.arange(len(c)) for c in candidates)]
    asks, asked = owners[:, None], owners[None, :]
    readable = (asks == asked) | (asked == 0)
    if network.mask == "arrow":
        readable |= asks == 0
    readable |= torch.tensor(square)
    with torch.no_grad(), quiet():
        states = network.body(
            input_ids=torch.cat([context, *candidates])[None],
            token_type_ids=(owners > 0).long()[None],
            position_ids=torch.cat(positions)[None],
            attention_mask=torch.where(readable, 0.0, -torch.inf)[None, None],
        ).last_hidden_state[0]
        means = [states[start:end].mean(0) for start, end in itertools.pairwise(spans)]
        return network.head(torch.stack(means))[:, 0]


@pytest.mark.parametrize("mask", MASKS)
def test_it_is_bert_with_the_mask_written_out(mask: UniMask) -> None:
    network = _network(mask)
    expected = _dense(network, CONTEXTS[0], list(CANDIDATES[0]))
    assert expected.std() > 0.1
    torch.testing.assert_close(_scores(network, CONTEXTS, CANDIDATES)[0], expected, rtol=0, atol=EXACT)


def test_arrow_with_one_candidate_is_a_cross_encoder() -> None:
    network = _network("arrow")
    expected = _dense(network, CONTEXTS[0], [CANDIDATES[0, 0]], square=True)
    torch.testing.assert_close(_scores(network, CONTEXTS, CANDIDATES[:, :1])[0], expected, rtol=0, atol=EXACT)


def test_one_way_with_one_candidate_is_none() -> None:
    network = _network("one-way")
    expected = _dense(network, CONTEXTS[0], [CANDIDATES[0, 0]], square=True)
    assert (_scores(network, CONTEXTS, CANDIDATES[:, :1])[0] - expected).abs().max() > 1e-2


@pytest.mark.parametrize("mask", MASKS)
def test_permuted_candidates_permute_the_scores(mask: UniMask) -> None:
    network = _network(mask)
    order = [2, 0, 3, 1]
    permuted = _scores(network, CONTEXTS, CANDIDATES[:, order])
    torch.testing.assert_close(permuted, _scores(network, CONTEXTS, CANDIDATES)[:, order], rtol=0, atol=EXACT)


@pytest.mark.parametrize("mask", MASKS)
def test_positions_that_run_on_would_not(mask: UniMask) -> None:
    class RunningOn(UniEncoder):
        def candidate_positions(self, candidate_ids: Tensor, lengths: Tensor) -> Tensor:
            _, count, tokens = candidate_ids.shape
            return lengths[:, None, None] + torch.arange(count * tokens).reshape(1, count, tokens)

    network = _network(mask)
    wrong = RunningOn(network.body, mask).eval()
    wrong.head = network.head
    order = [2, 0, 3, 1]
    permuted = _scores(wrong, CONTEXTS, CANDIDATES[:, order])
    assert (permuted - _scores(wrong, CONTEXTS, CANDIDATES)[:, order]).abs().max() > 1e-2


@pytest.mark.parametrize("mask", MASKS)
def test_equal_candidates_score_alike(mask: UniMask) -> None:
    scores = _scores(_network(mask), CONTEXTS, CANDIDATES[:, [0, 1, 0, 2, 0]])[0]
    torch.testing.assert_close(scores[[0, 2, 4]], scores[0].expand(3), rtol=0, atol=EXACT)
    assert (scores[0] - scores[1]).abs() > 1e-2


@pytest.mark.parametrize(("mask", "layers", "leaks"), [("arrow", 1, False), ("arrow", 2, True), ("one-way", 3, False)])
def test_a_candidate_is_read_by_another_through_the_context_alone(mask: UniMask, layers: int, leaks: bool) -> None:
    network = _network(mask, layers=layers)
    embedded: list[Tensor] = []

    def keep(module: Any, arguments: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    with network.body.embeddings.register_forward_hook(keep):
        network(CONTEXTS, CANDIDATES)[0, 1].backward()
    moved = embedded[0].grad[0].abs().sum(dim=1)
    starts = [CONTEXT + TOKENS * i for i in range(COUNT)]
    by_candidate = [float(moved[start : start + TOKENS].sum()) for start in starts]
    assert float(moved[:CONTEXT].sum()) > 0
    assert by_candidate[1] > 0
    assert [value > 0 for value in (by_candidate[0], *by_candidate[2:])] == [leaks] * 3


def test_one_way_scores_alone_as_among_others() -> None:
    network = _network("one-way")
    alone = [_scores(network, CONTEXTS, CANDIDATES[:, [i]]) for i in range(COUNT)]
    torch.testing.assert_close(_scores(network, CONTEXTS, CANDIDATES), torch.cat(alone, dim=1), rtol=0, atol=EXACT)


def test_arrow_scores_depend_on_who_is_read_together() -> None:
    network = _network("arrow")
    together = _scores(network, CONTEXTS, CANDIDATES)
    assert (_scores(network, CONTEXTS, CANDIDATES[:, :3]) - together[:, :3]).abs().max() > 1e-2
    assert (_scores(network, CONTEXTS, CANDIDATES[:, [0, 1, 2, 3, 3]])[:, :4] - together).abs().max() > 1e-2


@pytest.mark.parametrize("mask", MASKS)
def test_padding_moves_nothing(mask: UniMask) -> None:
    """Two contexts with candidates of many lengths in one batch, each as it scores in a row of its own."""
    network = _network(mask)
    contexts = [_ids(length, seed=length) for length in (9, 6)]
    candidates = [[_ids(length, seed=length + 20) for length in lengths] for lengths in ([5, 2, 7], [3, 4])]
    context_ids, context_mask = torch.full((2, 11), 3), torch.zeros(2, 11, dtype=torch.long)
    candidate_ids, candidate_mask = torch.full((2, 4, 8), 3), torch.zeros(2, 4, 8, dtype=torch.long)
    for row, (context, group) in enumerate(zip(contexts, candidates, strict=True)):
        context_ids[row, : len(context)], context_mask[row, : len(context)] = context, 1
        for column, ids in enumerate(group):
            candidate_ids[row, column, : len(ids)], candidate_mask[row, column, : len(ids)] = ids, 1
    scores = _scores(network, context_ids, candidate_ids, context_mask, candidate_mask)
    assert torch.isfinite(scores).all()
    for row, (context, group) in enumerate(zip(contexts, candidates, strict=True)):
        expected = _dense(network, context, group)
        torch.testing.assert_close(scores[row, : len(group)], expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("mask", MASKS)
def test_padding_gives_finite_gradients(mask: UniMask) -> None:
    network = _network(mask).train()
    candidate_mask = torch.ones_like(CANDIDATES)
    candidate_mask[0, 2:], candidate_mask[0, 0, 3:] = 0, 0
    network(CONTEXTS, CANDIDATES, None, candidate_mask)[0, :2].sum().backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert len(gradients) > 30
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
