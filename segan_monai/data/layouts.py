# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Registry of the folder layouts.

To add a layout, write a module with a ``Layout`` and put it into ``LAYOUTS``.
"""

from __future__ import annotations

from segan_monai.data.brats import BRATS
from segan_monai.data.decathlon import DECATHLON
from segan_monai.data.iseg import ISEG
from segan_monai.data.isic import PHOTOGRAPHS
from segan_monai.data.layout import Layout
from segan_monai.data.mrbrains import MRBRAINS
from segan_monai.data.nnunet import NNUNET
from segan_monai.data.plain import PLAIN

LAYOUTS: tuple[tuple[Layout, ...], ...] = (
    (NNUNET,),  # its folders may hold a dataset.json too
    (DECATHLON,),
    (BRATS,),
    (ISEG, MRBRAINS),
    (PLAIN,),
    (PHOTOGRAPHS,),
)
"""Layouts in the order in which ``find_cases`` tries them. Those of one group may share a folder."""

WITH_LABEL_MAPS: tuple[Layout, ...] = (BRATS, DECATHLON, PLAIN)
"""Layouts in the order in which ``find_label_maps`` tries them: the most specific file names first."""
