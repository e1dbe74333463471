# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import date
from types import SimpleNamespace

from tests.durations import DurationsTable


def test_the_page_says_when_it_was_measured(tmp_path):
    table = DurationsTable(tmp_path / "page.md", "not slow")
    for name, when, seconds in (("a.py::x", "setup", 0.25), ("a.py::x", "call", 0.5), ("b.py::y", "call", 2.0)):
        table.pytest_runtest_logreport(SimpleNamespace(nodeid=name, when=when, duration=seconds))
    table.pytest_sessionfinish()
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert f" on {date.today()}. Later tests and changes are\nnot in these figures." in page
    assert "| total | 2 | 2.8 |\n| `b.py` | 1 | 2.0 |\n| `a.py` | 1 | 0.8 |\n" in page
