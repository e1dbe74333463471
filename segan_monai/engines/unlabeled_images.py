# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What trainers with unlabelled images share: batches of these, and the mean teacher [ours]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from segan_monai.engines.joined_loaders import JoinedLoaders
from segan_monai.engines.phased import PhasedTrainer
from segan_monai.engines.schedule import ramp
from segan_monai.errors import ConfigError, DataError
from segan_monai.losses import ConsistencyLoss
from segan_monai.unlabeled_terms import terms_in_use, unmet_needs


class UnlabeledImages(PhasedTrainer):
    """Base of trainers with unlabelled images u, to be put before another trainer among the bases of a class.

    Each batch of labelled images carries a batch of unlabelled ones, see ``JoinedLoaders``. The teacher T is the
    network with the moving average of its weights (``ema_decay``): Tarvainen and Valpola (2017). The network must
    predict for the strongly changed u what the teacher predicts for the unchanged one.

    Args:
        needs: values by which ``unmet_needs`` judges the terms; the weights among them say which terms are used.
        unlabeled_data_loader: yields ``image`` (B, C, H, W); not read if all weights are 0.
        consistency_weight: weight w_c of the teacher's term.
        consistency_loss: ``mse`` or ``dice``, see ``ConsistencyLoss``.
        consistency_ramp: epochs in which the weight rises from epoch 1, see ``ramp``.
        strong_change: changes images (B, C, H, W) for the network; None for no change.
        **settings: arguments of the other trainer.

    Raises:
        ConfigError: if a term lacks what it needs, see ``unmet_needs``.
    """

    def __init__(
        self,
        *,
        needs: dict[str, Any],
        unlabeled_data_loader: Iterable | None,
        consistency_weight: float,
        consistency_loss: str,
        consistency_ramp: float,
        strong_change: Callable[[Tensor], Tensor] | None,
        **settings: Any,
    ) -> None:
        needs = {
            **needs,
            "consistency_weight": consistency_weight,
            "unlabeled": "ignore" if unlabeled_data_loader is None else "use",
            "ema_decay": settings.get("ema_decay", 0.0),
        }
        for problem in unmet_needs(needs):
            raise ConfigError(problem)
        if unlabeled_data_loader is not None and terms_in_use(needs):
            joined = JoinedLoaders(settings["train_data_loader"], {"unlabeled": unlabeled_data_loader})
            settings["train_data_loader"] = joined
        super().__init__(**settings)
        self.consistency_weight = consistency_weight
        self.consistency_ramp = consistency_ramp
        self.consistency = ConsistencyLoss(consistency_loss) if consistency_weight else None
        self.strong_change = strong_change if consistency_weight and strong_change else _unchanged
        loader = self.data_loader
        if isinstance(loader, JoinedLoaders):
            loader.attach(self)

    @property
    def epochs_done(self) -> float:
        """Epochs before the current iteration, fractions included."""
        return (self.state.iteration - 1) / (self.state.epoch_length or 1)

    @property
    def weight_of_consistency(self) -> float:
        """Weight of the teacher's term in the current iteration."""
        return self.consistency_weight * ramp(self.epochs_done, self.consistency_ramp)


def unlabeled_images(trainer: PhasedTrainer, batchdata: dict[str, Any], image: Tensor) -> Tensor:
    """Return the unlabelled images of a batch on the device, beside labelled ones (B, C, H, W[, D]).

    Raises:
        DataError: if they have other channels or another size.
    """
    unlabeled = trainer.moved(batchdata["unlabeled"], "image")
    if unlabeled is None or unlabeled.shape[1:] != image.shape[1:]:
        found = "no image" if unlabeled is None else f"images of shape {tuple(unlabeled.shape[1:])}"
        raise DataError(
            f"the batch of unlabelled cases has {found}; expected {tuple(image.shape[1:])}, as of the labelled "
            "ones. Use the same preprocessing for both."
        )
    return unlabeled


def _unchanged(x: Tensor) -> Tensor:
    return x
