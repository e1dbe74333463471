# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

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


def test_a_fault_of_the_report_does_not_stop_the_run_and_is_logged_in_full(tmp_path, caplog, monkeypatch):
    """Faults of files are reported by name, so this is one of the program."""
    monkeypatch.setattr("segan_monai.handlers.run_report.write_report", lambda folders: folders[1])
    engine = Engine(lambda engine, batch: None)
    RunReport(tmp_path).attach(engine)
    engine.run([0])
    (record,) = [record for record in caplog.records if record.name == "segan_monai.handlers.run_report"]
    assert record.getMessage() == f"the report of {tmp_path} cannot be written; the run itself is complete"
    assert record.exc_info is not None
