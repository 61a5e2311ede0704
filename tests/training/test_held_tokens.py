from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tiercel.training.held_tokens import HeldTokens


def test_each_text_is_read_once_and_comes_back_padded() -> None:
    asked = list[str]()

    def read(texts: Sequence[str]) -> list[Any]:
        asked.extend(texts)
        return [torch.full((len(text), 2), float(ord(text[0]))) for text in texts]

    held = HeldTokens(read, 2)
    held.add(["ccc", "a", "ccc"])
    vectors, mask = held.padded(["a", "bb", "ccc"])
    assert asked == ["a", "ccc", "bb"]
    assert mask.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert vectors[:, :, 0].tolist() == [[97, 0, 0], [98, 98, 0], [99, 99, 99]]
    assert vectors.dtype == torch.float32
