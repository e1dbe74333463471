# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cases of two domains, and a run of a handler over them."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from monai.data import MetaTensor

REGIONS = {"dark": [1], "bright": [2]}


def volume(values):
    return MetaTensor(torch.as_tensor(values).float(), affine=torch.eye(4))


def make_case(name, domain):
    """Two halves; domain b is a with its contrast inverted, and the normalized images are alike."""
    torch.manual_seed(0)
    label = torch.zeros(1, 20, 20, 6)
    label[:, 2:10, 2:18], label[:, 10:18, 2:18] = 1, 2
    noise = torch.rand(label.shape)
    normalized = (label + noise) * (label > 0)
    image = normalized if domain == "a" else (4 - normalized) * (label > 0)
    batch = {"case": name, "domain": domain, "label": volume(label)}
    return batch, {"input": volume(image), "normalized": volume(normalized), "pred": volume(label)}


def run(handler):
    cases = [make_case("1", "a"), make_case("2", "b"), make_case("NA", "a")]

    def process(engine, case):
        engine.state.batch, output = [case[0]], [case[1]]
        return output

    engine = Engine(process)
    handler.attach(engine)
    engine.run(cases)
    return handler
