# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of L-SNet with unlabelled images [ours]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor

from segan_monai.engines.lsnet import LSNetTrainer, decay_gradient
from segan_monai.engines.unlabeled_images import UnlabeledImages
from segan_monai.networks import RoIs
from segan_monai.networks.roi_recalibration import sample_affine


class Taught(NamedTuple):
    """What the teacher predicts for B unlabelled images; without gradients.

    Attributes:
        heat: probabilities of L-Net's heatmap, (B, K, h, w).
        image: (B,) index of the image of each RoI.
        theta: affine of each RoI, (B, 2, 3).
        mask: probabilities in the RoIs, (B, K, H, W).
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
        image, target = self.prepare(batchdata)
        unlabeled = self.unlabeled(batchdata, image)
        changed = self.strong_change(unlabeled)
        network: Any = self.network
        network.train()
        taught = self._teach(unlabeled)
        weight = self.weight_of_consistency
        with self.autocast():
            found = network.localizer(torch.cat([image, changed]))
        terms = self.localization_loss(_part(found, slice(len(image))), target)
        weights = dict.fromkeys(terms, 1.0)
        heat = _heatmap(_part(found, slice(len(image), None))).float().sigmoid()
        terms["localizer_consistency"] = self.consistency(heat, taught.heat)
        self.minimize("localizer", terms, {**weights, "localizer_consistency": weight}, self.optimizer)

        with self.autocast():
            with torch.set_grad_enabled(self.gradient_decay > 0 and not network.hard_crop):
                found = network.localizer(torch.cat([image, changed]))
                rois = network.localizer.draw_rois(_part(found, slice(len(image))))
            rois = rois._replace(distances=decay_gradient(rois.distances, self.gradient_decay))
            theta = network.affine(rois, image.shape[2:])
            crops = sample_affine(image[rois.image], theta), sample_affine(changed[taught.image], taught.theta)
            logits = network.segmentor(torch.cat(crops))
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        of_labeled, of_unlabeled = logits.float().split([len(crop) for crop in crops])
        cropped = sample_affine(target[rois.image], theta.detach()).round()
        both = {
            "mask": self.loss_function(of_labeled, cropped),
            "consistency": self.consistency(of_unlabeled.sigmoid(), taught.mask),
        }
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        self.state.output["terms"]["weight_consistency"] = torch.as_tensor(weight, device=self.state.device)
        loss = self.minimize("segmentor", both, {"mask": 1.0, "consistency": weight}, self.optimizer)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        return self.finish(of_labeled, loss)

    @torch.no_grad()
    def _teach(self, unlabeled: Tensor) -> Taught:
        """Return what the teacher predicts for unlabelled images (B, C, H, W)."""
        teacher: Any = self.averaged
        with self.autocast():
            found = teacher.localizer(unlabeled)
            rois: RoIs = teacher.localizer.draw_rois(found)
            theta = teacher.affine(rois, unlabeled.shape[2:])
            mask = teacher.segmentor(sample_affine(unlabeled[rois.image], theta))
        return Taught(_heatmap(found).float().sigmoid(), rois.image, theta, mask.float().sigmoid())


def _part(found: Any, rows: slice) -> Any:
    """Return some images of what a localizer found: heatmap and distances, or a coarse mask."""
    return tuple(part[rows] for part in found) if isinstance(found, tuple) else found[rows]


def _heatmap(found: Any) -> Tensor:
    """Return the logits of a localizer's heatmap, or of its coarse mask."""
    return found[0] if isinstance(found, tuple) else found
