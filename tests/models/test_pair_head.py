from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.models.tiny import make_encoder
from tiercel.errors import ModelError
from tiercel.models.description import HEAD_FILE, ModelSource, compute_fingerprint, read_description
from tiercel.models.export_encoder import export
from tiercel.models.pair_head import PairHead, read_head, write_head


def drawn_head(dimension: int, width: int = 8, *, seed: int = 0) -> PairHead:
    draw = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return draw.standard_normal(shape).astype(np.float32)

    return PairHead(floats(width, 4 * dimension), floats(width), floats(width), floats())


def test_a_score_worked_out_by_hand() -> None:
    # One dimension: u = 2, v = -1: [2, -1, -2, 3]. Two hidden units: 2 - 1 - 2 + 3 + 1 = 3, and -6 + 1, which is cut.
    hidden = np.array([[1, 1, 1, 1], [0, 0, 0, -2]], dtype=np.float32)
    head = PairHead(hidden, np.ones(2, np.float32), np.array([0.5, 9], np.float32), np.float32(0.25))  # type: ignore[arg-type]
    scores = head.scores(np.array([2], np.float32), np.array([[-1]], np.float32))
    assert scores.tolist() == [0.5 * 3 + 0.25]


def test_folded_weights_give_what_the_joined_vector_gives() -> None:
    head, draw = drawn_head(5), np.random.default_rng(1)
    u, v = draw.standard_normal(5).astype(np.float32), draw.standard_normal((7, 5)).astype(np.float32)
    joined = np.concatenate([np.broadcast_to(u, v.shape), v, u * v, np.abs(u - v)], axis=1)
    plain = np.maximum(joined @ head.hidden.T + head.hidden_bias, 0) @ head.output + head.output_bias
    assert_allclose(head.scores(u, v), plain, rtol=1e-4, atol=1e-4)
    assert head.scores(u, v[:0]).shape == (0,)


def test_a_written_head_is_read_again(tmp_path: Path) -> None:
    head = drawn_head(3)
    write_head(tmp_path, head)
    for part, again in zip(head, read_head(tmp_path), strict=True):
        assert np.array_equal(part, again)


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"no {HEAD_FILE}; expected an encoder with a head over two vectors"):
        read_head(tmp_path)
    write_head(tmp_path, drawn_head(3))
    whole = (tmp_path / HEAD_FILE).read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / HEAD_FILE).write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot be read"):
            read_head(tmp_path)
    write_head(tmp_path, drawn_head(3)._replace(output=np.ones(3, np.float32)))
    with pytest.raises(ModelError, match="its arrays do not fit together"):
        read_head(tmp_path)


def test_an_export_carries_the_head_and_its_fingerprint_covers_it(tmp_path: Path) -> None:
    make_encoder(tmp_path / "source")
    write_head(tmp_path / "source", drawn_head(16))
    folder = export(ModelSource("tiny", tmp_path / "source", "test"), tmp_path / "model", precision="fp32").folder
    assert np.array_equal(read_head(folder).hidden, drawn_head(16).hidden)
    about = read_description(folder)
    assert compute_fingerprint(folder, about) == about.fingerprint
    write_head(folder, drawn_head(16, seed=1))
    assert compute_fingerprint(folder, about) != about.fingerprint
