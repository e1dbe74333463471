# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of L-SNet: Xie et al. (2021), Section 2.5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor

from segan_monai.engines.phased import PhasedTrainer
from segan_monai.errors import ConfigError
from segan_monai.losses import loss_of_known_pixels
from segan_monai.networks import RoIs
from segan_monai.networks.roi_recalibration import mirrored_affine
from segan_monai.networks.true_boxes import boxes_of_objects, jittered, mean_box_iou, of_whole_objects, with_true_boxes


def decay_gradient(tensor: Tensor, factor: float) -> Tensor:
    """Return the tensor unchanged, with its gradient multiplied by a factor in the backward pass."""
    if not tensor.requires_grad or factor == 1:
        return tensor
    decayed = tensor.view_as(tensor)
    decayed.register_hook(lambda gradient: gradient * factor)
    return decayed


class LSNetTrainer(PhasedTrainer):
    """Trainer that alternates between localizer and segmentor of an ``LSNet``.

    Each iteration takes two steps, as in the paper:

    1. L-Net minimizes its own loss over heatmap and boxes.
    2. The updated L-Net predicts again, and one of the three most probable keypoints of each image is drawn at random.
       Its RoI is recalibrated, and L-Net and S-Net together minimize the loss of the mask in the RoI. The gradient from
       S-Net into L-Net is multiplied by the decay factor.

    One optimizer updates both networks [ours]. This is required for optimizers that rescale by past gradients, such as
    Adam. The decayed gradients then share the moments of L-Net's own gradients; with separate moments, the factor would
    cancel out. A factor of 0 excludes L-Net from step 2.

    ``box_iou`` among the logged terms is the mean IoU of drawn and true boxes (the mIoU in training of Table 4), see
    ``mean_box_iou``.

    The target in a RoI is the label map, recalibrated in the same way and rounded; it has no gradient.

    If batches have ``mask`` (B, K, H, W), 1 where the label is known, both losses use known pixels only (see
    ``loss_of_known_pixels``). True boxes are those of objects that touch no unknown pixel; L-Net learns nothing of the
    others, see ``of_whole_objects`` [ours].

    Early in training, the second step may take boxes of true objects, moved and resized at random, in place of
    predicted ones [ours]. S-Net then learns what a RoI looks like before L-Net finds any.

    Args:
        localization_loss: called with the localizer's output, the label and where it is known, returns terms by name;
            see ``LocalizationLoss`` and ``CoarseSegmentationLoss``.
        gradient_decay: factor of the gradient from S-Net into L-Net (paper: 0.1).
        true_box_share: share of the epochs in which true boxes are used. Their probability falls linearly from 1 in the
            first iteration to 0; 0 for predicted boxes only (the paper); None for true boxes in every iteration, as
            the cited coarse-to-fine methods train their second network.
        box_jitter: standard deviation of the shift of a true box's edges, as a share of its width or height.
        roi_jitter: the same for predicted boxes [ours]. Boxes of training images are better than those of new ones.
        **settings: arguments of ``PhasedTrainer`` except ``adversaries``. The network is an ``LSNet``; the loss
            function is that of the mask in the RoI, with logits and label (B, K, H, W).

    Raises:
        ConfigError: if the decay factor or a jitter is negative, the share is not from 0 to 1, or ``compile`` is given:
            the number of RoIs and objects varies.
    """

    def __init__(
        self,
        *,
        localization_loss: Callable,
        gradient_decay: float = 0.1,
        true_box_share: float | None = 0.0,
        box_jitter: float = 0.1,
        roi_jitter: float = 0.0,
        **settings: Any,
    ) -> None:
        if gradient_decay < 0:
            raise ConfigError(f"gradient_decay is {gradient_decay}; expected 0 (no gradient) or more, such as 0.1.")
        if not 0 <= (true_box_share or 0) <= 1 or min(box_jitter, roi_jitter) < 0:
            raise ConfigError(
                f"true_box_share is {true_box_share}, box_jitter {box_jitter} and roi_jitter {roi_jitter}; expected a "
                "share of the epochs from 0 to 1, and jitters of 0 or more."
            )
        if settings.get("compile"):
            raise ConfigError("LSNetTrainer cannot be compiled, because the number of RoIs varies. Omit compile.")
        super().__init__(adversaries={}, **settings)
        self.localization_loss = localization_loss
        self.gradient_decay = gradient_decay
        self.true_box_share, self.box_jitter, self.roi_jitter = true_box_share, box_jitter, roi_jitter

    @property
    def true_box_probability(self) -> float:
        """Probability that the second step of this iteration takes the box of a true object."""
        if self.true_box_share is None:
            return 1.0
        total = self.true_box_share * (self.state.max_epochs or 1) * (self.state.epoch_length or 1)
        return max(0.0, 1 - (self.state.iteration - 1) / total) if total else 0.0

    def _iteration(self, engine: LSNetTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take a step of the localizer and a step of both networks on a batch."""
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        network: Any = self.network
        network.train()
        parts, inputs = self.split(image, *self.labels(batchdata, target)), []
        with self.minimizing("localizer", self.optimizer) as step:
            for part in parts:
                image, _, _, objects, seen = part.tensors
                with self.autocast():
                    inputs.append(network.localizer_input(image))
                    found = network.localizer(inputs[-1])
                terms = self.localization_loss(found, objects, seen)
                step.add(part, terms, dict.fromkeys(terms, 1.0))

        predictions, ious = [], []
        with self.minimizing("segmentor", self.optimizer) as step:
            for part, small in zip(parts, inputs, strict=True):
                image, target, known, objects, _ = part.tensors
                with self.autocast():
                    rois, theta, iou = self.draw_rois(small, objects)
                    logits = network.segmentor(network.recalibrate(image[rois.image], theta))
                step.add(part, {"mask": self.loss_in_rois(logits, target, known, rois, theta)}, {"mask": 1.0})
                predictions.append(logits.detach())
                ious.append(iou)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        self.state.output["terms"]["box_iou"] = torch.stack(ious).nanmean()
        return self.finish(predictions, step.loss)

    def labels(self, batchdata: dict[str, Any], target: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Return label and known pixels of a batch: as they are, for masks, and of whole objects, for boxes."""
        known = self.moved(batchdata, "mask")
        return target, known, *((target, None) if known is None else of_whole_objects(target, known))

    def loss_in_rois(self, logits: Tensor, target: Tensor, known: Tensor | None, rois: RoIs, theta: Tensor) -> Tensor:
        """Return the loss of masks (N, K, h, w) in the RoIs of labels (B, K, H, W); beyond them, nothing is known."""
        recalibrate: Any = self.network.recalibrate
        cropped = recalibrate(target[rois.image], theta.detach()).round()
        seen = None if known is None else recalibrate(known[rois.image], theta.detach())
        return loss_of_known_pixels(self.loss_function, logits.float(), cropped, seen)

    def draw_rois(self, small: Tensor, target: Tensor) -> tuple[RoIs, Tensor, Tensor]:
        """Draw the RoI of each labelled image in which S-Net learns.

        Args:
            small: images as L-Net sees them, the labelled ones first.
            target: label (B, K, H, W) of these, of whole objects.

        Returns:
            B RoIs in pixels of the label; their affines (B, 2, 3), whose gradient into L-Net is decayed; and the mean
            IoU of drawn and true boxes.
        """
        network: Any = self.network
        with torch.set_grad_enabled(self.gradient_decay > 0 and not network.hard_crop):
            found = of_images(network.localizer(small), slice(len(target)))
            rois = network.in_input(network.localizer.draw_rois(found), target.shape[2:])
        rois = rois._replace(distances=decay_gradient(rois.distances, self.gradient_decay))
        objects = boxes_of_objects(target)
        iou = mean_box_iou(rois, objects)
        if self.roi_jitter:
            rois = jittered(rois, self.roi_jitter)
        if self.true_box_probability:
            rois = with_true_boxes(rois, objects, self.true_box_probability, self.box_jitter)
        return rois, self.affine(rois, target), iou

    def affine(self, rois: RoIs, image: Tensor) -> Tensor:
        """Return the affines (N, 2, 3) of RoIs of images (B, C, H, W), mirrored at random if ``mirror_rois``."""
        network: Any = self.network
        theta = network.affine(rois, image.shape[2:])
        return mirrored_affine(theta, torch.rand(len(theta)).to(theta) < 0.5) if network.mirror_rois else theta


def of_images(found: Any, rows: slice) -> Any:
    """Return what a localizer found in some of the images: heatmap and distances, or a coarse mask."""
    return tuple(part[rows] for part in found) if isinstance(found, tuple) else found[rows]
