# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Creates a bundle for a new data set: measures the data, chooses settings by rule, writes configs."""

from __future__ import annotations

from segan_monai.new_bundle.choices import METHODS, Choice, choose
from segan_monai.new_bundle.description import DataDescription, describe_data
from segan_monai.new_bundle.fingerprint import Fingerprint, take_fingerprint
from segan_monai.new_bundle.write import new_bundle

__all__ = [
    "METHODS",
    "Choice",
    "DataDescription",
    "Fingerprint",
    "choose",
    "describe_data",
    "new_bundle",
    "take_fingerprint",
]
