from __future__ import annotations

import pytest
import torch

from tiercel.training.precision import autocast, with_precision
from tiercel.training.settings import CrossSettings, read_settings


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "precision"), [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")]
)
def test_auto_is_bf16_only_where_the_processor_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert with_precision(CrossSettings()) == read_settings(CrossSettings, None, [f"precision={precision}"])


def test_products_are_of_the_precision_and_weights_are_not() -> None:
    layer = torch.nn.Linear(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast(read_settings(CrossSettings, None, [f"precision={precision}"])):
            assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32
