# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Check that results are written outside the data set, where they could be mistaken for data, and the package."""

from __future__ import annotations

import os
from pathlib import Path

from segan_monai.errors import ConfigError
from segan_monai.files import lies_in

_PACKAGE = Path(__file__).resolve().parent
_DATA_FOLDERS = ("images", "labels", "masks")  # prefixes of the data folders of a data set whose files are listed


def require_results_outside(
    output_dir: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str] | None,
    datalist: str | os.PathLike[str] | None = None,
) -> None:
    """Check that a later run would not mistake results in the output folder for cases.

    A folder of images is searched at any depth, so nothing may be written into it. If the files are listed (by a
    datalist or ``dataset.json``) or are all in ``imagesTr``, subfolders that do not contain images or label maps are
    allowed. Links are resolved before paths are compared.

    Args:
        output_dir: output folder; it need not exist.
        dataset_dir: data folder; if it is None or does not exist, any output folder is allowed.
        datalist: the run's datalist, if any.

    Raises:
        ConfigError: The output folder is in the data set. The message names both and suggests another folder.
    """
    if not dataset_dir or not lies_in(output_dir, dataset_dir):
        return
    output, data = (Path(path).expanduser().resolve() for path in (output_dir, dataset_dir))
    inside = output.relative_to(data).parts if output.is_relative_to(data) else ()
    listed = bool(datalist) or (data / "dataset.json").is_file() or (data / "imagesTr").is_dir()
    if inside and listed and not inside[0].startswith(_DATA_FOLDERS):
        return
    raise ConfigError(
        f"output_dir {output_dir} {'is inside' if inside else 'is'} the data set {dataset_dir}, so a later run would "
        f"mistake its results for images or label maps. Use a folder outside, such as --output_dir {data}_results."
    )


def require_outside_package(key: str, folder: str | os.PathLike[str]) -> None:
    """Check that a run does not write into the installed package, where an update would delete its results.

    The bundles of a checkout are outside the package.

    Args:
        key: config key of the folder.
        folder: folder to write to.

    Raises:
        ConfigError: The folder is in the package.
    """
    if lies_in(folder, _PACKAGE):
        raise ConfigError(
            f"{key} {folder} is inside the installed package, where the next update would delete what a run writes. "
            f"Give a folder of yours: --{key} FOLDER."
        )
