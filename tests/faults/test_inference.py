# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference over many cases: a bad one does not cost the others, and a second start does what is left."""

from __future__ import annotations

import csv
import gc
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image

from segan_monai.engines import FailedCasesError
from segan_monai.errors import causes
from segan_monai.run import what_to_do
from tests.bundles.workflow import BRAIN, BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS, SKIN, make_workflow
from tests.faults.inference_data import START, UNTRAINED, copy_images, save_weights, settings
from tests.faults.processes import SMALL, Command

pytestmark = pytest.mark.slow


@pytest.fixture
def images(hippocampi, tmp_path):
    """Four volumes in a folder, `case_1` truncated, and weights."""
    return copy_images(hippocampi, tmp_path, 4)


def infer(tmp_path, bundle=HIPPOCAMPUS, **overrides):
    """Run in this process; returns the failure that the user is told of, if there is one."""
    run = make_workflow(bundle, "inference", **{**SMALL, **settings(tmp_path), **overrides})
    run.initialize()
    return failure_of(run)


def failure_of(run):
    """Run; returns the failure that the user is told of, if there is one."""
    try:
        run.run()
    except Exception as error:
        (failure,) = (link for link in causes(error) if isinstance(link, FailedCasesError))
        return failure
    return None


def summary(tmp_path):
    return json.loads((tmp_path / "out" / "inference.json").read_text(encoding="utf-8"))


def statuses(tmp_path):
    return [case["status"] for case in summary(tmp_path)["cases"].values()]


