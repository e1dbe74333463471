# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Lets a torchvision built for CUDA be imported beside a PyTorch for CPUs.

Its library of operators cannot be loaded there, and its import fails as two of them are unknown. MONAI Label imports it
to draw grids of pictures and calls neither. On PYTHONPATH, this file also reaches the processes in which it trains.
"""

import torch

library = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
