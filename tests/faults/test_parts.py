# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of an inference and of a table in processes that share an output folder, one of them killed and restarted."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from segan_monai.run.lock import FolderInUseError, output_folder, refuse_running_parts
from tests.bundles.datasets import write_hippocampi
from tests.faults.inference_data import copy_images, settings
from tests.faults.processes import SECONDS, Command
from tests.forked import SERVER, become

pytestmark = pytest.mark.slow
KILL = {"_target_": "tests.faults.hooks.SignalAt", "iteration": 2, "signals": ["SIGKILL"]}


def test_inference_in_parts_one_of_which_is_killed(hippocampi, tmp_path):
    images = copy_images(hippocampi, tmp_path, 4)
    (images / "case_1.nii.gz").write_bytes((hippocampi / "imagesTr" / "case_1.nii.gz").read_bytes())
    out = tmp_path / "out"

    def written():
        return {file.name: file.stat().st_mtime_ns for file in out.glob("*_seg.nii.gz")}

    whom = tmp_path / "killed"  # with another config, all cases would be repeated
    whom.write_text("1/2", encoding="utf-8")
    kill = {**KILL, "_disabled_": f"$@part != open('{whom}').read()"}

    def start(**part):
        return Command("inference", tmp_path, [kill], **part, **settings(tmp_path))

    killed, beside = start(part="1/2"), start(part="2/2")
    assert (killed.wait(), beside.wait()) == (-signal.SIGKILL, 0), beside.text
    first = written()
    assert set(first) == {"case_0_seg.nii.gz", "case_1_seg.nii.gz", "case_3_seg.nii.gz"}
    assert not (out / "inference.json").exists()
    assert f"{out}/parts/2_of_2/inference.json: status" in beside.text
    assert (
        json.loads((out / "parts" / "2_of_2" / "inference.json").read_text(encoding="utf-8"))["counts"]["finished"] == 2
    )

    whom.write_text("nobody", encoding="utf-8")
    again = start(part="1/2")
    assert again.wait() == 0, again.text
    assert "1 of 2 cases are already finished, 1 remaining" in again.text
    assert written() == {**written(), **first}
    gathered = start()
    assert gathered.wait() == 0, gathered.text
    assert "4 of 4 cases are already finished" in gathered.text
    assert len(written()) == 4
    assert written() == {**written(), **first}
    counts = json.loads((out / "inference.json").read_text(encoding="utf-8"))["counts"]
    assert counts == {"finished": 4, "failed": 0, "not reached": 0}
    with (out / "volumes.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["case"] for row in csv.DictReader(stream)] == [f"case_{n}" for n in range(4) for _ in range(2)]


def test_the_whole_waits_for_its_parts(tmp_path):
    with output_folder(tmp_path / "parts" / "1_of_2"):
        other = multiprocessing.get_context("fork").Process(target=_refuse, args=(tmp_path,))
        other.start()
        other.join(SECONDS)
    assert other.exitcode == 3
    refuse_running_parts(tmp_path)


def test_a_part_of_an_inference_does_not_start_beside_the_whole(hippocampi, tmp_path):
    copy_images(hippocampi, tmp_path, 2)
    with output_folder(tmp_path / "out"):
        part = Command("inference", tmp_path, part="1/2", **settings(tmp_path))
        assert part.wait() == 1, part.text
    assert f"part 1/2 cannot start beside other work in {tmp_path}/out: {tmp_path}/out is in use by" in part.text
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def _refuse(folder):
    try:
        refuse_running_parts(folder)
    except FolderInUseError as error:
        os._exit(3 if f"{folder}/parts/1_of_2 is in use by process" in str(error) else 4)
    os._exit(0)


def test_a_table_in_parts_one_of_which_is_killed(tmp_path, oblique, write_volume):
    data = write_hippocampi(tmp_path / "Task04_Hippocampus", oblique, write_volume)
    out, overlay, who = tmp_path / "out", tmp_path / "small.json", tmp_path / "who"
    small = {"device": "cpu", "base_channels": 4, "slice_size": [16, 16], "batch_size": 2, "slices_per_volume": 2}
    small |= {"folds": 2, "epochs": 1, "val_interval": 1, "num_workers": 0}
    kill = {**KILL, "_disabled_": f"$open('{who}').read() != 'killed'"}  # another overlay would be refused
    overlay.write_text(json.dumps({**small, "+train#handlers": [kill]}), encoding="utf-8")
    words = ["reproduce", "segan-vs-unet", "--bundle", "hippocampus_mri_segan_segmentation", "--row", "U-Net"]
    words += ["--seeds", "0,1", "--dataset-dir", str(data), "--output-dir", str(out), "--config", str(overlay)]

    def start(name, *more):
        who.write_text(name, encoding="utf-8")
        process = SERVER.Process(target=_segan_monai, args=([*words, *more], tmp_path / f"{name}.txt"))
        process.start()
        return process

    beside = start("beside", "--part", "2/2")
    beside.join(SECONDS)
    assert beside.exitcode == 0, (tmp_path / "beside.txt").read_text(encoding="utf-8")
    killed = start("killed", "--part", "1/2")
    killed.join(SECONDS)
    log = (tmp_path / "killed.txt").read_text(encoding="utf-8")
    assert killed.exitcode == 1, log
    assert "training ended with status -9" in log
    assert "part 1/2: 0 of 1 runs finished" in log
    assert not (out / "segan_vs_unet.csv").exists()
    model = out / "unet" / "seed_1" / "training" / "model.pt"
    trained = model.stat().st_mtime_ns

    again = start("again", "--part", "1/2")
    again.join(SECONDS)
    assert again.exitcode == 0, (tmp_path / "again.txt").read_text(encoding="utf-8")
    logs = {log: log.stat().st_mtime_ns for log in out.rglob("*.log")}
    gathered = start("gathered")
    gathered.join(SECONDS)
    assert gathered.exitcode == 0
    assert {log: log.stat().st_mtime_ns for log in out.rglob("*.log")} == logs, "no run is repeated"
    assert model.stat().st_mtime_ns == trained
    with (out / "segan_vs_unet.csv").open(encoding="utf-8", newline="") as stream:
        assert {(row["row"], row["seed"]) for row in csv.DictReader(stream)} == {("U-Net", "0"), ("U-Net", "1")}


def _segan_monai(words, log):
    """Run the command; its trainings and evaluations are forked from this process, which has imported everything."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.setpgrp()
    subprocess.run = _run_in_child
    sys.argv = ["segan-monai", *words]
    from segan_monai.cli.main import main

    main()


def _run_in_child(command, stdout, stderr, check):
    child = os.fork()
    if not child:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stdout.fileno(), 2)
        try:
            become(command[1:])
        except SystemExit as error:
            os._exit(error.code or 0)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return subprocess.CompletedProcess(command, status)
