# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai prepare``: converts downloaded data sets to a format that is fast to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

prepare = typer.Typer(
    help="Check, convert and compress a downloaded data set, and write its dataset.json.",
    no_args_is_help=True,
)

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Folder or archive of the data set; it is not modified.")]
Folder = Annotated[Path, typer.Argument(metavar="DST", help="New folder, or the folder of an interrupted conversion.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Cases converted in parallel; default: the CPU cores, at most 8.")
]
Modalities = Annotated[
    str | None, typer.Option(metavar="A,B", help="Modalities to convert, in this order, such as t1c,t2,flair.")
]
FourD = Annotated[bool, typer.Option(help="All modalities in one file (required by MONAI Label), or one file each.")]
N4 = Annotated[bool, typer.Option("--n4", help="Correct the bias field (N4).")]
N4ShrinkFactor = Annotated[
    int, typer.Option(min=1, help="Factor by which the image is reduced to estimate the bias field.")
]
Spacing = Annotated[
    str | None, typer.Option(metavar="R,A,S", help="Voxel size in mm to resample to (right, anterior, superior).")
]


@prepare.command()
def brats(
    source: Source,
    folder: Folder,
    modalities: Modalities = None,
    four_d: FourD = True,
    n4: N4 = False,
    n4_shrink_factor: N4ShrinkFactor = 4,
    spacing: Spacing = None,
    workers: Workers = None,
) -> None:
    """Prepare BraTS of any year: .mha of 2012 to 2015, NIfTI from 2017 on.

    Writes one file (H, W, D, 3) per case with T1c, T2 and FLAIR, and the label map with the values of its year.

    Example: segan-monai prepare brats BraTS2021_TrainingData BraTS2021_prepared
    """
    _prepare(
        "brats",
        source,
        folder,
        workers,
        modalities=_names(modalities),
        four_d=four_d,
        n4=n4,
        n4_shrink_factor=n4_shrink_factor,
        spacing_mm=_lengths(spacing),
    )


@prepare.command()
def msd(
    source: Source,
    folder: Folder,
    modalities: Modalities = None,
    four_d: FourD = True,
    n4: N4 = False,
    n4_shrink_factor: N4ShrinkFactor = 4,
    spacing: Spacing = None,
    workers: Workers = None,
) -> None:
    """Prepare a task of the Medical Segmentation Decathlon from its folder or .tar file.

    Example: segan-monai prepare msd Task04_Hippocampus Task04_prepared
    """
    _prepare(
        "msd",
        source,
        folder,
        workers,
        modalities=_names(modalities),
        four_d=four_d,
        n4=n4,
        n4_shrink_factor=n4_shrink_factor,
        spacing_mm=_lengths(spacing),
    )


@prepare.command()
def isic(
    source: Source,
    folder: Folder,
    longest_side: Annotated[int | None, typer.Option(min=1, help="Reduce photographs to this many pixels.")] = None,
    workers: Workers = None,
) -> None:
    """Prepare ISIC 2017 or 2018, task 1, from its zip files or folders, with the challenge's own sections.

    Photographs are copied byte for byte unless --longest-side is given; superpixel images are omitted.

    Example: segan-monai prepare isic ISIC2017 ISIC2017_prepared --longest-side 1024
    """
    _prepare("isic", source, folder, workers, longest_side_px=longest_side)


@prepare.command()
def iseg(
    source: Source,
    folder: Folder,
    n4: N4 = False,
    n4_shrink_factor: N4ShrinkFactor = 4,
    spacing: Spacing = None,
    workers: Workers = None,
) -> None:
    """Prepare iSEG 2017: convert Analyze to NIfTI, with T1 and the labels 1 CSF, 2 grey matter, 3 white matter.

    Example: segan-monai prepare iseg iSeg-2017-Training iSEG_prepared
    """
    shrunk = n4_shrink_factor
    _prepare("iseg", source, folder, workers, n4=n4, n4_shrink_factor=shrunk, spacing_mm=_lengths(spacing))


@prepare.command()
def mrbrains(
    source: Source,
    folder: Folder,
    strip_skull: Annotated[bool, typer.Option(help="Set images to 0 outside the label map.")] = True,
    n4: N4 = False,
    n4_shrink_factor: N4ShrinkFactor = 4,
    spacing: Spacing = None,
    workers: Workers = None,
) -> None:
    """Prepare MRBrainS 2013: T1 without skull, with the labels 1 CSF, 2 grey matter, 3 white matter.

    Example: segan-monai prepare mrbrains MRBrainS13 MRBrainS13_prepared
    """
    _prepare(
        "mrbrains",
        source,
        folder,
        workers,
        strip_skull=strip_skull,
        n4=n4,
        n4_shrink_factor=n4_shrink_factor,
        spacing_mm=_lengths(spacing),
    )


@prepare.command(name="pancreas-ct")
def pancreas_ct(
    source: Source,
    folder: Folder,
    label_flip: Annotated[
        str, typer.Option(help="Flipped axes of the label maps: auto to detect them, none, or axes such as y.")
    ] = "auto",
    spacing: Spacing = None,
    workers: Workers = None,
) -> None:
    """Prepare NIH Pancreas-CT: DICOM series at any depth, with label0001.nii.gz etc. on the grid of the series.

    Example: segan-monai prepare pancreas-ct Pancreas-CT Pancreas-CT_prepared
    """
    _prepare("pancreas-ct", source, folder, workers, label_flip=label_flip, spacing_mm=_lengths(spacing))


def _prepare(data_set: str, source: Path, folder: Path, workers: int | None, **options: Any) -> None:
    from segan_monai.prepare import PrepareOptions, prepare_data_set

    outcome = prepare_data_set(data_set, source, folder, PrepareOptions(**options), workers)
    typer.echo(outcome.summary())
    if not outcome.succeeded:
        raise typer.Exit(1)


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in text.split(",")) if text else None


def _lengths(text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(number) for number in text.split(",")) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"--spacing {text}: expected three lengths in mm, such as 1,1,1") from error
