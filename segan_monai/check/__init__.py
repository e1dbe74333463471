# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of configs and data before a run."""

from __future__ import annotations

from segan_monai.check.audit import audit_config, format_audit
from segan_monai.check.config_files import check_overlay_files, run_id_of, unknown_overrides
from segan_monai.check.report import Finding, Report
from segan_monai.check.runs import (
    check_cases_before_run,
    check_command_line,
    check_configs_before_run,
    lacks_its_data,
)
from segan_monai.check.values import refuse_wrong_values
from segan_monai.command_line import read_arguments
from segan_monai.typed import read_literals

__all__ = [
    "Finding",
    "Report",
    "audit_config",
    "check_cases_before_run",
    "check_command_line",
    "check_configs_before_run",
    "check_overlay_files",
    "format_audit",
    "lacks_its_data",
    "read_arguments",
    "read_literals",
    "refuse_wrong_values",
    "run_id_of",
    "unknown_overrides",
]
