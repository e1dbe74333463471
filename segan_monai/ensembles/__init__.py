# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ensembles of networks with different settings: the mean of their saved probability maps."""

from segan_monai.ensembles.average import RECORD, average_predictions, refuse_trained_cases
from segan_monai.ensembles.predictions import Predictions, label_threshold, read_predictions, regions_of_run

__all__ = [
    "RECORD",
    "Predictions",
    "average_predictions",
    "label_threshold",
    "read_predictions",
    "refuse_trained_cases",
    "regions_of_run",
]
