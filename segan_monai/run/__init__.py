# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Start of a bundle run: command line, output folder, run record and error reporting."""

from segan_monai.command_line import bundle_root, read_arguments
from segan_monai.run.failures import what_to_do
from segan_monai.run.parser import run_settings, trained_settings, unlabeled_cases
from segan_monai.run.start import start_run

__all__ = [
    "bundle_root",
    "read_arguments",
    "run_settings",
    "start_run",
    "trained_settings",
    "unlabeled_cases",
    "what_to_do",
]
