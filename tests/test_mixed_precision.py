# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.mixed_precision import autocast_dtype


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpus_that_would_emulate_bfloat16_get_float16(monkeypatch, native, dtype):
    """Before compute capability 8.0, PyTorch computes bfloat16 by float32, and says that it is supported."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert autocast_dtype(torch.device("cuda"), amp=True) is dtype
    assert autocast_dtype(torch.device("cpu"), amp=True) is torch.bfloat16
    assert autocast_dtype(torch.device("cuda"), amp=False) is None
