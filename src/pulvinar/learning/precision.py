"""In which numbers training computes: bfloat16 in the matrix products, float32 in weights and losses."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16"]


def uses_bfloat16(device: torch.device, precision: Precision) -> bool:
    """Whether this is bfloat16: where asked for, or where 'auto' and the machine computes in it."""
    able = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return precision == "bfloat16" or (precision == "auto" and able)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which networks compute with this precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(device, precision))


def precise(values: Tensor) -> Tensor:
    """What a loss is computed in: float32, or float64 where the values are."""
    return values if values.dtype == torch.float64 else values.float()
