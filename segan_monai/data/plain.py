# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Layout of volumes directly in a folder, each a case without a label, for inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.layout import Layout
from segan_monai.data.nnunet import by_channel, volumes_in
from segan_monai.file_kinds import VOLUMES, file_id


def plain_cases(folder: Path, modalities: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Find the cases of a folder of volumes, without subfolders.

    Where all names end in nnU-Net's channel numbers (``<case>_0000.nii.gz``), one per modality, each file is one
    channel of a case. Otherwise each file is a case.

    Args:
        folder: The folder.
        modalities: Names of the modalities; only their number is used.

    Returns:
        Cases sorted by name, with ``case``, ``subject`` and ``image``.
    """
    channels = len(modalities or [None])
    images = volumes_in(folder)
    grouped = by_channel(images)
    if grouped is None or any(list(numbers) != list(range(channels)) for numbers in grouped.values()):
        grouped = {file_id(name): {0: name} for name in images}
        if len(grouped) < len(images):  # one name with two endings: find_cases reports it
            return [{"case": file_id(name), "subject": file_id(name), "image": str(folder / name)} for name in images]
    cases: list[dict[str, Any]] = []
    for case, files in grouped.items():
        paths = [str(folder / name) for name in files.values()]
        cases.append({"case": case, "subject": case, "image": paths if len(paths) > 1 else paths[0]})
    return cases


PLAIN = Layout(
    name="plain folder of images",
    data_set="images",
    expected=f"images ({', '.join(VOLUMES)}) in the folder itself",
    matches=lambda folder, _: bool(volumes_in(folder)),
    cases=plain_cases,
    label_maps=lambda files, _: {path: file_id(path) for path in files},
)
