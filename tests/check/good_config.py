# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A config without faults; tests change one thing."""

from __future__ import annotations

GOOD = {
    "imports": ["$import torch"],
    "learning_rate": 0.1,
    "device": "$torch.device('cpu')",
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@learning_rate"},
    "transforms": {"_target_": "Compose", "transforms": [{"_target_": "EnsureTyped", "keys": "image"}]},
    "never_used": {"_target_": "NoSuchThing", "x": "@nowhere"},
    "training": ["$@optimizer.step()", "$@transforms", "$@device"],
    "run": "%training",
}
