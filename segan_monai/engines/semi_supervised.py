# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainer of SegAN with unlabelled images, and with labels that are known in part [ours]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from segan_monai.engines.accumulation import Part, TwoPasses
from segan_monai.engines.gradient_balance import balancing_factors, last_weight
from segan_monai.engines.parameters import frozen
from segan_monai.engines.reference_samples import ReferenceSamples
from segan_monai.engines.schedule import ramp
from segan_monai.engines.segan import SegANTrainer, as_float32, final_logits
from segan_monai.engines.unlabeled_images import UnlabeledImages, unlabeled_images
from segan_monai.engines.unpaired_masks import Unpaired, UnpairedMasks
from segan_monai.losses import PatchScoreLoss, UnpairedL1Loss, loss_of_known_pixels

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class Segmented(NamedTuple):
    """Predictions for a part of a batch.

    Attributes:
        outputs: the network's outputs of the labelled images.
        of_unlabeled: logits of the unlabelled ones; None without them.
        pair: image, prediction and label map of the labelled ones, where the label is known.
        drawn: what the critic sees of the unlabelled ones; None in an iteration without these terms.
    """

    outputs: Tensor | list[Tensor]
    of_unlabeled: Any
    pair: tuple[Tensor, Tensor, Tensor]
    drawn: Unpaired | None


