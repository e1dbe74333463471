# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the process imports whose children become programs (tests/forked.py)."""

import importlib

for name in (
    "monai.bundle.__main__",
    "SimpleITK",
    "onnxscript",
    "torch._dynamo",
    "torch.export",
    "torch.utils.tensorboard",
    "segan_monai.check",
    "segan_monai.cli.main",
    "segan_monai.export",
    "segan_monai.report",
    "segan_monai.reproduce",
    "segan_monai.verify",
):
    importlib.import_module(name)
