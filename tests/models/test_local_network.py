from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.local import FRAME, REDUCED, make_network, plain_tk, save_network
from tests.models.tiny import quiet
from tiercel.errors import ModelError
from tiercel.models.local_attention import Geometry
from tiercel.models.local_checkpoint import load_local
from tiercel.models.local_network import LocalNetwork, Scored

QUERY = [10, 20, 30]


def drawn(tokens: int, seed: int = 0) -> list[int]:
    """Ids of words, none of them special."""
    chance = random.Random(seed)
    return [chance.randrange(5, 80) for _ in range(tokens)]


def scored(model: LocalNetwork, query: Sequence[int], documents: Sequence[Sequence[int]]) -> Scored:
    with torch.no_grad():
        queries, counts = model.vectors_of_queries([query] * len(documents))
        mask = torch.arange(queries.shape[1])[None, :] < counts[:, None]
        return Scored(*model.head(queries, mask, *model.vectors_of_documents(documents)))


def vectors(model: LocalNetwork, document: Sequence[int]) -> Any:
    with torch.no_grad():
        return model.vectors_of_documents([document])[0][0]


@pytest.mark.parametrize("tokens", [1, 12, 48])
def test_reduced_it_is_plain_tk_and_as_published_it_is_not(tokens: int) -> None:
    model, document = make_network(REDUCED), drawn(tokens)
    with torch.no_grad():
        query = model.vectors_of_queries([QUERY])[0][0]
        expected = plain_tk(query, vectors(model, document), model.head.kernels, REDUCED.floor)
    (found,) = scored(model, QUERY, [document]).scores
    assert float(found) == pytest.approx(expected, rel=1e-5)
    (published,) = scored(make_network(Geometry()), QUERY, [document]).scores
    assert abs(float(published) - expected) > 1


def test_fifteen_values_of_one_window_make_a_short_documents_first_region() -> None:
    model = make_network(Geometry(regions=1, overlap=0, saturation="log"))
    single = make_network(Geometry(regions=1, overlap=0, saturation="log", neighbours=0))
    short = drawn(20)
    assert scored(model, QUERY, [short]).scores[0] == pytest.approx(5 * scored(single, QUERY, [short]).scores[0])


@pytest.mark.parametrize("tokens", [0, 1, 29, 30, 31, 44, 45, 46, 80, 81, 119])
def test_a_longer_document_in_the_batch_changes_no_score(tokens: int) -> None:
    model, document = make_network(), drawn(tokens)
    alone = scored(model, QUERY, [document])
    beside = scored(model, QUERY, [document, drawn(1000, seed=1), []])
    assert float(beside.scores[0]) == pytest.approx(float(alone.scores[0]), rel=1e-5)
    assert beside.best[0].tolist() == alone.best[0].tolist()


def test_windows_of_padding_would_change_it() -> None:
    """What deriving windows from the batch does: the published code's dependence, as a negative control."""
    model, document = make_network(), drawn(31)
    padded = torch.nn.functional.pad(vectors(model, document), (0, 0, 0, 60))[None]
    query = model.vectors_of_queries([QUERY])[0]
    mask = torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        own = model.head(query, mask, padded, torch.tensor([31])).scores
        of_batch = model.head(query, mask, padded, torch.tensor([91])).scores
    assert abs(float(own - of_batch)) > 0.1


def test_a_token_reaches_no_further_than_the_overlap_of_its_chunk() -> None:
    model, document = make_network(), drawn(200)
    changed = [*document]
    changed[100] = 81 - changed[100]  # in the chunk of 80 to 119, which 75 to 124 is read for
    before, after = vectors(model, document), vectors(model, changed)
    is_same = (before == after).all(dim=1)
    assert not is_same[80:120].any()
    assert is_same[:80].all()
    assert is_same[120:].all()


def test_a_token_in_an_overlap_reaches_both_chunks() -> None:
    model, document = make_network(), drawn(120)
    changed = [*document]
    changed[42] = 81 - changed[42]  # read for 0 to 39 and for 40 to 79
    is_same = (vectors(model, document) == vectors(model, changed)).all(dim=1)
    assert not is_same[:80].any()
    assert is_same[80:].all()


