"""In what precision is multiplied while training?"""

from __future__ import annotations

from typing import Any

import torch

from tiercel.training.settings import TrainSettings

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(settings: TrainSettings) -> Any:
    """A context in which products are of the settings' precision; the weights stay in fp32."""
    return torch.autocast(settings.device, _DTYPES.get(settings.precision), enabled=settings.precision in _DTYPES)


def exactly(device: str) -> Any:
    """A context of products in fp32: of cosines, bf16 has two digits, and many documents of a query would be tied."""
    return torch.autocast(device, enabled=False)
