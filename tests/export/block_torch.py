# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Python text that makes importing PyTorch fail."""

from __future__ import annotations

BLOCK_TORCH = "import sys; sys.modules.update(dict.fromkeys(['torch', 'monai', 'segan_monai'])); "
