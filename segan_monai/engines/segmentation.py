# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of one-stage baselines."""

from __future__ import annotations

from typing import Any

from monai.engines.utils import IterationEvents

from segan_monai.engines.phased import PhasedTrainer
from segan_monai.losses import loss_of_known_pixels


class SegmentationTrainer(PhasedTrainer):
    """Trainer of one segmentor with one loss of logits and label.

    Logged terms, mixed precision and stops are those of ``PhasedTrainer``. If batches have ``mask`` (B, K, H, W), 1
    where the label is known, the loss uses known pixels only, see ``loss_of_known_pixels``.

    Args:
        **settings: arguments of ``PhasedTrainer`` except ``adversaries``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(adversaries={}, **settings)

    def _iteration(self, engine: SegmentationTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take one step on a batch."""
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        self.network.train()
        predictions = []
        with self.minimizing("segmentor", self.optimizer) as step:
            for part in self.split(image, target, self.moved(batchdata, "mask")):
                image, target, known = part.tensors
                with self.autocast():
                    logits = self.inferer(image, self.network)
                loss = loss_of_known_pixels(self.loss_function, logits.float(), target, known)
                step.add(part, {"mask": loss}, {"mask": 1.0})
                predictions.append(logits.detach())
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        return self.finish(predictions, step.loss)
