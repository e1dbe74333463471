# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes a torchvision built for CUDA importable with a CPU build of PyTorch.

Its operator library cannot be loaded there, and the import fails because two operators are undefined. MONAI Label
imports torchvision to draw grids of pictures, and calls neither operator. On PYTHONPATH, this file also takes effect in
the training processes.
"""

import torch

library = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