def written(tmp_path):
    """When each label map was written."""
    return {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*_seg*")}


def test_the_command_line_ends_with_the_bad_case_and_status_1(images, tmp_path):
    run = Command("inference", tmp_path, **settings(tmp_path))
    assert run.wait() == 1
    error, bad = run.text.strip().splitlines()[-2:]
    out = tmp_path / "out"
    assert (
        "3 of 4 cases segmented, 1 failed; written:\n"
        f"  {out}/*_seg.nii.gz: 3 files, label map\n"
        f"  {out}/*_overlay.png: 3 files, picture of the label map's outlines\n"
        f"  {out}/volumes.csv: ml per case and region\n"
        f"  {out}/inference.json: status, files and error per case\n"
    ) in run.text
    assert error.startswith("error: 1 of 4 cases failed; the results of the others are complete.")
    assert bad.startswith(f"  case_1: {images}/case_1.nii.gz cannot be read")
    assert set(written(tmp_path)) == {"case_0_seg.nii.gz", "case_2_seg.nii.gz", "case_3_seg.nii.gz"}
    assert statuses(tmp_path) == ["finished", "failed", "finished", "finished"]
    assert summary(tmp_path)["counts"] == {"finished": 3, "failed": 1, "not reached": 0}
    assert "cannot be read" in summary(tmp_path)["cases"]["case_1"]["error"]
    assert summary(tmp_path)["cases"]["case_2"]["files"] == ["case_2_seg.nii.gz", "case_2_overlay.png"]
    assert summary(tmp_path)["cases"]["case_2"]["seconds"] > 0
    with (out / "volumes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["region"]) for row in rows] == [
        (f"case_{number}", region) for number in (0, 2, 3) for region in ("anterior", "posterior")
    ]
    label_map = nibabel.load(out / "case_2_seg.nii.gz").get_fdata()
    assert [float(row["ml"]) for row in rows if row["case"] == "case_2"] == [
        np.count_nonzero(label_map == value) / 1000 for value in (1, 2)
    ]


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_second_start_does_what_is_left_and_no_more(images, hippocampi, tmp_path, num_workers, caplog):
    assert "1 of 4 cases failed" in str(infer(tmp_path, num_workers=num_workers))
    first = written(tmp_path)
    shutil.copy(hippocampi / "imagesTr" / "case_1.nii.gz", images)
    with caplog.at_level("INFO"):
        assert infer(tmp_path) is None
    assert "3 of 4 cases are already finished, 1 remaining (--repeat_finished true repeats all cases)" in caplog.text
    second = written(tmp_path)
    assert second.keys() - first.keys() == {"case_1_seg.nii.gz"}
    assert {name: second[name] for name in first} == first
    assert statuses(tmp_path) == ["finished"] * 4

    assert infer(tmp_path) is None, "nothing is left to do"
    assert written(tmp_path) == second

    (tmp_path / "out" / "case_2_seg.nii.gz").unlink()  # somebody took a result away
    assert infer(tmp_path) is None
    changed = {name for name, when in written(tmp_path).items() if when != second[name]}
    assert changed == {"case_2_seg.nii.gz"}
    lines = (tmp_path / "out" / "volumes.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 4 * 2, "of cases that were finished before too"


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize("change", ["weights", "setting", "image", "force"])
def test_what_would_come_out_otherwise_is_done_again(images, hippocampi, tmp_path, change):
    shutil.copy(hippocampi / "imagesTr" / "case_1.nii.gz", images)
    assert infer(tmp_path) is None
    first = written(tmp_path)
    overrides = {}
    if change == "weights":
        save_weights(tmp_path, seed=1)
    elif change == "setting":
        overrides = {"skip_empty_slices": False}
    elif change == "image":
        shutil.copy(hippocampi / "imagesTr" / "case_5.nii.gz", images / "case_1.nii.gz")
    else:
        overrides = {"repeat_finished": True}
    assert infer(tmp_path, **overrides) is None
    again = {name for name, when in written(tmp_path).items() if when != first[name]}
    assert len(again) == (1 if change == "image" else 4)


@pytest.mark.usefixtures("process_as_before")
def test_a_result_of_other_weights_does_not_stay_where_the_case_fails_now(images, hippocampi, tmp_path):
    bad = (images / "case_1.nii.gz").read_bytes()
    shutil.copy(hippocampi / "imagesTr" / "case_1.nii.gz", images)
    assert infer(tmp_path) is None
    (images / "case_1.nii.gz").write_bytes(bad)
    save_weights(tmp_path, seed=1)
    assert "case_1: " in str(infer(tmp_path))
    assert "case_1_seg.nii.gz" not in written(tmp_path)
    assert len(written(tmp_path)) == 3


class FailsOnLargeVolumes(torch.nn.Module):
    def forward(self, x):
        if x.amax() > 0.9 and x.shape[0] > 8:
            raise RuntimeError("no such kernel")
        return x.repeat(1, 2, 1, 1)


@pytest.mark.usefixtures("process_as_before")
def test_a_case_on_which_the_network_fails_does_not_cost_the_others(images, tmp_path, write_volume):
    (images / "case_1.nii.gz").unlink()
    write_volume(images / "case_1_large.nii.gz", np.random.default_rng(0).random((12, 12, 9)), np.eye(4))
    failure = infer(tmp_path, network=FailsOnLargeVolumes(), initialize=START, slice_axis=2, neighbours=0)
    assert "1 of 4 cases failed" in str(failure)
    assert "case_1_large: RuntimeError: no such kernel" in str(failure)
    assert statuses(tmp_path) == ["finished", "failed", "finished", "finished"]


@pytest.mark.usefixtures("process_as_before")
def test_a_case_without_a_modality_does_not_cost_the_others(phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "images")
    cases = sorted(folder for folder in data.iterdir() if folder.is_dir())
    (cases[1] / f"{cases[1].name}_flair.nii.gz").unlink()
    failure = infer(tmp_path, BRATS, **UNTRAINED, slice_size=[32, 32], save_overlays=False)
    assert str(failure).startswith("1 of 4 cases failed; the results of the others are complete.")
    assert f"{cases[1].name}: BraTS case {cases[1].name} in {cases[1]} has no file for flair; it has " in str(failure)
    assert statuses(tmp_path) == ["finished", "failed", "finished", "finished"]
    shutil.copy(cases[0] / f"{cases[0].name}_flair.nii.gz", cases[1] / f"{cases[1].name}_flair.nii.gz")
    assert infer(tmp_path, BRATS, **UNTRAINED, slice_size=[32, 32], save_overlays=False) is None
    assert statuses(tmp_path) == ["finished"] * 4
    assert not list((tmp_path / "out").glob("*_overlay.png"))


@pytest.mark.usefixtures("process_as_before")
def test_one_file_is_a_data_set(images, tmp_path, capsys):
    assert infer(tmp_path, dataset_dir=str(images / "case_2.nii.gz")) is None
    assert statuses(tmp_path) == ["finished"]
    out = tmp_path / "out"
    assert f"1 of 1 cases segmented; written:\n  {out}/case_2_seg.nii.gz: label map\n" in capsys.readouterr().out


def test_killed_while_a_label_map_is_written_the_next_start_goes_on(images, hippocampi, tmp_path):
    shutil.copy(hippocampi / "imagesTr" / "case_1.nii.gz", images)
    (tmp_path / "out").mkdir()
    pipe = tmp_path / "out" / ".case_2_seg.part.nii.gz"
    os.mkfifo(pipe)
    Command("inference", tmp_path, **settings(tmp_path)).kill_while_it_writes(pipe)
    first = written(tmp_path)
    assert set(first) == {"case_0_seg.nii.gz", "case_1_seg.nii.gz"}
    for name in first:
        assert nibabel.load(tmp_path / "out" / name).get_fdata().shape == (14, 16, 8)
    assert statuses(tmp_path) == ["not reached"] * 4, "as it was at the start; the journal knows more"
    journal = tmp_path / "out" / "inference.jsonl"
    journal.write_text(
        journal.read_text(encoding="utf-8") + '{"case": "case_2", "sta', encoding="utf-8"
    )  # as a power failure may leave it

    run = Command("inference", tmp_path, **settings(tmp_path))
    assert run.wait() == 0, run.text
    assert "2 of 4 cases are already finished, 2 remaining" in run.text
    assert len(written(tmp_path)) == 4
    assert {name: written(tmp_path)[name] for name in first} == first
    assert statuses(tmp_path) == ["finished"] * 4


def test_a_full_disk_stops_with_the_name_of_the_file_and_keeps_what_is_finished(images, tmp_path, write_volume):
    (images / "case_1.nii.gz").unlink()
    noise = np.random.default_rng(0).random((90, 90, 40)).astype(np.float32)
    write_volume(images / "case_1_large.nii", noise, np.eye(4))
    # the label map of noise is far larger than so many bytes, those of the others and all logs are smaller
    run = Command("inference", tmp_path, file_size_limit=25_000, **settings(tmp_path))
    assert run.wait() == 1
    assert run.last_line.startswith(f"error: {tmp_path}/out/case_1_large_seg.nii.gz cannot be written (OSError: ")
    assert "File too large" in run.last_line
    assert "inference with the same command" in run.last_line
    assert set(written(tmp_path)) == {"case_0_seg.nii.gz"}
    assert statuses(tmp_path) == ["finished", "not reached", "not reached", "not reached"]


def test_interrupted_it_says_what_was_reached(images, tmp_path):
    interrupt = {"_target_": "tests.faults.hooks.SignalAt", "iteration": 3, "signals": ["SIGINT"]}
    run = Command("inference", tmp_path, [interrupt], **settings(tmp_path))
    assert run.wait() != 0
    assert statuses(tmp_path) == ["finished", "failed", "not reached", "not reached"]


def write_images(bundle, tmp_path, write_volume):
    """Two images for a bundle, `bad` and `good`, both of noise."""
    generator = np.random.default_rng(0)
    shape = (20, 22, 9, 3) if bundle == BRATS else (20, 22, 9)
    (tmp_path / "images").mkdir()
    files = []
    for name in ("bad", "good"):
        if bundle == SKIN:
            files.append(tmp_path / "images" / f"{name}.jpg")
            Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(files[-1])
        else:
            image = generator.uniform(1, 200, shape).astype(np.float32)
            files.append(write_volume(tmp_path / "images" / f"{name}.nii.gz", image, np.eye(4)))
    return files


def small_settings(bundle):
    small = {"image_size": [32, 32], "patch_size": [16, 16, 16], "pad_small_images": True, "slice_size": [32, 32]} | {
        "plane_size": [48, 48]
    }
    known = json.loads((BUNDLES / bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    return {key: value for key, value in small.items() if key in known}


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS, BRAIN, PANCREAS, SKIN])
def test_in_every_bundle(bundle, tmp_path, write_volume):
    bad, _ = write_images(bundle, tmp_path, write_volume)
    bad.write_bytes(bad.read_bytes()[:300])
    failure = infer(tmp_path, bundle, **UNTRAINED, **small_settings(bundle))
    assert "1 of 2 cases failed" in str(failure)
    assert what_to_do(failure) == str(failure)
    assert statuses(tmp_path) == ["failed", "finished"]
    files = summary(tmp_path)["cases"]["good"]["files"]
    assert ("good_seg.png" if bundle == SKIN else "good_seg.nii.gz") in files
    assert "good_overlay.png" in files
    assert (tmp_path / "out" / "volumes.csv").exists() == (bundle != SKIN)
    assert all((tmp_path / "out" / file).stat().st_size for file in files)
    assert not [file for file in (tmp_path / "out").iterdir() if ".part" in file.name or "bad" in file.name]


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize(
    ("bundle", "part"),
    [(BRATS, ""), (HIPPOCAMPUS, ""), (BRAIN, "segmentor"), (PANCREAS, "localizer"), (SKIN, "")],
    ids=[BRATS, HIPPOCAMPUS, BRAIN, PANCREAS, SKIN],
)
def test_no_label_map_is_made_of_output_that_is_not_finite(bundle, part, tmp_path, write_volume):
    """Exclusive classes would all be label 1, regions all empty, and L-SNet would find no RoI."""
    write_images(bundle, tmp_path, write_volume)
    run = make_workflow(bundle, "inference", **settings(tmp_path), **UNTRAINED, **small_settings(bundle))
    run.initialize()

    def spoil(module, inputs, output):
        factor = float("nan") if "bad" in run.evaluator.state.batch["case"] else 1.0
        return tuple(o * factor for o in output) if isinstance(output, tuple) else output * factor

    run.parser.get_parsed_content("network_def").get_submodule(part).register_forward_hook(spoil)
    failure = str(failure_of(run))
    assert failure.startswith("1 of 2 cases failed; the results of the others are complete.")
    assert "\n  bad: case bad: " in failure
    assert "values of the network's output are NaN or infinite, so no label map is written." in failure
    assert statuses(tmp_path) == ["failed", "finished"]
    assert {name.split("_")[0] for name in written(tmp_path)} == {"good"}


@pytest.mark.parametrize("output_dir", ["images", "images/out"])
def test_results_are_never_written_among_the_images(images, tmp_path, output_dir):
    before = sorted(images.rglob("*"))
    run = Command("inference", tmp_path, **{**settings(tmp_path), "output_dir": str(tmp_path / output_dir)})
    assert run.wait() == 1
    assert run.last_line.startswith(f"error: output_dir {tmp_path}/{output_dir} ")
    assert run.last_line.endswith(f"Use a folder outside, such as --output_dir {images}_results.")
    assert sorted(images.rglob("*")) == before


def test_odd_names_of_files_cost_nothing_and_one_that_cannot_be_opened_only_its_case(images, tmp_path, write_volume):
    (images / "case_1.nii.gz").unlink()
    (images / "case_0.nii.gz").rename(images / os.fsdecode(b"caf\xe9\t\n.nii.gz"))
    odd = images / os.fsdecode(b"odd\xff.mha")
    write_volume(images / "plain.mha", np.ones((12, 12, 9), np.float32), np.eye(4)).rename(odd)
    run = Command("inference", tmp_path, **settings(tmp_path))
    assert run.wait() == 1
    assert run.last_line.startswith("  odd%FF: ")
    assert run.last_line.endswith(
        "the path contains non-UTF-8 bytes, which SimpleITK cannot open. Rename the file or folder."
    )
    assert set(written(tmp_path)) == {"caf%E9%09%0A_seg.nii.gz", "case_2_seg.nii.gz", "case_3_seg.nii.gz"}
    assert summary(tmp_path)["counts"] == {"finished": 3, "failed": 1, "not reached": 0}


@pytest.mark.usefixtures("process_as_before")
def test_memory_does_not_grow_with_the_number_of_cases(tmp_path, write_volume):
    generator = np.random.default_rng(0)
    for index in range(200):
        image = generator.uniform(1, 9, (32, 32, 16)).astype(np.float32)
        write_volume(tmp_path / "images" / f"case_{index:03}.nii", image, np.eye(4))
    save_weights(tmp_path, seed=0)
    # without pictures: the buffers of contours around noise fragment the heap
    run = make_workflow(HIPPOCAMPUS, "inference", **SMALL, **settings(tmp_path), save_overlays=False)
    run.initialize()
    found = {}

    def measure(engine):
        gc.collect()
        objects = gc.get_objects()
        tensors = sum(1 for item in objects if isinstance(item, torch.Tensor))
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        found[engine.state.iteration] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(objects), tensors

    run.evaluator.add_event_handler(Events.ITERATION_COMPLETED(event_filter=lambda _, n: n in (40, 200)), measure)
    run.run()
    (memory, objects, tensors), (memory_then, objects_then, tensors_then) = found[40], found[200]
    assert len(written(tmp_path)) == 200
    assert tensors_then == tensors
    # a line of the journal a case, 3 to 5 objects; a volume of each would be 10 MiB, a traced transform 40 objects
    assert objects_then - objects < 160 * 10
    assert memory_then - memory < 5
