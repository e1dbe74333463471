# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
from ignite.engine import Engine

from segan_monai.handlers import RunReport


def test_a_run_without_results_has_one_plain_line_instead_of_a_report(tmp_path, caplog):
    engine = Engine(lambda engine, batch: None)
    RunReport(tmp_path).attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run([0])
    (record,) = [record for record in caplog.records if record.name == "segan_monai.handlers.run_report"]
    assert record.getMessage().startswith(f"no report: {tmp_path} contains neither history.csv")
    assert record.exc_info is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("failures", "lines"), [({"a": "cannot be read"}, 0), ({}, 1)])
def test_failed_cases_without_a_result_are_left_to_the_evaluator_s_own_error(failures, lines, tmp_path, caplog):
    engine = Engine(lambda engine, batch: None)
    engine.failures = failures
    RunReport(tmp_path).attach(engine)
    engine.run([0])
    assert [record.getMessage()[:10] for record in caplog.records] == ["no report:"] * lines


def test_a_damaged_file_is_logged_beside_failed_cases(tmp_path, caplog):
    engine = Engine(lambda engine, batch: None)
    engine.failures = {"a": "cannot be read"}
    (tmp_path / "metrics.csv").write_text("case\n", encoding="utf-8")
    RunReport(tmp_path).attach(engine)
    engine.run([0])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"no report: {tmp_path}: a file of the run cannot be read: metrics.csv")


def test_a_fault_of_the_report_does_not_stop_the_run_and_is_logged_in_full(tmp_path, caplog, monkeypatch):
    """Faults of files are reported by name, so this is one of the program."""
    monkeypatch.setattr("segan_monai.handlers.run_report.write_report", lambda folders: folders[1])
    engine = Engine(lambda engine, batch: None)
    RunReport(tmp_path).attach(engine)
    engine.run([0])
    (record,) = [record for record in caplog.records if record.name == "segan_monai.handlers.run_report"]
    assert record.getMessage() == f"the report of {tmp_path} cannot be written; the run itself is complete"
    assert record.exc_info is not None
