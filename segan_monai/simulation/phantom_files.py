# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Writing of phantom data sets in the layouts of BraTS and of the Medical Segmentation Decathlon."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import write_json
from segan_monai.optional import require_modules
from segan_monai.parallel import available_processes, map_in_processes
from segan_monai.simulated_data import MARK
from segan_monai.simulation.phantom import check_spacing, make_phantom


@dataclass(frozen=True)
class _Layout:
    """File layout of a data set.

    Attributes:
        case: Template of the case name.
        path: Template of the file path.
        names: File names by modality, in channel order for a layout with one 4-D file per case.
        label_values: Label values of necrosis, oedema, non-enhancing and enhancing tumour.
    """

    case: str
    path: str
    names: dict[str, str]
    label_values: tuple[int, int, int, int]


LAYOUTS = {
    "brats2015": _Layout(
        "phantom_pat{number:04d}_1",
        "{grade}/{case}/{name}.{file_id}/{name}.{file_id}.mha",
        {kind.lower(): f"VSD.Brain.XX.O.MR_{kind}" for kind in ("T1", "T1c", "T2", "Flair")}
        | {"seg": "VSD.Brain_3more.XX.O.OT"},
        (1, 2, 3, 4),
    ),
    "brats2018": _Layout(
        "Phantom18_{number:04d}_1",
        "{grade}/{case}/{case}_{name}.nii.gz",
        {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair", "seg": "seg"},
        (1, 2, 1, 4),
    ),
    "brats2021": _Layout(
        "Phantom2021_{number:05d}",
        "{case}/{case}_{name}.nii.gz",
        {"t1": "t1", "t1c": "t1ce", "t2": "t2", "flair": "flair", "seg": "seg"},
        (1, 2, 1, 4),
    ),
    "brats2023": _Layout(
        "Phantom-GLI-{number:05d}-000",
        "{case}/{case}-{name}.nii.gz",
        {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"},
        (1, 2, 1, 3),
    ),
    "msd": _Layout(
        "BRATS_{number:03d}",
        "{name}/{case}.nii.gz",
        {"flair": "FLAIR", "t1": "T1w", "t1c": "t1gd", "t2": "T2w", "image": "imagesTr", "seg": "labelsTr"},
        (2, 1, 2, 3),
    ),
}


def write_phantoms(
    output_dir: str | os.PathLike[str],
    cases: int = 20,
    seed: int = 0,
    spacing_mm: float = 1.0,
    layout: str = "brats2021",
    mass_effect: bool = True,
    workers: int | None = None,
) -> list[Path]:
    """Write simulated subjects as a data set in a layout of BraTS, with a README.txt that describes them.

    Case i is ``make_phantom((seed, i))``, independent of the number of cases and workers.

    Args:
        output_dir: Output folder; must be empty or not exist.
        cases: Number of subjects; about four of five have a high-grade tumour.
        seed: Seed of the data set, 0 or more.
        spacing_mm: Edge length of a voxel in mm. BraTS has 1; with 2, time and disk space are an eighth.
        layout: ``brats2015`` (.mha), ``brats2018`` (folders HGG and LGG), ``brats2021``, ``brats2023`` or ``msd``
            (Medical Segmentation Decathlon, one 4-D file per case). Each has the label values of its year.
        mass_effect: Whether tumours displace the tissue around them.
        workers: Number of processes, each of which takes about 1.6 GB at 1 mm; by default the number of cores, at
            most 4.

    Returns:
        Paths of the label maps, in the order of the cases.

    Raises:
        ConfigError: The layout is unknown, a number is out of range, or nilearn is not installed.
        DataError: The folder is not empty, or cannot be written.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if cases < 1 or seed < 0 or (workers is not None and workers < 1):
        raise ConfigError(
            f"cases={cases}, seed={seed}, workers={workers}: expected cases >= 1, seed >= 0, workers >= 1"
        )
    check_spacing(spacing_mm)
    require_modules("phantoms", "the MNI152 brain of the phantoms")
    folder = Path(output_dir).expanduser().absolute()
    write = partial(_write_case, folder, layout, seed, spacing_mm, mass_effect)
    workers = available_processes(cases, workers)
    try:
        _prepare_folder(folder)
        _write_descriptions(folder, layout, cases, seed, spacing_mm, mass_effect)
        written = map_in_processes(write, range(cases), workers, option="--workers")
        return list(tqdm(written, total=cases, desc="simulated phantoms", unit="case", disable=None))
    except OSError as error:
        raise DataError(
            f"cannot write phantoms to {folder}: {error}. Choose a folder with free space and write access"
        ) from error


def _prepare_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder to write phantoms to. Choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    if found := sorted(folder.iterdir()):
        raise DataError(
            f"{folder} is not empty: it holds {found[0].name}. Simulated images must not mix with others: "
            "choose a new folder, or delete this one if it holds only old phantoms"
        )


def _write_case(folder: Path, layout: str, seed: int, spacing_mm: float, mass_effect: bool, index: int) -> Path:
    """Simulate and write a case, and return the path of its label map."""
    phantom = make_phantom((seed, index), spacing_mm, mass_effect=mass_effect)
    chosen = LAYOUTS[layout]
    case = chosen.case.format(number=index + 1)
    volumes: dict[str, NDArray[Any]] = dict(phantom.images)
    if layout == "msd":
        volumes = {"image": np.stack([volumes[kind] for kind in chosen.names if kind in volumes], axis=-1)}
    volumes["seg"] = np.array((0, *chosen.label_values), np.uint8)[phantom.label]
    path = folder
    for number, (kind, volume) in enumerate(volumes.items()):
        file_id = 10 * (index + 1) + number  # each file of brats2015 has its own number
        names = {"case": case, "grade": phantom.grade, "name": chosen.names[kind], "file_id": file_id}
        path = folder / chosen.path.format(**names)
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, volume, phantom.affine, f"{MARK} {phantom.grade}, seed {seed}, case {index}")
    return path


def _save(path: Path, volume: NDArray[Any], affine: NDArray[np.float64], description: str) -> None:
    if path.suffix == ".mha":
        import SimpleITK as sitk  # noqa: N813

        image = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))
        to_lps = np.diag([-1, -1, 1, 1]) @ affine
        image.SetOrigin(to_lps[:3, 3].tolist())
        image.SetSpacing(np.abs(np.diag(affine))[:3].tolist())  # the direction stays the identity
        image.SetMetaData("descrip", description)
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
        return
    nifti = nib.Nifti1Image(volume, affine)
    nifti.header["descrip"] = description.encode()
    nifti.header.set_xyzt_units("mm")
    nib.save(nifti, path)  # gzip level 1


def _write_descriptions(folder: Path, layout: str, cases: int, seed: int, spacing_mm: float, mass_effect: bool) -> None:
    chosen = LAYOUTS[layout]
    option = "" if mass_effect else " --no-mass-effect"
    meanings = zip(chosen.label_values, ("necrosis", "oedema", "non-enhancing", "enhancing"), strict=True)
    labels = ", ".join(f"{value} {meaning}" for value, meaning in sorted(meanings))
    text = f"""SIMULATED DATA - NOT PATIENTS

{cases} phantoms in the layout {layout}: simulated gliomas in the MNI152 brain, for trying and testing software.
Results on them say nothing about patients and must be reported as results on simulated data.

Created with: segan-monai phantoms DIR --cases {cases} --seed {seed} --spacing {spacing_mm} --layout {layout}{option}
Label values: {labels}
The header of every file contains "{MARK}".

The anatomy is the ICBM 152 2009a template shipped with nilearn: V. Fonov et al., Unbiased average age-appropriate
atlases for pediatric studies, NeuroImage 54 (2011) 313-327, https://doi.org/10.1016/j.neuroimage.2010.07.033
"""
    (folder / "README.txt").write_text(text, encoding="utf-8")
    if layout != "msd":
        return
    names = [chosen.case.format(number=number) for number in range(1, cases + 1)]
    description = {
        "name": "BRATS",
        "description": f"{MARK}: simulated gliomas in the MNI152 brain, no patients",
        "reference": "segan-monai phantoms, see README.txt",
        "licence": "see README.txt",
        "release": "simulated",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "numTraining": cases,
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
    write_json(folder / "dataset.json", description)
