# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Secondary capture of the overlay picture of a case, for viewers that show no segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segan_monai.dicom.seg import MANUFACTURER, SERIES_NUMBERS, Algorithm
from segan_monai.dicom.volumes import SeriesVolume


def secondary_capture(source: SeriesVolume, picture: Path, algorithm: Algorithm) -> Any:
    """Build a secondary capture of a picture.

    It has no position in space: the picture is a panel per modality, in radiological orientation.

    Args:
        source: series whose patient and study the result has.
        picture: PNG file.
        algorithm: written to the result.

    Returns:
        ``highdicom.sc.SCImage``.
    """
    import highdicom as hd
    from PIL import Image

    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    result = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source.headers[0],
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["OT"],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.model_name,
        series_description=f"Picture: {algorithm.name}"[:64],
    )
    if "BodyPartExamined" not in result and "Laterality" not in result:
        result.Laterality = ""  # must be present, unless a body part without sides is
    return result
