# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of L-SNet with unlabelled images [ours]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor

from segan_monai.engines.lsnet import LSNetTrainer, of_images
from segan_monai.engines.unlabeled_images import UnlabeledImages, unlabeled_images
from segan_monai.networks import RoIs


class Taught(NamedTuple):
    """What the teacher predicts for B unlabelled images; without gradients.

    Attributes:
        heat: probabilities of L-Net's heatmap, (B, K, h, w).
        image: (B,) index of the image of each RoI.
        theta: affine of each RoI, (B, 2, 3).
        mask: probabilities in the RoIs, (B, K, *roi_size).
    """

    heat: Tensor
    image: Tensor
    theta: Tensor
    mask: Tensor


class SemiSupervisedLSNetTrainer(UnlabeledImages, LSNetTrainer):
    """``LSNetTrainer`` with a mean teacher, for slices u without labels.

    The teacher is the ``LSNet`` with the moving average of its weights (``ema_decay``). It sees u, and the network in
    training sees v, the strongly changed u. Each iteration takes the two steps of ``LSNetTrainer``, with a term each:

    1. L-Net minimizes its loss of the labelled images, and w_c d(heatmap of v, teacher's heatmap of u).
    2. The teacher's L-Net proposes a RoI of each u, drawn as those of labelled images. S-Net minimizes the loss of the
       mask in the RoIs of labelled images, and w_c d(mask of v, teacher's mask of u), both in the proposed RoI.

    The proposed RoI has no gradient, because it is the teacher's. The boxes of L-Net have no term: a teacher's box has
    a meaning only where there is an object. Each network sees labelled and unlabelled images in one batch, so that its
    norm layers use the same statistics for both. With a weight of 0, the trainer is ``LSNetTrainer``, bit for bit.

    Args:
        unlabeled_data_loader, consistency_weight, consistency_loss, consistency_ramp, strong_change: see
            ``UnlabeledImages``.
        **settings: arguments of ``LSNetTrainer``.

    Raises:
        ConfigError: if the weight is not 0 and there are no unlabelled images, or no averaged weights.
    """

    def __init__(
        self,
        *,
        unlabeled_data_loader: Iterable | None = None,
        consistency_weight: float = 0.0,
        consistency_loss: str = "mse",
        consistency_ramp: float = 0.0,
        strong_change: Callable[[Tensor], Tensor] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            needs={},
            unlabeled_data_loader=unlabeled_data_loader,
            consistency_weight=consistency_weight,
            consistency_loss=consistency_loss,
            consistency_ramp=consistency_ramp,
            strong_change=strong_change,
            **settings,
        )

    def _iteration(self, engine: LSNetTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take a step of the localizer and a step of both networks on a labelled and an unlabelled batch."""
        if self.consistency is None:
            return super()._iteration(engine, batchdata)
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        unlabeled = unlabeled_images(self, batchdata, image)
        changed = self.strong_change(unlabeled)
        network: Any = self.network
        network.train()
        parts = self.split(image, *self.labels(batchdata, target), unlabeled, changed)
        taught, inputs = [self._teach(part.tensors[-2]) for part in parts], []
        weight = self.weight_of_consistency
        with self.minimizing("localizer", self.optimizer) as step:
            for part, of_teacher in zip(parts, taught, strict=True):
                image, _, _, objects, seen, _, changed = part.tensors
                with self.autocast():
                    inputs.append(network.localizer_input(torch.cat([image, changed])))
                    found = network.localizer(inputs[-1])
                terms = self.localization_loss(of_images(found, slice(len(image))), objects, seen)
                weights = {**dict.fromkeys(terms, 1.0), "localizer_consistency": weight}
                heat = _heat(of_images(found, slice(len(image), None)))
                terms["localizer_consistency"] = self.consistency(heat, of_teacher.heat)
                step.add(part, terms, weights)

        predictions, ious = [], []
        with self.minimizing("segmentor", self.optimizer) as step:
            for part, of_teacher, small in zip(parts, taught, inputs, strict=True):
                image, target, known, objects, _, _, changed = part.tensors
                with self.autocast():
                    rois, theta, iou = self.draw_rois(small, objects)
                    crops = (
                        network.recalibrate(image[rois.image], theta),
                        network.recalibrate(changed[of_teacher.image], of_teacher.theta),
                    )
                    logits = network.segmentor(torch.cat(crops))
                of_labeled, of_unlabeled = logits.float().split([len(crop) for crop in crops])
                both = {
                    "mask": self.loss_in_rois(of_labeled, target, known, rois, theta),
                    "consistency": self.consistency(of_unlabeled.sigmoid(), of_teacher.mask),
                }
                step.add(part, both, {"mask": 1.0, "consistency": weight})
                predictions.append(of_labeled.detach())
                ious.append(iou)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        more = {"box_iou": torch.stack(ious).nanmean(), "weight_consistency": torch.as_tensor(weight)}
        self.state.output["terms"].update({k: v.to(self.state.device) for k, v in more.items()})
        return self.finish(predictions, step.loss)

    @torch.no_grad()
    def _teach(self, unlabeled: Tensor) -> Taught:
        """Return what the teacher predicts for unlabelled images (B, C, H, W)."""
        teacher: Any = self.averaged
        with self.autocast():
            found = teacher.localizer(teacher.localizer_input(unlabeled))
            rois: RoIs = teacher.in_input(teacher.localizer.draw_rois(found), unlabeled.shape[2:])
            theta = self.affine(rois, unlabeled)
            mask = teacher.segmentor(teacher.recalibrate(unlabeled[rois.image], theta))
        return Taught(_heat(found), rois.image, theta, mask.float().sigmoid())


def _heat(found: Any) -> Tensor:
    """Return the probabilities of a localizer's heatmap, or of its coarse mask."""
    return (found[0] if isinstance(found, tuple) else found).float().sigmoid()
