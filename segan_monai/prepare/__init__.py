# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Conversion of public data sets to a checked, compressed folder that is fast to read."""

from __future__ import annotations

from segan_monai.prepare.download import download_archive, download_hippocampus
from segan_monai.prepare.options import PrepareOptions
from segan_monai.prepare.run import Prepared, prepare_data_set

__all__ = ["PrepareOptions", "Prepared", "download_archive", "download_hippocampus", "prepare_data_set"]
