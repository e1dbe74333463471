# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A folder inferred by several processes with the plain inference.json: each case once, whatever is killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segan_monai.data import write_phantoms
from segan_monai.simulation.sample_data import write_sample_data
from tests.bundles.workflow import BRAIN, BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS, SKIN, run_workflow
from tests.faults.inference_data import START, UNTRAINED, copy_images, settings
from tests.faults.processes import SMALL
from tests.torchrun import torchrun_in_forks

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.fixture
def images(hippocampi, tmp_path):
    """Seven volumes in a folder, `case_1` truncated, and weights."""
    return copy_images(hippocampi, tmp_path, 7)


def infer(tmp_path, killed):
    """The command of docs/scaling.md, with two processes, of which those in `killed` are killed in their second case.

    Whom it concerns is read from a file, since with another config all cases would be repeated.
    """
    overlay, whom = tmp_path / "overlay.json", tmp_path / "killed"
    whom.write_text(killed, encoding="utf-8")
    kill = {"_target_": "tests.faults.hooks.SignalAt", "iteration": 2, "signals": ["SIGKILL"]}
    kill["_disabled_"] = f"$str(segan_monai.process_rank()) not in open('{whom}').read()"
    overlay.write_text(json.dumps({**SMALL, "+handlers": [kill]}), encoding="utf-8")
    files = str([str(BUNDLES / HIPPOCAMPUS / "configs" / "inference.json"), str(overlay)])
    words = [word for key, value in settings(tmp_path).items() for word in (f"--{key}", value)]
    return torchrun_in_forks("-m", "monai.bundle", "run", "inference", "--config_file", files, *words)


def finished(tmp_path):
    """When the label map of each case was written that a journal says is finished."""
    files = {case: tmp_path / "out" / f"{case}_seg.nii.gz" for cases in journals(tmp_path).values() for case in cases}
    return {case: file.stat().st_mtime_ns for case, file in files.items() if file.is_file()}


def journals(tmp_path):
    """The cases in the journal of each process, in order."""
    found = {}
    for file in (tmp_path / "out").glob("inference*.jsonl"):
        found[file.name] = [json.loads(line)["case"] for line in file.read_text(encoding="utf-8").splitlines()]
    return found


def test_killed_processes_and_a_bad_case_cost_nothing_else(images, hippocampi, tmp_path):
    assert infer(tmp_path, killed="1").returncode == 1
    first = finished(tmp_path)
    assert journals(tmp_path)["inference_1.jsonl"] == ["case_1"], "killed in its second case"
    assert set(first) <= {"case_0", "case_2", "case_4", "case_6"}, "the share of the other"

    assert infer(tmp_path, killed="0 1").returncode == 1
    second = finished(tmp_path)
    assert {case: second[case] for case in first} == first, "finished cases are not repeated"
    assert len(second) < 6

    done = infer(tmp_path, killed="")
    assert done.returncode == 1
    assert done.stderr.count("error: 1 of ") == 1, "the first process alone says so"
    assert "case_1.nii.gz cannot be read" in done.stderr
    third = finished(tmp_path)
    assert {case: third[case] for case in second} == second
    assert set(third) == {f"case_{index}" for index in (0, 2, 3, 4, 5, 6)}
    summary = json.loads((tmp_path / "out" / "inference.json").read_text(encoding="utf-8"))
    assert summary["counts"] == {"finished": 6, "failed": 1, "not reached": 0}
    ran = [case for cases in journals(tmp_path).values() for case in cases if case != "case_1"]
    assert sorted(ran) == [f"case_{index}" for index in (0, 2, 3, 4, 5, 6)], "each once, by one process"
    assert not list((tmp_path / "out").glob("*.part*"))

    shutil.copy(hippocampi / "imagesTr" / "case_1.nii.gz", images)  # mended; one process reads the journals of all
    assert infer(tmp_path, killed="").returncode == 0
    fourth = finished(tmp_path)
    assert {case: fourth[case] for case in third} == third
    assert fourth.keys() - third.keys() == {"case_1"}

    run_workflow(HIPPOCAMPUS, "inference", **{**SMALL, **settings(tmp_path), "output_dir": str(tmp_path / "alone")})
    for case in fourth:
        name = f"{case}_seg.nii.gz"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_every_bundle_gives_the_files_of_one_process(tmp_path, write_volume):
    phantoms = tmp_path / "phantoms"
    write_phantoms(phantoms, cases=3, seed=0, spacing_mm=8.0, layout="brats2021", workers=1)
    folders = {BRATS: phantoms}
    folders[HIPPOCAMPUS] = write_sample_data(tmp_path / "hippocampi", ["MRI"], [1, 2], cases=3) / "imagesTr"
    folders[BRAIN] = folders[PANCREAS] = folders[HIPPOCAMPUS]
    folders[SKIN] = _photographs(tmp_path / "photographs")
    small = {"image_size": [32, 32], "patch_size": [16, 16, 16], "pad_small_images": True, "slice_size": [32, 32]} | {
        "plane_size": [48, 48]
    }
    jobs = []
    for bundle, folder in folders.items():
        known = json.loads((BUNDLES / bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
        overrides = {key: value for key, value in {**SMALL, **small}.items() if key in known and key != "device"}
        weights = "$torch.manual_seed(0)"  # the networks of all processes begin alike
        job = {"bundle": bundle, "run_id": "inference", **overrides, "dataset_dir": str(folder)}
        jobs.append({**job, **UNTRAINED, "initialize": [START, weights], "output_dir": str(tmp_path / "both" / bundle)})
    (tmp_path / "jobs.json").write_text(
        json.dumps([*jobs, jobs[0]]), encoding="utf-8"
    )  # the last one finds nothing left
    script = Path(__file__).parents[1] / "bundles" / "distributed_run.py"
    done = torchrun_in_forks(script, tmp_path / "jobs.json")
    assert done.returncode == 0, done.stderr[-4000:]
    for job in jobs:
        both, alone = Path(job["output_dir"]), tmp_path / "alone" / job["bundle"]
        run_workflow(**{**job, "output_dir": str(alone), "device": "cpu"})
        names = {file.name for file in alone.glob("[!.]*")}
        assert {file.name for file in both.glob("[!.]*")} == names | {"inference_1.jsonl"}
        results = [name for name in names if "_seg." in name or "_rois." in name or "_normalized." in name]
        assert len(results) >= 3, job["bundle"]
        for name in results:
            assert (both / name).read_bytes() == (alone / name).read_bytes(), (job["bundle"], name)
        counts = json.loads((both / "inference.json").read_text(encoding="utf-8"))["counts"]
        assert counts == {"finished": 3, "failed": 0, "not reached": 0}
        assert len((both / "inference.jsonl").read_text(encoding="utf-8").splitlines()) == 2
        assert len((both / "inference_1.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def _photographs(folder):
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{name}.jpg")
    return folder
