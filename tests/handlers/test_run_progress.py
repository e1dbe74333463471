# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Bars on a real pseudo-terminal, and log lines elsewhere."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from ignite.engine import Engine

from segan_monai.handlers import RunProgress
from tests.bundles.workflow import HIPPOCAMPUS, run_workflow


@contextmanager
def terminal():
    """Standard error on a pseudo-terminal; yields what reaches it, complete when the block has ended."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
    seen = io.BytesIO()

    def read():
        while True:
            try:
                content = os.read(reader, 65536)
            except OSError:  # the other side is closed
                return
            if not content:
                return
            seen.write(content)

    thread = threading.Thread(target=read)
    thread.start()
    before = sys.stderr
    try:
        with os.fdopen(writer, "w") as sys.stderr:
            yield seen
    finally:
        sys.stderr = before
        thread.join()
        os.close(reader)


def progress(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.endswith("run_progress")]


def train(handler):
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(0.125)})
    handler.attach(trainer)
    trainer.run([0] * 4, max_epochs=2)


def test_a_training_shows_the_loss_and_what_is_left_of_epoch_and_run():
    with terminal() as seen:
        train(RunProgress("training", mininterval=0))
    text = seen.getvalue().decode()
    assert "training[0/4]   0%" in text, "before the first iteration has ended"
    assert "training [1/2]: [1/4]  25%" in text
    assert "training [2/2]: [4/4] 100%" in text
    assert "loss=0.125, whole run=00:00 left" in text
    assert "<00:00]" in text, "the time left of the epoch"


def test_a_bar_reads_the_loss_only_when_the_trainer_looks_at_it():
    """The host waits for a GPU whose loss it reads."""
    read = []

    class Loss:
        def __init__(self, iteration):
            self.iteration = iteration

        def __float__(self):
            read.append(self.iteration)
            return float(self.iteration)

    trainer = Engine(lambda engine, batch: {"loss": Loss(engine.state.iteration)})
    trainer.look_every = 3
    with terminal() as seen:
        RunProgress("training", mininterval=0).attach(trainer)
        trainer.run([0] * 7)
    assert read == [1, 3, 6]
    text = seen.getvalue().decode()
    assert "loss=6, whole run" in text
    assert "loss=7" not in text


def test_an_evaluation_shows_the_case():
    evaluator = Engine(lambda engine, batch: setattr(engine.state, "batch", batch))
    with terminal() as seen:
        RunProgress("inference", mininterval=0).attach(evaluator)
        evaluator.run([[{"case": "patient_1"}], [{"case": "patient_2"}], []])
    text = seen.getvalue().decode()
    assert "inference: [1/3]" in text
    assert "case=patient_1" in text
    assert "case=patient_2" in text


def test_short_epochs_are_silent_without_a_terminal(capfd, caplog):
    caplog.set_level("INFO")
    train(RunProgress("training"))
    assert capfd.readouterr() == ("", "")
    assert progress(caplog) == []


def test_long_epochs_are_logged_without_a_terminal(capfd, caplog):
    caplog.set_level("INFO")
    train(RunProgress("training", log_seconds=0))
    assert capfd.readouterr() == ("", "")
    lines = [
        f"training: epoch {epoch}/2, {done} of 4, 00:00 left, loss 0.125, whole run 00:00 left"
        for epoch in (1, 2)
        for done in (1, 2, 3, 4)
    ]
    assert progress(caplog) == lines


def test_cases_of_an_evaluation_are_logged_without_a_terminal(caplog):
    caplog.set_level("INFO")
    evaluator = Engine(lambda engine, batch: setattr(engine.state, "batch", batch))
    RunProgress("inference", log_seconds=0).attach(evaluator)
    evaluator.run([[{"case": "patient_1"}], []])
    assert progress(caplog) == ["inference: 1 of 2, 00:00 left, case patient_1", "inference: 2 of 2, 00:00 left"]


@pytest.mark.slow
@pytest.mark.usefixtures("process_as_before")
def test_a_bundle_from_caching_to_inference(hippocampi, tmp_path):
    settings = {"dataset_dir": str(hippocampi), "ckpt_dir": str(tmp_path / "models")}
    found = {}
    for run_id in ("training", "evaluating", "inference"):
        with terminal() as seen:
            run_workflow(HIPPOCAMPUS, run_id, output_dir=str(tmp_path / run_id), **settings)
        found[run_id] = seen.getvalue().decode()
    for text in ("Loading dataset: 100%", "training: [", "loss=", "validation: [", "case=hippocampus_00"):
        assert text in found["training"], found["training"]
    assert found["training"].rindex("training: [") < found["training"].index("validation: [")
    assert "evaluation: [" in found["evaluating"], found["evaluating"]
    assert "inference: [" in found["inference"], found["inference"]
    assert "case=hippocampus_003" in found["inference"]
