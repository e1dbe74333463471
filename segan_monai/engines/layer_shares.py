# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Share of each layer of the critics in SegAN's loss, and in its gradient on the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, convert_to_tensor
from torch import Tensor

from segan_monai.engines.accumulation import buffers_unchanged
from segan_monai.engines.parameters import frozen
from segan_monai.losses import MultiScaleL1Loss

if TYPE_CHECKING:
    from segan_monai.engines.segan import SegANTrainer

BALANCE_EVERY = 10
"""Iterations between two measurements for the reduction ``balanced``; else there is one per epoch."""


class LayerShares:
    """Measures the layers in the first iteration of each epoch, and adds their shares to the output as ``layers``.

    The values ``loss_0``, ``gradient_0`` etc. are shares between 0 and 1; those of all layers sum to 1. They are logged
    as ``layers/loss_0``. One measurement costs about as much as an iteration. With the reduction ``balanced``, the loss
    is measured every ten iterations, which also updates its scales. Where labels are partly known, what is unknown is
    multiplied by ``mask`` of the output, as in the loss itself.
    """

    def attach(self, engine: SegANTrainer) -> None:
        """Register with the trainer, if its loss has layers."""
        if isinstance(engine.loss_function, MultiScaleL1Loss):
            engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.measure)

    def measure(self, engine: SegANTrainer) -> None:
        """Measure, if it is time."""
        if not engine.critic_plays:
            return
        done = (engine.state.iteration - 1) % (engine.state.epoch_length or 1)
        balanced = engine.loss_function.reduction == "balanced"
        if done and not (balanced and done % BALANCE_EVERY == 0):
            return
        losses, norms = measure_layers(engine)
        if not done:
            for kind, values in (("loss", losses), ("gradient", norms)):
                total = values.sum()
                layers = engine.loss_function.layers or range(len(values))
                shares = {f"{kind}_{i}": value / total for i, value in zip(layers, values, strict=True)}
                engine.state.output.setdefault("layers", {}).update(shares)


def measure_layers(engine: SegANTrainer) -> tuple[Tensor, Tensor]:
    """Measure the layers on the current batch, or on its first part; see ``MultiScaleL1Loss.measure``.

    Weights, their gradients and the running statistics of the critics stay as they are.
    """
    output = engine.state.output
    whole = (
        convert_to_tensor(output[key], track_meta=False).float() if key in output else None
        for key in (CommonKeys.IMAGE, CommonKeys.LABEL, CommonKeys.PRED, "mask")
    )
    image, target, logits, known = engine.split(*whole)[0].tensors  # no more memory than a step
    prediction = logits.sigmoid().requires_grad_()
    shown, true = (prediction, target) if known is None else (prediction * known, target * known)
    with buffers_unchanged(engine.critic), engine.autocast(), frozen(engine.critic):
        features, others = engine.critic(image, shown), engine.critic(image, true)
        return engine.loss_function.measure(features, others, prediction, engine.loss_scale("segmentor"))