def test_without_overlap_a_passage_keeps_its_vectors_when_it_moves_by_a_chunk() -> None:
    passage = drawn(40, seed=5)
    places = {overlap: make_network(Geometry(overlap=overlap)) for overlap in (0, 5)}
    moved = {}
    for overlap, model in places.items():
        first = vectors(model, [*passage, *drawn(80)])[:40]
        later = vectors(model, [*drawn(40, seed=2), *passage, *drawn(40, seed=3)])[40:80]
        moved[overlap] = float((first - later).abs().max())
    assert moved[0] < 1e-6
    assert moved[5] > 1e-3
    by_one = vectors(places[0], [7, *passage, *drawn(79)])[1:41]
    assert float((by_one - vectors(places[0], [*passage, *drawn(80)])[:40]).abs().max()) > 1e-3


def test_leaving_empty_chunks_out_changes_nothing() -> None:
    """Every document with as many chunks as the longest, the empty ones encoded too, against what is done."""
    model, documents = make_network(Geometry(overlap=0)), [drawn(50), drawn(200, seed=1), drawn(7, seed=2)]
    with torch.no_grad():
        packed, lengths = model.vectors_of_documents(documents)
        grid = torch.zeros(3, 5, 42, dtype=torch.long)
        mask = torch.zeros_like(grid)
        for row, document in enumerate(documents):
            for number in range(5):
                part = document[number * 40 : number * 40 + 40]
                framed = torch.tensor([2, *part, 3])
                grid[row, number, : len(framed)] = framed
                mask[row, number, : len(framed)] = 1
        unpacked = model.encoder(grid.flatten(0, 1), mask.flatten(0, 1))[:, 1:41].reshape(3, 200, -1)
    for one, other, length in zip(packed, unpacked, lengths.tolist(), strict=True):
        assert torch.allclose(one[:length], other[:length], atol=1e-5)


def test_rows_of_chunks_and_their_tokens_grow_with_the_length_alone() -> None:
    """Cells of attention: 50 times 50 for every chunk more, where attention over all would have n times n."""
    cells = {}
    for tokens in (400, 800, 1600, 3200):
        chunks = Geometry().chunks(tokens)
        assert len(chunks) == tokens / 40
        cells[tokens] = sum((chunk.last - chunk.first) ** 2 for chunk in chunks)
    assert [cells[2 * n] - cells[n] for n in (400, 800, 1600)] == [n / 40 * 50**2 for n in (400, 800, 1600)]


def test_kept_vectors_score_as_new_ones() -> None:
    model, documents = make_network(), [drawn(90), drawn(300, seed=1)]
    kept = [vectors(model, document) for document in documents]
    with torch.no_grad():
        query = model.vectors_of_queries([QUERY])[0]
        for one, score in zip(kept, scored(model, QUERY, documents).scores, strict=True):
            found = model.head(query, torch.ones(1, 3, dtype=torch.bool), one[None], torch.tensor([len(one)])).scores
            assert float(found[0]) == pytest.approx(float(score), rel=1e-5)


def test_regions_do_not_overlap_and_the_first_is_the_best() -> None:
    model, document = make_network(), drawn(400)
    with torch.no_grad():
        query, counts = model.vectors_of_queries([QUERY])
        windows = model.head.windows(query, torch.ones(1, 3, dtype=torch.bool), *model.vectors_of_documents([document]))
    best = scored(model, QUERY, [document]).best[0].tolist()
    assert best[0] == int(windows[0].argmax())
    assert counts.tolist() == [3]
    assert min(abs(a - b) for a in best for b in best if a != b) >= 15


def test_a_short_document_lacks_regions_and_they_count_as_empty_ones() -> None:
    model = make_network(Geometry(regions=2))
    first = make_network(Geometry(regions=1))
    nothing = scored(first, QUERY, [[]]).scores[0]
    found = scored(model, QUERY, [drawn(20)])
    assert found.best[0].tolist() == [0, -1]
    assert found.scores[0] == pytest.approx(scored(first, QUERY, [drawn(20)]).scores[0] + nothing)


def test_a_saved_model_scores_as_before_and_half_a_folder_is_refused(tmp_path: Path) -> None:
    folder = save_network(tmp_path / "model")
    with quiet():
        model, tokenizer = load_local(folder)
        ids = tokenizer("the falcon hunts by the cold river", add_special_tokens=False)["input_ids"]
    assert model.frame == FRAME
    assert model.encoder.dimension == 8
    again = make_network(dimension=8)
    assert torch.equal(scored(model, ids[:2], [ids]).scores, scored(again, ids[:2], [ids]).scores)
    (folder / "local_attention.safetensors").unlink()
    with pytest.raises(ModelError, match="it cannot be loaded"), quiet():
        load_local(folder)


def test_more_tokens_than_there_are_positions_are_refused() -> None:
    with pytest.raises(ModelError, match="chunks or queries of 72 tokens; expected at most 64"):
        make_network(Geometry(chunk=60))
