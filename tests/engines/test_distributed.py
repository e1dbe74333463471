# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Two processes train as one would on the batches of both."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from segan_monai.handlers import EvaluationReport
from tests.engines.distributed_run import NAMES, STOPPED, make_batches, make_trainer, state_of
from tests.handlers.evaluations import CASES, REGIONS, evaluator
from tests.torchrun import torchrun_in_forks

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("distributed_run.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What both processes wrote."""
    folder = tmp_path_factory.mktemp("trained")
    for name in NAMES:
        (folder / name).mkdir()
    done = torchrun_in_forks(
        SCRIPT,
        folder,
        "train_on_halves",
        "train_with_unpaired_means",
        "train_without_uniform_samples",
        "send_in_parts",
        "be_asked_to_stop",
        "read_later",
        "train_with_batch_norm",
        "resume",
        "evaluate",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def of_both(folder, name):
    return [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_one_process_on_the_joint_batch(name, trained):
    (first, _), (second, _) = of_both(trained, name)
    assert all(torch.equal(first[key], second[key]) for key in first), "both have the same weights, bit for bit"
    alone = make_trainer(name, make_batches(name))
    before = state_of(alone)
    alone.run()
    after = state_of(alone)
    for key in after:
        torch.testing.assert_close(first[key] - before[key], after[key] - before[key], atol=2e-6, rtol=1e-3)
    assert any(not torch.equal(after[key], before[key]) for key in after)


def test_running_means_and_balanced_weights_are_those_of_both_processes(trained):
    (first, means), (second, others) = of_both(trained, "unpaired")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(means, others)
    assert means.abs().max() > 0


def test_terms_that_one_process_lacks_are_omitted_by_both(trained):
    (first, terms), (second, others) = of_both(trained, "lacking")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert terms == others
    assert "supervised" in terms
    assert "segmentor_patch" not in terms


def test_messages_during_the_backward_pass_change_no_bit(trained):
    for found in of_both(trained, "sent"):
        whole, parts = found["whole"], found["parts"]
        assert all(torch.equal(whole["state"][key], parts["state"][key]) for key in whole["state"])
        whole_size, parts_size = (sum(numbers for numbers, _ in run["messages"]) for run in (whole, parts))
        assert whole_size == parts_size, "all of it is sent once"
        done = [sum(1 for _, ended in parts["messages"] if ended == number) for number in range(7)]
        assert min(done[2:6]) > 1, "from the second iteration on, messages are sent before the pass has ended"


def test_parts_of_a_batch_send_their_sum_alone(trained):
    first, second = of_both(trained, "sent")
    sizes = {name: [numbers for numbers, _ in first[name]["messages"]] for name in first}
    assert sizes["accumulated"] == sizes["parts"]
    for key, weight in first["parts"]["state"].items():
        torch.testing.assert_close(first["accumulated"]["state"][key], weight, atol=2e-6, rtol=1e-3)
        assert torch.equal(first["accumulated"]["state"][key], second["accumulated"]["state"][key])


def test_no_message_but_the_gradients_in_an_iteration(trained):
    found, _ = of_both(trained, "sent")
    sizes = [numbers for numbers, _ in found["whole"]["messages"]]
    assert sizes == sizes[:2] * 3, "critic and segmentor, three iterations"
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize("name", STOPPED)
def test_a_signal_to_one_process_stops_both_in_the_same_iteration_with_a_checkpoint(name, trained):
    first, second = of_both(trained, f"asked_{name}")
    assert (first["stopped"]["iteration"], second["stopped"]["iteration"]) == (2, 2)
    assert (first["stopped"]["status"], second["stopped"]["status"]) == (0, 143)
    for found in (first, second):
        assert found["resumed"]["iteration"] == 6
        assert found["resumed"]["errors"] == found["whole"]["errors"]
        for key, weight in found["whole"]["state"].items():
            assert torch.equal(weight, found["resumed"]["state"][key]), key
    own = first["stopped"]["state"], second["stopped"]["state"]
    if name == "segan":
        differing = {key.split(".")[0] for key in own[0] if not torch.equal(own[0][key], own[1][key])}
        assert differing == {"network", "critic", "averaged"}, "running statistics are of each process"
    else:
        assert len(first["whole"]["errors"]) == 2
        assert first["whole"]["errors"] != second["whole"]["errors"]


def test_losses_that_are_read_later_change_nothing_and_stop_the_weights_of_both(trained):
    (at_once, _), _ = of_both(trained, "segan")
    for states in of_both(trained, "later"):
        for key, weight in at_once.items():
            torch.testing.assert_close(states["good"][key], weight, atol=1e-6, rtol=1e-5)
            assert torch.equal(states["bad"][key], states["first"][key]), "no step after the loss of one process"
        assert any(not torch.equal(states["first"][key], weight) for key, weight in states["good"].items())


@pytest.mark.parametrize("name", NAMES)
def test_the_log_has_the_average_over_both(name, trained):
    (_, first), (_, second) = of_both(trained, name)
    assert first == second, "a schedule that waits for a plateau must see the same in all processes"
    first = {key: value for key, value in first.items() if not key.startswith("layers/")}  # of one batch each
    alone = make_trainer(name, make_batches(name))
    terms = []
    alone.add_event_handler(Events.ITERATION_COMPLETED, lambda: terms.append(alone.state.output["terms"]))
    alone.run()
    assert first == pytest.approx({key: float(sum(t[key] for t in terms)) / 3 for key in terms[0]}, rel=1e-3, abs=1e-5)
    with (trained / name / "history.csv").open(encoding="utf-8") as stream:
        rows = [row["name"] for row in csv.DictReader(stream)]
    assert len(rows) == len(set(rows)), "the first process alone writes"


def test_running_averages_are_averaged_before_validation(trained):
    (own, joint), (other, other_joint) = of_both(trained, "batch_norm")
    keys = [key for key in own if key.endswith(("running_mean", "running_var"))]
    assert {"network", "critic", "averaged"} == {key.split(".")[0] for key in keys}
    for key in keys:
        assert not torch.equal(own[key], other[key])
        torch.testing.assert_close(joint[key], (own[key] + other[key]) / 2)
    assert all(torch.equal(joint[key], other_joint[key]) for key in joint), "the averaged weights too"


def test_each_process_resumes_with_random_states_of_its_own(trained):
    first, second = of_both(trained, "drawn")
    assert torch.equal(first["parts"], first["whole"])
    assert torch.equal(second["parts"], second["whole"])
    assert not torch.equal(first["whole"], second["whole"])


def test_shares_are_disjoint_or_of_one_size(trained):
    assert of_both(trained, "shares") == [[[0, 2, 4], [0, 2, 4]], [[1, 3], [1, 3, 0]]]
    for rank in (0, 1):
        assert "1 cases cannot be divided among 2 processes" in (trained / f"few_{rank}").read_text(encoding="utf-8")


def test_an_evaluation_by_shares_is_that_of_one_process(trained, tmp_path):
    engine = evaluator(CASES)
    EvaluationReport(tmp_path, REGIONS).attach(engine)
    engine.run()
    for name in ("metrics.csv", "summary.json"):
        assert (trained / "evaluation" / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(
            encoding="utf-8"
        )
    for rank in (0, 1):
        assert "case c occurs in two processes" in (trained / f"twice_{rank}").read_text(encoding="utf-8")


LEFT = r"process 0 of 2 can no longer reach the others: one of them has ended\."


# the agent names the process that it sees end first, which may be the other one
@pytest.mark.parametrize(("job", "message"), [("be_killed", rf"Signal 9 \(SIGKILL\)|{LEFT}"), ("leave", LEFT)])
def test_a_process_that_ends_ends_the_others_with_a_message(job, message, tmp_path):
    done = torchrun_in_forks(SCRIPT, tmp_path, job)  # the training itself would never end
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr[-3000:]
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"pid_{rank}").read_text(encoding="utf-8")), 0)
