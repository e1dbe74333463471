# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results lie outside the data set, so that no later run takes them for images or label maps."""

from __future__ import annotations

import os
from pathlib import Path

from segan_monai.errors import ConfigError
from segan_monai.files import lies_in

_FILES_OF_LISTED = ("images", "labels", "masks")  # what the names of a listed data set's own folders begin with


def require_results_outside(
    output_dir: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str] | None,
    datalist: str | os.PathLike[str] | None = None,
) -> None:
    """Refuse an output folder in which a later run would find results and take them for cases.

    A folder of images is searched at any depth, so nothing may be written into it. Where files are listed (a datalist,
    a ``dataset.json``) or lie in ``imagesTr`` only, subfolders other than those of images and label maps are free.
    Links are followed, and names compared by what they lead to.

    Args:
        output_dir: need not exist.
        dataset_dir: folder of the data; None or a folder that is not there allows anything.
        datalist: of the run, if it has one.

    Raises:
        ConfigError: names both folders and a folder that can be used instead.
    """
    if not dataset_dir or not lies_in(output_dir, dataset_dir):
        return
    output, data = (Path(path).expanduser().resolve() for path in (output_dir, dataset_dir))
    inside = output.relative_to(data).parts if output.is_relative_to(data) else ()
    listed = bool(datalist) or (data / "dataset.json").is_file() or (data / "imagesTr").is_dir()
    if inside and listed and not inside[0].startswith(_FILES_OF_LISTED):
        return
    raise ConfigError(
        f"output_dir {output_dir} {'lies in' if inside else 'is'} the data set {dataset_dir}, so a later run would "
        f"take its results for images or label maps. Write beside it, for example --output_dir {data}_results."
    )
