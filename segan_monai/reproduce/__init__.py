# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reproduction of published tables: runs rows over seeds and folds, and writes Markdown and CSV."""

from segan_monai.reproduce.cluster import Cluster
from segan_monai.reproduce.curve import draw_curve
from segan_monai.reproduce.plan import Plan, check_overrides
from segan_monai.reproduce.published import ResultTable, check_rows, load_tables, parse_overrides, with_labels
from segan_monai.reproduce.runs import RunFailedError, run_row
from segan_monai.reproduce.table import format_csv, format_markdown
from segan_monai.reproduce.tasks import Task, refuse_measured_time, run_tasks, tasks_of_part

__all__ = [
    "Cluster",
    "Plan",
    "ResultTable",
    "RunFailedError",
    "Task",
    "check_overrides",
    "check_rows",
    "draw_curve",
    "format_csv",
    "format_markdown",
    "load_tables",
    "parse_overrides",
    "refuse_measured_time",
    "run_row",
    "run_tasks",
    "tasks_of_part",
    "with_labels",
]
