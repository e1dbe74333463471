# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The model zoo's checks of a bundle, and this project's: train, resume, evaluate, infer, export, on generated data."""

from __future__ import annotations

from segan_monai.simulation.sample_data import write_sample_data
from segan_monai.verify.checks import CHECKS, Check, Trial, format_checks, run_checks
from segan_monai.verify.metadata_schema import METADATA_SCHEMA

__all__ = ["CHECKS", "METADATA_SCHEMA", "Check", "Trial", "format_checks", "run_checks", "write_sample_data"]
