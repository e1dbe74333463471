# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the process imports whose children become the docs' commands."""

import monai.bundle
import monai.bundle.__main__
import SimpleITK
import torch.utils.tensorboard

import segan_monai.check
import segan_monai.cli.main
import segan_monai.export
import segan_monai.report
import segan_monai.verify  # noqa: F401
