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


def test_a_fault_of_the_report_does_not_stop_the_run_and_is_logged_in_full(tmp_path, caplog):
    (tmp_path / "history.csv").write_text("epoch,seconds,name,value\n1,1.0,loss,0.5\n", encoding="utf-8")
    (tmp_path / "split.json").write_text('{"unlabeled": 3}', encoding="utf-8")  # a list is expected, unchecked
    engine = Engine(lambda engine, batch: None)
    RunReport(tmp_path).attach(engine)
    engine.run([0])
    (record,) = [record for record in caplog.records if record.name == "segan_monai.handlers.run_report"]
    assert record.getMessage() == f"the report of {tmp_path} cannot be written; the run itself is complete"
    assert record.exc_info is not None
