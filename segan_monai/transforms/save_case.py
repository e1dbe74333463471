# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of the results of a case."""

from __future__ import annotations

import builtins
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.transforms import SaveImaged

from segan_monai.errors import DataError
from segan_monai.files import cannot_write, whole_file
from segan_monai.transforms.input_grid_writer import InputGridWriter


class SaveCased(SaveImaged):
    """Save a case atomically as ``<case>_<output_postfix><output_ext>``, with MONAI's ``SaveImaged``.

    NIfTI files are written by ``InputGridWriter``, so that every program shows them on their input.

    Args:
        keys: what to save. The file name in ``meta["filename_or_obj"]`` is that of the case, see ``LoadCased``.
        resample: see ``SaveImaged``. Inputs have their original affine, so nothing is resampled; with False, MONAI
            truncates a permuted affine to 2-D and fails.
        separate_folder: see ``SaveImaged``.
        print_log: see ``SaveImaged``.
        **settings: other arguments of ``SaveImaged``.

    Returns:
        The dictionary. The paths of the files written are appended to the list ``saved_files``.

    Raises:
        OutputError: on call, if a file cannot be written.
        DataError: on call, if the format cannot hold the result.
    """

    def __init__(
        self,
        keys: Any,
        resample: bool = True,
        separate_folder: bool = False,
        print_log: bool = False,
        **settings: Any,
    ) -> None:
        if str(settings.get("output_ext", ".nii.gz")).startswith(".nii"):
            settings.setdefault("writer", InputGridWriter)
        super().__init__(keys, resample=resample, separate_folder=separate_folder, print_log=print_log, **settings)
        # MONAI would try the next writer when the disk is full
        self.saver.writers = tuple(self.saver.writers[:1])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Save the keys."""
        case = dict(data)
        saver = self.saver
        saved = list(case.get("saved_files", ()))
        for key in self.key_iterator(case):
            file = Path(saver.folder_layout.filename(**saver.fname_formatter(case[key].meta, saver)))
            with whole_file(file) as temporary:
                try:
                    saver(case[key], filename=str(temporary).removesuffix(saver.output_ext))
                except RuntimeError as error:  # holds the writer's own error as text only
                    reason = str(error).strip().splitlines()[-1]
                    if _is_of_system(reason):
                        raise cannot_write(file, reason) from error
                    raise DataError(
                        f"{file}: the result of shape {tuple(case[key].shape)} cannot be written as "
                        f"{saver.output_ext} ({reason}). Expected an image that this format can hold."
                    ) from error
            saved.append(str(file))
        case["saved_files"] = saved
        return case


def _is_of_system(text: str) -> bool:
    """Return whether the text of an error, ``type: message``, is of an ``OSError``: no space left, and the like."""
    kind = getattr(builtins, text.partition(":")[0].rpartition(".")[2].strip(), None)
    return isinstance(kind, type) and issubclass(kind, OSError)
