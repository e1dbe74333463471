# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial trainers."""

from segan_monai.engines.adversarial import AdversarialTrainer, NonFiniteLossError
from segan_monai.engines.segan import SegANTrainer

__all__ = ["AdversarialTrainer", "NonFiniteLossError", "SegANTrainer"]
