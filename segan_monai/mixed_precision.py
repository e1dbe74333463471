# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of dtype for mixed precision."""

from __future__ import annotations

import torch


def autocast_dtype(device: torch.device, amp: bool) -> torch.dtype | None:
    """Return the dtype of mixed precision, None without ``amp``: bfloat16, or float16 on GPUs that would emulate it."""
    if not amp:
        return None
    emulates = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulates else torch.bfloat16


def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; if not, mixed precision slows training on it."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
