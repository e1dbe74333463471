# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the repository's top with the data that the docs speak of, and commands that are run in it.

A page's commands are taken apart by bash itself: on its PATH are nothing but programs that write down how they were
called. Those calls are then made, shortened by options that are appended, in children of one process that has MONAI
imported already.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from segan_monai.bundles_by_name import bundle_of_run, find_bundle
from segan_monai.cli.config_keys import CONFIG_FILES
from segan_monai.simulation.sample_data import write_sample_data
from segan_monai.verify.trial import SMALL
from tests.data.challenges import write_iseg, write_mrbrains
from tests.docs.pages import TOP
from tests.forked import SERVER, become
from tests.prepare.series import write_pancreas

SECONDS = 120  # more than any of them takes
RECORDER = """#!/bin/bash
shopt -s nullglob
calls=("$CALLS"/*)
printf '%s\\0' "$PWD" "${0##*/}" "$@" > "$CALLS/$(printf %04d ${#calls[@]})"
"""
PROGRAMS = ("bash", "head", "mkdocs", "pip", "pre-commit", "python", "scontrol", "segan-monai", "srun", "torchrun")
# of Slurm, in a job
ENVIRONMENT = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "1"}
ENVIRONMENT |= {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1"}
Call = tuple[str, ...]
LIMITS = {"epochs": 2, "val_interval": 2, "base_channels": 4, "batch_size": 2}  # a calibration needs two epochs


def make_workspace(folder: Path, phantoms: Path) -> Path:
    """Configs, scripts, and a small data set under every name that the docs use for one."""
    ignored = shutil.ignore_patterns("models", "output", "__pycache__")
    for name in ("bundles", "configs", "scripts"):
        shutil.copytree(TOP / name, folder / name, ignore=ignored)
    for name in ("segan_monai", "tests", "docs", ".ci", "setup.cfg", "constraints.txt"):
        (folder / name).symlink_to(TOP / name)
    shutil.copy(TOP / "segan_monai/export/run_onnx.py", folder)
    shutil.copytree(TOP / "bundles/hippocampus_mri_segan_segmentation", folder / "my_bundle", ignore=ignored)
    (folder / "other_bundle").symlink_to("my_bundle")

    hippocampus = write_sample_data(folder / "Task04_Hippocampus", ["MRI"], [1, 2], cases=6)
    write_sample_data(folder / "MY_DATA", ["FLAIR"], [1, 2])
    write_sample_data(folder / "Dataset004_Hippocampus", ["MRI"], [1, 2], cases=6)
    (folder / "DIR").symlink_to(hippocampus)
    (folder / "BraTS2021").symlink_to(phantoms)
    write_sample_data(folder / "brains", ["T1"], [1, 2, 3], ["iSEG", "MRBrainS"])
    write_sample_data(folder / "msd_hippocampus", ["MRI"], [1, 2], ["uint8", "float_low"], cases=8)
    _write_ct(folder)
    _write_gliomas(folder / "GLIOMAS", phantoms)
    _write_as_handed_out(folder)
    for section in ("Training", "Validation", "Test_v2"):
        _write_photographs(
            folder / "ISIC2017" / f"ISIC-2017_{section}_Data",
            folder / "ISIC2017" / f"ISIC-2017_{section}_Part1_GroundTruth",
            3,
        )
    _write_photographs(folder / "LESIONS" / "images", folder / "LESIONS" / "masks", 3)
    (folder / "PHOTOGRAPHS").symlink_to("LESIONS/images")
    (folder / "IMAGES").symlink_to(hippocampus / "imagesTr")

    from tests.dicom import studies  # imports pydicom

    studies.write_series(folder / "STUDY", studies.image((32, 40, 12)))

    same, other = {1: 1, 2: 2, 4: 4}, {1: 1, 2: 2, 4: 3}
    for name, values in (("REFERENCES", same), ("PREDICTIONS", same), ("OTHER_VALUES", other)):
        (folder / name).mkdir()
        for file in sorted(phantoms.rglob("*_seg.nii.gz")):
            image = nibabel.load(file)
            label_map = np.zeros(image.shape, np.uint8)
            for old, new in values.items():
                label_map[np.asanyarray(image.dataobj) == old] = new
            nibabel.save(nibabel.Nifti1Image(label_map, image.affine), folder / name / file.name)
    shutil.copy(sorted((hippocampus / "imagesTr").iterdir())[0], folder / "image.nii.gz")
    for modality in ("t1ce", "t2", "flair"):
        shutil.copy(sorted(phantoms.rglob(f"*_{modality}.nii.gz"))[0], folder / f"{modality}.nii.gz")

    for bundle in (folder / "bundles").iterdir():  # commands of a bundle's own page are typed in its folder
        for name in folder.iterdir():
            if name.is_dir() and not (bundle / name.name).exists() and name.name not in ("bundles", "scripts"):
                (bundle / name.name).symlink_to(name)
    return folder


def _write_ct(folder: Path) -> None:
    sample = write_sample_data(folder / "Pancreas-CT", ["CT"], [1])
    volumes, pictures = folder / "Pancreas-CT", folder / "nih_pancreas_ct_2d"
    (sample / "imagesTr").rename(volumes / "images")
    (sample / "labelsTr").rename(volumes / "labels")
    (sample / "dataset.json").unlink()
    (folder / "CT").symlink_to(volumes / "images")
    for name in ("images", "masks"):
        (pictures / name).mkdir(parents=True)
    for number, file in enumerate(sorted((volumes / "images").iterdir())):
        image, label = (
            np.asanyarray(nibabel.load(volumes / kind / file.name).dataobj)[:, :, 8] for kind in ("images", "labels")
        )
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(pictures / f"images/PANCREAS_000{number}-8.jpg")
        Image.fromarray(label.astype(np.uint8) * 255).save(pictures / f"masks/PANCREAS_000{number}-8.jpg")


def _write_gliomas(folder: Path, phantoms: Path) -> None:
    """Eight folders like those of the gliomas from TCGA: other modalities, one label, each brain once more mirrored."""
    names = {"t1": "t2", "t1c": "t1ce", "flair": "flair", "seg": "seg"}
    for file in sorted(phantoms.rglob("*_seg.nii.gz")):
        phantom = file.name.removesuffix("_seg.nii.gz")
        for case, step in ((phantom, 1), (f"{phantom}_mirrored", -1)):
            (folder / case).mkdir(parents=True)
            for new, old in names.items():
                image = nibabel.load(file.with_name(f"{phantom}_{old}.nii.gz"))
                values = np.asanyarray(image.dataobj)[::step]
                values = (values > 0).astype(np.uint8) if new == "seg" else values
                nibabel.save(nibabel.Nifti1Image(values, image.affine), folder / case / f"{case}_{new}.nii.gz")


def _write_as_handed_out(folder: Path) -> None:
    """Two challenges and a collection in the formats of their sites."""
    write_iseg(folder / "iSEG2017")
    write_mrbrains(folder / "MRBrainS13" / "TrainingData")
    write_pancreas(folder / "Pancreas-CT_DICOM")


def _write_photographs(images: Path, masks: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for folder in (images, masks):
        folder.mkdir(parents=True)
    known = len(list(images.parent.glob("*_Data/*.jpg")))
    for number in range(known, known + count):
        mask = np.zeros((45, 60), np.uint8)
        mask[10:30, 15:40] = 255
        photograph = generator.integers(150, 200, (45, 60, 3), dtype=np.uint8) - mask[..., None] // 3
        Image.fromarray(photograph).save(images / f"ISIC_{number:07}.jpg")
        Image.fromarray(mask).save(masks / f"ISIC_{number:07}_segmentation.png")


def calls_of(script: str, folder: Path, records: Path) -> list[Call]:
    """What a script would run, each with its folder first; nothing of it is run.

    Raises:
        AssertionError: bash stops, as it does at a program that the docs have not used so far.
    """
    programs, calls = records / "bin", records / "calls"
    for made in (programs, calls):
        made.mkdir(parents=True)
    for program in PROGRAMS:
        (programs / program).write_text(RECORDER, encoding="utf-8")
        (programs / program).chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": str(programs), "CALLS": str(calls)}
    command = ["/bin/bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert result.returncode == 0, f"bash: {result.stderr}"
    return [tuple(file.read_text(encoding="utf-8").split("\0")[:-1]) for file in sorted(calls.iterdir())]


def config_keys(files: str | Sequence[str], folder: Path) -> set[str]:
    """Top keys of the config files that a command names."""
    if isinstance(files, str):
        files = ast.literal_eval(files) if files.startswith("[") else [files]
    return {key for file in files for key in json.loads((folder / file).read_text(encoding="utf-8"))}


def small_options(keys: set[str], given: Sequence[str]) -> dict[str, object]:
    """Settings with which anything takes seconds, of those that there are."""
    small = {**SMALL, "epochs": 1, "max_cases": 8, "live_cases": 0}  # figures take longest
    small["localizer_masks"] = False  # weights of volumes serve pictures too, see _include_weights
    if "slice_size" in keys:
        del small["spacing_mm"]  # images of these bundles keep their voxels
    if {"--fold", "--folds", "--held_out"} & set(given):
        del small["folds"]
    if "--labeled_cases" in given:
        small["labeled_cases"] = 2
    return {key: value for key, value in small.items() if key in keys}


def appended(call: Call) -> list[str]:
    """The options that shorten a call."""
    folder, program, *arguments = call
    of_monai = program == "python" and arguments[:2] == ["-m", "monai.bundle"]
    if of_monai or (program == "segan-monai" and arguments[0] == "check"):
        keys = config_keys(arguments[arguments.index("--config_file") + 1], Path(folder))
        return [text for key, value in small_options(keys, arguments).items() for text in (f"--{key}", str(value))]
    if program != "segan-monai":
        return []
    if arguments[0] in CONFIG_FILES and "--predictions" not in arguments:
        return _appended_to_short_command(call)
    if arguments[0] == "reproduce":
        from segan_monai.reproduce import Plan, load_tables
        from segan_monai.reproduce.plan import rows_that_set

        table, *others = load_tables(arguments[1])
        row = next(row for row in table.rows if not any(row in other.rows for other in others))
        bundle = arguments[arguments.index("--bundle") + 1] if "--bundle" in arguments else table.bundle
        keys = config_keys(f"bundles/{bundle}/configs/train.json", TOP)
        small = small_options(keys, arguments)
        for found in (table, *others):  # a setting that each row makes itself is refused
            kept = rows_that_set(Plan(found, TOP, TOP, overrides=small), found.rows)
            small = {key: value for key, value in small.items() if len(kept[key]) < len(found.rows)}
        settings = [f"--set={key}={value}" for key, value in small.items()]
        if "--train-seconds" in arguments:
            settings.append("--train-seconds=1")
        few = ["--labels=2", "--draws=0"] if table.labels else []
        folds = ["--folds=0"] if "--folds" in arguments else []
        return [*settings, *few, *folds, "--seeds=0", f"--row={row}"]
    if arguments[0] == "folds":
        keys = config_keys("configs/train.json", find_bundle(arguments[1]))
        return ["--folds=0", *(f"--set={key}={value}" for key, value in small_options(keys, arguments).items())]
    if arguments[0] == "export":
        if not Path(folder, arguments[2], "configs").is_dir():
            return []  # the weights of a run bring their settings, included ones are as large as they are
        keys = config_keys("configs/inference.json", Path(folder, arguments[2]))
        return [f"--set={key}={value}" for key, value in small_options(keys, arguments).items() if key != "max_cases"]
    return {
        "evaluate": ["--workers=1"],
        "phantoms": ["--cases=1", "--spacing=8", "--workers=1"],
        "prepare": ["--workers=1"],
        "verify": ["--check=files", "--check=metadata", "--check=network"],
    }.get(arguments[0], [])


def _appended_to_short_command(call: Call) -> list[str]:
    folder, _, command, name, *others = call
    is_run = Path(folder, name, "run.json").is_file()
    if command != "train" and not is_run:
        return []  # the included weights are as large as they are
    is_folder = Path(folder, name).is_dir()
    bundle = bundle_of_run(Path(folder, name)) if is_run else find_bundle(Path(folder, name) if is_folder else name)
    keys = config_keys(f"configs/{CONFIG_FILES[command]}", bundle)
    return [f"--{key}={value}" for key, value in small_options(keys, others).items()]


def run(call: Call, log: Path) -> int:
    """Run a call, shortened. Returns its exit status; what it prints is in `log`."""
    process = SERVER.Process(target=_run, args=([*call, *appended(call)], log))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    _include_weights(Path(call[0]))
    return process.exitcode


def _include_weights(folder: Path) -> None:
    """Put the weights of a training into its bundle, in place of the included ones, which are as large as they are."""
    for bundle in (folder, *folder.glob("bundles/*"), folder / "my_bundle"):
        trained = bundle / "output" / "training"
        if (trained / "model.pt").is_file():
            pictures = bundle / "models" / "ct_pictures"
            pictures.mkdir(parents=True, exist_ok=True)
            for member in sorted(pictures.glob("fold_*"), reverse=True):  # an ensemble, of which one network is left
                for file in ("model.json", "split.json"):
                    shutil.copyfile(member / file, pictures / file)
                shutil.rmtree(member)
            for file in ("model.pt", "model.json", "split.json"):
                shutil.copyfile(trained / file, pictures.parent / file)
            shutil.copyfile(trained / "model.pt", pictures / "model.pt")  # its settings may be those of volumes


def _run(call: Sequence[str], log: Path) -> None:
    """The child: becomes the program."""
    folder, program, *arguments = call
    with log.open("a", encoding="utf-8") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    os.chdir(folder)
    _become(program, arguments)


def _smaller(command: Sequence[str]) -> list[str]:
    """Options for what the rows of a table set themselves, and for the epochs of a calibration."""
    files = ast.literal_eval(command[command.index("--config_file") + 1])
    config = {key: value for file in files for key, value in json.loads(Path(file).read_text(encoding="utf-8")).items()}
    larger = {key: limit for key, limit in LIMITS.items() if key in config and config[key] not in range(limit + 1)}
    return [text for key, limit in larger.items() for text in (f"--{key}", str(limit))]


def _become(program: str, arguments: list[str]) -> None:
    if program == "segan-monai":
        from segan_monai.cli.main import main
        from segan_monai.reproduce import runs

        runs.subprocess.run = _run_in_fork  # instead of an interpreter that imports MONAI first
        sys.argv = [program, *arguments]
        main()
    else:
        become(arguments)


def _run_in_fork(command, stdout, stderr, check):
    context = multiprocessing.get_context("fork")
    call = [str(Path.cwd()), "python", *command[1:], *_smaller(command)]
    process = context.Process(target=_run, args=(call, Path(stdout.name)))
    process.start()
    process.join()
    return subprocess.CompletedProcess(command, process.exitcode)
