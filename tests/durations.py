# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Table of the seconds that each test file takes: the pytest option ``--durations-table=FILE``."""

from __future__ import annotations

import os
import platform
from collections import Counter
from datetime import date
from pathlib import Path

import pytest


class DurationsTable:
    """Pytest plugin that sums setup, call and teardown per test file and writes them as Markdown.

    Args:
        file: the page to write.
        marks: value of pytest's ``-m``, named on the page.
    """

    def __init__(self, file: Path, marks: str) -> None:
        self.file = file
        self.marks = marks
        self.seconds: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test; under pytest-xdist the controller sees the reports of all workers."""
        name = report.nodeid.split("::")[0]
        self.seconds[name] += report.duration
        self.tests[name] += report.when == "call"

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        rows = [f"| `{name}` | {self.tests[name]} | {seconds:.1f} |" for name, seconds in self.seconds.most_common()]
        total = f"| total | {self.tests.total()} | {sum(self.seconds.values()):.1f} |"
        selection = f"the tests that match `{self.marks}`" if self.marks else "all tests"
        lines = [
            "# Durations of the tests",
            "",
            f"Seconds of setup, call and teardown per test file, summed over {selection}. Files run in parallel,",
            "so a run takes less than the total.",
            "",
            f"Machine: {os.cpu_count()} CPU cores, Python {platform.python_version()}.",
            f"Written by `bash scripts/test.sh --durations-table` on {date.today()}. Later tests and changes are",
            "not in these figures.",
            "",
            "| file | tests | seconds |",
            "|---|---:|---:|",
            total,
            *rows,
        ]
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