class SemiSupervisedTrainer(UnlabeledImages, SegANTrainer):
    """``SegANTrainer`` with three more terms, for images u without labels.

    T is the teacher: S with the moving average of its weights (``ema_decay``). r and y_r are labelled images and their
    label maps, drawn uniformly, and D the critic's patch scores. Each iteration takes two steps:

    1. C maximizes ``l(f(x * S(x)), f(x * y)) + l_u(f(u * S(u)), f(r * y_r)) - h(D(u * S(u)), D(r * y_r))``, with S
       fixed; then its weights are clamped.
    2. S minimizes ``w_s supervised(S(x), y) + w_p l(f(x * S(x)), f(x * y)) + w_c d(S(strong(u)), T(u)) +
       w_u l_u(f(u * S(u))) + w_d h_S(D(u * S(u)))``, with C and T fixed.

    A term of weight 0 is not computed. With all three at 0, the trainer is ``SegANTrainer``, bit for bit. S sees x and
    u in one batch, so that its norm layers use the same statistics for both, those of evaluation. If T takes part, S
    gets the strongly changed image and T the unchanged one; the critic always sees the unchanged image.

    r must be drawn as u is. Slices chosen by their label, because they have foreground, would let C tell true masks by
    the presence of an organ. If the batch has ``uniform`` (B,), false for samples chosen by their label, r is the other
    samples (see ``RandSlicesd``); else r is x. Without any r, an iteration omits the unpaired and the patch term, see
    ``ReferenceSamples``. See ``UnpairedMasks`` for other differences.

    If batches have ``mask`` (B, K, H, W), 1 where the label is known, the supervised loss uses known pixels only (see
    ``loss_of_known_pixels``). In the critic's terms, predicted and true masks are multiplied by it.

    Args:
        critic: the critics, see ``SegANTrainer``.
        unlabeled_data_loader, consistency_weight, consistency_loss, consistency_ramp, strong_change: see
            ``UnlabeledImages``.
        unpaired_weight: weight w_u of the distance of mean features.
        unpaired_layers: layers of the critic to compare, see ``UnpairedL1Loss``.
        unpaired_momentum: share of the previous value in the running means, see ``UnpairedL1Loss``.
        patch_weight: weight w_d of the patch scores; needs critics with ``patch_score``.
        patch_loss: ``hinge`` or ``least_squares``, see ``PatchScoreLoss``.
        unlabeled_critic_start: first epoch of the unpaired and patch terms. Before it, C has no part in them.
        unlabeled_critic_ramp: epochs in which their weights rise from that epoch, see ``ramp``.
        balance_gradients: whether w_u and w_d are relative: multiplied by the ratio of the gradient norms of the
            supervised loss and of the term on S's last layer. Weights are then comparable between losses and data.
        mask_blur: standard deviation of the Gaussian blur of true masks, in pixels; 0 for none.
        mask_noise: standard deviation of the noise on true and predicted masks when the terms begin; it falls to 0
            over ``unlabeled_critic_ramp``.
        **settings: arguments of ``SegANTrainer``.

    Raises:
        ConfigError: if a term lacks what it needs, see ``segan_monai.unlabeled_terms``; or critics with patch scores.
    """

    def __init__(
        self,
        *,
        critic: nn.Module,
        unlabeled_data_loader: Iterable | None = None,
        consistency_weight: float = 0.0,
        consistency_loss: str = "mse",
        consistency_ramp: float = 0.0,
        strong_change: Callable[[Tensor], Tensor] | None = None,
        unpaired_weight: float = 0.0,
        unpaired_layers: Sequence[int] | None = None,
        unpaired_momentum: float = 0.9,
        patch_weight: float = 0.0,
        patch_loss: str = "hinge",
        unlabeled_critic_start: int = 1,
        unlabeled_critic_ramp: float = 0.0,
        balance_gradients: bool = True,
        mask_blur: float = 0.0,
        mask_noise: float = 0.0,
        **settings: Any,
    ) -> None:
        if unpaired_weight or patch_weight:
            settings["adversaries"] = {"critic": critic}
        super().__init__(
            needs={
                "unpaired_weight": unpaired_weight,
                "patch_weight": patch_weight,
                "balance_gradients": balance_gradients,
                "critic_norm": any(isinstance(m, NORMS) for m in critic.modules()),
                "supervised_weight": settings.get("supervised_loss") and settings.get("supervised_weight"),
                "compile": settings.get("compile"),
            },
            unlabeled_data_loader=unlabeled_data_loader,
            consistency_weight=consistency_weight,
            consistency_loss=consistency_loss,
            consistency_ramp=consistency_ramp,
            strong_change=strong_change,
            critic=critic,
            **settings,
        )
        self.unpaired_weight = unpaired_weight
        self.patch_weight = patch_weight
        self.unpaired = UnpairedL1Loss(unpaired_layers, unpaired_momentum) if unpaired_weight else None
        self.patch = PatchScoreLoss(patch_loss) if patch_weight else None
        self.checkpointed = {"unpaired": self.unpaired.to(self.state.device)} if self.unpaired else {}
        self.unlabeled_critic_start = unlabeled_critic_start
        self.unlabeled_critic_ramp = unlabeled_critic_ramp
        self.balance_gradients = balance_gradients
        self.references = ReferenceSamples()
        self.references.attach(self)
        self.draws = False  # whether this iteration has the unpaired or patch terms
        self.last_weight: nn.Parameter | None = None
        self.comparable = UnpairedMasks(mask_blur, mask_noise, self.state.device)

    @property
    def unlabeled_critic_plays(self) -> bool:
        """Whether the current epoch has the unpaired or patch terms."""
        return bool(self.unpaired or self.patch) and self.state.epoch >= self.unlabeled_critic_start

    def _iteration(self, engine: SegANTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take a step of the critic and a step of the segmentor on a labelled and an unlabelled batch."""
        batchdata = self.augmented(batchdata)
        image, target = self.prepare(batchdata)
        known = self.moved(batchdata, "mask")
        if known is not None:
            self.state.output["mask"] = known
        needed = self.consistency or self.unlabeled_critic_plays
        unlabeled = unlabeled_images(self, batchdata, image) if needed else None
        rows = self._rows_of_references(batchdata, image, unlabeled)
        self.network.train()
        self.critic.train()
        parts = self.split(image, target, known, unlabeled, rows)
        segmented = TwoPasses(partial(self._segment, (image, target, known)), parts, self.network, self.state.device)
        if self.critic_plays or self.draws:
            self._step_critic(segmented.first())
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)

        predictions = []
        with self.minimizing("segmentor", self.optimizer) as step:
            for part, found in segmented.second():
                terms = self._terms(part, found)
                step.add(part, terms, self._weights(terms, final_logits(found.outputs)))
                predictions.append(final_logits(found.outputs).detach())
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        return self.finish(predictions, step.loss)

    def _segment(self, batch: Sequence[Any], *tensors: Any) -> Segmented:
        """Return what the critic and the segmentor need of a part of the batch (image, label map, known labels)."""
        image, target, known, unlabeled, rows = tensors
        with self.autocast():
            outputs, of_unlabeled = self._predict(image, unlabeled)
            prediction = final_logits(outputs).sigmoid()
        pair = (image, prediction, target) if known is None else (image, prediction * known, target * known)
        drawn = None
        if self.draws:
            references = (image, target, known) if rows is None else [x if x is None else x[rows] for x in batch]
            drawn = self._compared(unlabeled, of_unlabeled.sigmoid(), references)
        return Segmented(outputs, of_unlabeled, pair, drawn)

    def _terms(self, part: Part, found: Segmented) -> dict[str, Tensor]:
        """Return the terms that the segmentor minimizes on a part of the batch."""
        _, target, known, unlabeled, _ = part.tensors
        terms: dict[str, Tensor] = {}
        if self.critic_plays:
            terms["segmentor_l1"] = self.distance_for_segmentor(*found.pair)
        if self.supervised_loss is not None and self.supervised_weight:
            of_labeled = as_float32(found.outputs)
            terms["supervised"] = loss_of_known_pixels(self.supervised_loss, of_labeled, target, known)
        if self.consistency:
            terms["consistency"] = self.consistency(found.of_unlabeled.sigmoid(), self._teach(unlabeled))
        return terms | self._terms_of_critic(found.drawn) if found.drawn else terms

    def _predict(self, image: Tensor, unlabeled: Tensor | None) -> tuple[Tensor | list[Tensor], Any]:
        """Return the network's outputs of labelled images and the logits of unlabelled ones; None without them."""
        if unlabeled is None:
            return self.inferer(image, self.network), None
        both = self.inferer(torch.cat([image, self.strong_change(unlabeled)]), self.network)
        of_labeled = [level[: len(image)] for level in both] if isinstance(both, list) else both[: len(image)]
        return of_labeled, final_logits(both)[len(image) :]

    @torch.no_grad()
    def _teach(self, unlabeled: Any) -> Tensor:
        """Return the teacher's probabilities of unlabelled images."""
        with self.autocast():
            return self.inferer(unlabeled, self.averaged).sigmoid()  # type: ignore[arg-type]

    def _rows_of_references(self, batchdata: dict[str, Any], image: Tensor, unlabeled: Any) -> Tensor | None:
        """Decide whether this iteration has the unpaired and patch terms, and return the rows of their references."""
        self.draws = False
        if not self.unlabeled_critic_plays:
            return None
        parts = min(self.accumulation_steps, len(image), len(unlabeled))
        rows = self.references.choose(batchdata.get("uniform"), parts)
        self.draws = self.references.found
        return None if rows is None else rows.to(image.device, non_blocking=True)

    def _compared(self, image: Any, predicted: Tensor, references: Sequence[Any]) -> Unpaired:
        """Return unlabelled images with predicted masks, and references with true masks, comparable for the critic."""
        reference, true, known = references
        since = self.epochs_done - self.unlabeled_critic_start + 1
        left = max(0.0, 1 - since / self.unlabeled_critic_ramp) if self.unlabeled_critic_ramp else 0.0
        predicted, true = self.comparable(predicted, true, known, left)
        return Unpaired(image, predicted, reference, true)

    def _step_critic(self, segmented: Iterable[tuple[Part, Segmented]]) -> None:
        """Take a critic step on all terms that it has part in; then clamp its weights."""
        weights = {"critic_l1": -1.0, "critic_unpaired": -1.0, "critic_patch": 1.0}
        critic: Any = self.critic
        with self.minimizing("critic", self.critic_optimizer, self._clamp) as step:
            for part, found in segmented:
                image, prediction, target = found.pair
                drawn = found.drawn
                terms: dict[str, Tensor] = {}
                with self.autocast():
                    if self.critic_plays:
                        terms["critic_l1"] = self.distance(image, prediction.detach(), target)
                    if drawn:
                        predicted = critic(drawn.image, drawn.predicted.detach())
                        true = critic(drawn.reference, drawn.true)
                        if self.unpaired:
                            terms["critic_unpaired"] = self.unpaired(predicted, true)
                        if self.patch:
                            scores = critic.patch_scores(predicted), critic.patch_scores(true)
                            terms["critic_patch"] = self.patch(*scores)
                step.add(part, terms, weights)

    def _terms_of_critic(self, drawn: Unpaired) -> dict[str, Tensor]:
        """Return the terms that the segmentor minimizes on unlabelled images; only the prediction has a gradient."""
        terms = {}
        critic: Any = self.critic
        with self.autocast(), frozen(critic):
            features = critic(drawn.image, drawn.predicted)
            if self.unpaired:
                terms["segmentor_unpaired"] = self.unpaired.to_labelled(features)
            if self.patch:
                terms["segmentor_patch"] = self.patch.for_segmentor(critic.patch_scores(features))
        return terms

    def _weights(self, terms: dict[str, Tensor], logits: Tensor) -> dict[str, Any]:
        """Return the weights of the segmentor's terms in this iteration, and log those that change."""
        of_critic = ramp(self.epochs_done - self.unlabeled_critic_start + 1, self.unlabeled_critic_ramp)
        changing: dict[str, Any] = {
            "consistency": self.weight_of_consistency,
            "segmentor_unpaired": self.unpaired_weight * of_critic,
            "segmentor_patch": self.patch_weight * of_critic,
        }
        balanced = {name: term for name, term in terms.items() if name in ("segmentor_unpaired", "segmentor_patch")}
        if balanced and self.balance_gradients:
            reference = self.supervised_weight * terms["supervised"]
            self.last_weight = last_weight(logits) if self.last_weight is None else self.last_weight
            scale = self.loss_scale("segmentor")
            for name, factor in balancing_factors(reference, balanced, self.last_weight, scale).items():
                changing[name] = changing[name] * factor
        shown = {f"weight_{name.removeprefix('segmentor_')}": changing[name] for name in changing if name in terms}
        # `full`, because a copy from the host would wait for a GPU
        on_device = {
            k: v if isinstance(v, Tensor) else torch.full((), float(v), device=self.state.device)
            for k, v in shown.items()
        }
        self.state.output["terms"].update(on_device)
        return {"segmentor_l1": self.adversarial_weight, "supervised": self.supervised_weight, **changing}
