"""In what precision is multiplied while training?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch

from tiercel.training.settings import TrainSettings

S = TypeVar("S", bound=TrainSettings)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(settings: TrainSettings) -> Any:
    """A context in which products are of the settings' precision; the weights stay in fp32."""
    return torch.autocast(settings.device, _DTYPES.get(settings.precision), enabled=settings.precision in _DTYPES)


def exactly(device: str) -> Any:
    """A context of products in fp32: of cosines, bf16 has two digits, and many documents of a query would be tied."""
    return torch.autocast(device, enabled=False)


def with_precision(settings: S) -> S:
    """The settings with a precision in place of `auto`: the same on one machine, and what a checkpoint remembers."""
    if settings.precision != "auto":
        return settings
    return replace(settings, precision="bf16" if _multiplies_bf16(settings.device) else "fp32")


def _multiplies_bf16(device: str) -> bool:
    """Whether the processor has instructions for it; without them torch imitates them and takes ten times as long."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
