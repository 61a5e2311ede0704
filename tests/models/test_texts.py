from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.tiny import VOCABULARY
from tiercel.models.export import ExportReport
from tiercel.models.quantize import Feeds
from tiercel.models.runtime import Session
from tiercel.models.texts import (
    SENTENCE_OUTPUT,
    TOKEN_OUTPUT,
    Filler,
    Side,
    Sides,
    TextNetwork,
    read_sides,
    unit_rows,
)

MASK = VOCABULARY.index("[MASK]")
WORDS = ["[CLS]", "the", "falcon", "[SEP]"]


def _by_hand(folder: Path, words: list[str], attended: int) -> NDArray[np.float32]:
    """Unit vectors of these tokens, of which so many of the first are attended to."""
    ids = np.array([[VOCABULARY.index(word) for word in words]])
    mask = (np.arange(ids.size) < attended).astype(np.int64)[np.newaxis]
    [states] = Session(folder / "model.onnx").run({"input_ids": ids, "attention_mask": mask}, [TOKEN_OUTPUT])
    return unit_rows(states[0])


def _network(exported: ExportReport, sides: Sides, *, batch_tokens: int | None = None) -> TextNetwork:
    graph = Session(exported.folder / "model.onnx")
    return TextNetwork(exported.folder, sides, graph, batch_tokens=batch_tokens)


@pytest.mark.parametrize(("attended", "counted"), [(False, 4), (True, 6)])
@pytest.mark.parametrize("batch_tokens", [None, 100])
def test_short_queries_are_filled_up(
    exported_fp32: ExportReport, attended: bool, counted: int, batch_tokens: int | None
) -> None:
    sides = Sides(Side(24, Filler(MASK, length=6, attended=attended)), Side(24))
    network = _network(exported_fp32, sides, batch_tokens=batch_tokens)
    [[[filled], [long]]] = network.run(["the falcon", "the falcon hunts by the river"], [TOKEN_OUTPUT], query=True)
    [[[plain]]] = network.run(["the falcon"], [TOKEN_OUTPUT], query=False)
    np.testing.assert_allclose(filled, _by_hand(exported_fp32.folder, [*WORDS, "[MASK]", "[MASK]"], counted), atol=1e-5)
    assert (len(long), len(plain)) == (8, 4)
    assert np.allclose(filled[:4], plain, atol=1e-5) != attended


def test_skipped_tokens_are_read_all_the_same(exported_fp32: ExportReport) -> None:
    sides = Sides(Side(24), Side(24, skipped=(VOCABULARY.index("the"), VOCABULARY.index("[SEP]"))))
    network = _network(exported_fp32, sides)
    expected = _by_hand(exported_fp32.folder, WORDS, 4)
    [[[document]]] = network.run(["the falcon"], [TOKEN_OUTPUT], query=False)
    [[[query]]] = network.run(["the falcon"], [TOKEN_OUTPUT], query=True)
    np.testing.assert_array_equal(document, expected[[0, 2]])
    np.testing.assert_array_equal(query, expected)


def test_each_side_is_cut_at_its_own_length(exported_fp32: ExportReport) -> None:
    network = _network(exported_fp32, Sides(Side(4), Side(6)))
    for is_query, length in ((True, 4), (False, 6)):
        [[[vector, tokens]]] = network.run(["river " * 9], [SENTENCE_OUTPUT, TOKEN_OUTPUT], query=is_query)
        assert (vector.shape, tokens.shape) == ((16,), (length, 32))
    assert network.truncated == 2
    assert list(network.run([], [TOKEN_OUTPUT], query=True)) == []


def test_the_sides_are_alike_where_nothing_is_said() -> None:
    assert read_sides(24, {}) == (Side(24), Side(24))
    filler = {"token": 4, "length": 12, "attended": False}
    extra = {"query": {"max_tokens": 12, "filler": filler, "skipped": []}, "document": {"skipped": [5, 9]}}
    assert read_sides(24, extra) == (Side(12, Filler(4, 12, False)), Side(24, None, (5, 9)))


class _Runs:
    """The graph of an export that keeps how many texts of what length it was given; off by `drift` in shared runs."""

    def __init__(self, folder: Path, drift: float = 0.0) -> None:
        self._session = Session(folder / "model.onnx")
        self._drift = drift
        self.shapes: list[tuple[int, ...]] = []
        self.inputs, self.outputs = self._session.inputs, self._session.outputs

    def run(self, feeds: Feeds, outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        shape = feeds["input_ids"].shape
        self.shapes.append(shape)
        return [array + np.float32(self._drift * (shape[0] > 1)) for array in self._session.run(feeds, outputs)]


def test_texts_of_one_length_share_runs_where_they_have_the_same_bits(exported_int8: ExportReport) -> None:
    texts = ["the falcon", "the river", "falcon", "a falcon hunts by the river", "by river"] * 8
    for drift, is_alike in ((0.0, True), (1e-7, False)):
        graph = _Runs(exported_int8.folder, drift)
        network = TextNetwork(exported_int8.folder, Sides(Side(24), Side(24)), graph, workers=2)
        alone = [next(network.run([text], network.outputs, query=False))[0] for text in texts]

        assert network.share_runs("a falcon hunts by the river") == is_alike
        graph.shapes.clear()
        [found] = network.run(texts, network.outputs, query=False)

        assert sum(count for count, _ in graph.shapes) == len(texts)
        assert (len(graph.shapes) < len(texts) / 3) == is_alike
        for ones, others in zip(alone, found, strict=True):
            for one, other in zip(ones, others, strict=True):
                np.testing.assert_array_equal(one, other)


def test_runs_are_no_longer_than_every_worker_has_one(exported_int8: ExportReport) -> None:
    graph = _Runs(exported_int8.folder)
    network = TextNetwork(exported_int8.folder, Sides(Side(24), Side(24)), graph, workers=2)
    assert network.share_runs("the falcon hunts")
    graph.shapes.clear()
    list(network.run(["the falcon"] * 4, [SENTENCE_OUTPUT], query=True))
    assert graph.shapes == [(2, 4), (2, 4)]


def test_a_row_of_zeros_stays_one() -> None:
    rows = np.array([[3, 4], [0, 0]], dtype=np.float32)
    expected = np.array([[0.6, 0.8], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(unit_rows(rows), expected, atol=1e-7)
    assert unit_rows(rows[:0]).shape == (0, 2)
