# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard monitoring of training: scalars per epoch, and pictures of a few fixed cases per validation."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ignite.engine import Engine, Events
from monai.utils import is_scalar
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from segan_monai.inferers import VolumeWindowInferer
from segan_monai.pictures.critic_picture import critic_figure, critic_maps, critic_maps_of_slice
from segan_monai.pictures.live_slice import LiveSlice
from segan_monai.pictures.localization_panel import COLUMNS as LOCALIZATION_COLUMNS
from segan_monai.pictures.localization_panel import draw_localization, look
from segan_monai.pictures.normalization_panel import COLUMNS as NORMALIZATION_COLUMNS
from segan_monai.pictures.normalization_panel import draw_normalization, region_legend
from segan_monai.pictures.overlay_picture import COLOURS, black_figure, draw_slice, outline_legend
from segan_monai.pictures.photograph_picture import PHOTOGRAPH_COLOURS, draw_photograph
from segan_monai.processes import process_rank

logger = logging.getLogger(__name__)
_LEGEND = 0.3  # inches of height
_LEGEND_ENTRY = 1.3  # inches of width
_LETTER = 0.072  # inches of width, of a title


def epoch_scalars(trainer: Any, validator: Any, learning_rates: Mapping[str, float]) -> dict[str, float]:
    """Return the scalars of the completed epoch by their names in TensorBoard and MLflow.

    Returns:
        ``training/<term>`` for every loss term, ``learning_rate/<optimizer>``, and, after a validation,
        ``validation/<metric>``, in which a region's Dice has the region's name.
    """
    found = {f"training/{name}": value for name, value in trainer.state.metrics.items()}
    if validator.state.epoch == trainer.state.epoch:
        found |= {f"validation/{name}": value for name, value in validator.state.metrics.items()}
    found |= learning_rates
    return {name: float(value) for name, value in found.items() if is_scalar(value)}


def current_learning_rates(trainer: Any) -> dict[str, float]:
    """Return the learning rate of each optimizer of a trainer, or of each parameter group if there are several."""
    found: dict[str, float] = {}
    for name, optimizer in vars(trainer).items():
        if isinstance(optimizer, Optimizer):
            rates = [group["lr"] for group in optimizer.param_groups]
            names = [name] if len(rates) == 1 else [f"{name}_{group}" for group in range(len(rates))]
            found |= {f"learning_rate/{n}": float(rate) for n, rate in zip(names, rates, strict=True)}
    return found


def first_cases(data: Iterable[Mapping[str, Any]], most: int) -> list[str]:
    """Return the names of the first cases of a dataset, alternating between domains if cases have a domain.

    Cases without a name, such as those from a viewer, are skipped.
    """
    counts: Counter[str] = Counter()
    ranked = []
    for index, item in enumerate(item for item in data if "case" in item):
        domain = str(item.get("domain", ""))
        ranked.append((counts[domain], index, str(item["case"])))
        counts[domain] += 1
    return [case for *_, case in sorted(ranked)[:most]]


def case_name(item: Mapping[str, Any]) -> str:
    """Return the name of a loaded case, or that of its image file."""
    if "case" in item:
        return str(item["case"])
    meta = getattr(item["image"], "meta", {})
    return Path(str(meta.get("filename_or_obj", ""))).name.split(".")[0] or "case"


class LiveView:
    """Writes TensorBoard events to the run's folder: scalars after every epoch, and pictures at each validation.

    Scalars are those of ``epoch_scalars``; the step is the epoch. Pictures show the same cases and slices each time,
    also in a resumed run: the first validation cases, at the slice with the largest reference area.

    - ``slices/<case>``: image with outlines of reference (solid) and prediction (dashed);
    - ``critic/<case>``: feature differences in SegAN's critic (``critic_maps``), once the critic has joined;
    - ``localization/<case>``: heatmap, boxes and RoI of an ``LSNet``;
    - ``normalization/<case>``: input and normalized image, instead of ``slices``, for networks that normalize.

    Networks are run in evaluation mode without gradients, and no random numbers are drawn. Weights, running averages
    and random states are therefore bit for bit those of a run without this handler. If drawing a picture fails, the
    error is logged and training continues. All events are in one file, because TensorBoard follows only the newest file
    in a folder; under ``torchrun``, rank 0 writes it. Attach this handler after validation, ``EpochLog`` and
    ``RunCheckpoint``.

    Args:
        output_dir: receives the events.
        validator: the trainer's evaluator, with batches and outputs in the form of ``LiveSlice.of_case``.
        regions: names of the K regions.
        modalities: names of the image's channels; not used for photographs.
        most_cases: number of cases shown; 0 for scalars only.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        validator: Any,
        regions: Sequence[str],
        modalities: Sequence[str],
        most_cases: int = 2,
    ) -> None:
        self.output_dir = os.fspath(output_dir)
        self.validator = validator
        self.regions = list(regions)
        self.modalities = list(modalities)
        self.most_cases = most_cases
        self.cases: list[str] = []
        self.left: list[str] = []
        self.learning_rates: dict[str, float] = {}
        self.trainer: Any = None
        self.writer: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if process_rank() > 0:
            return
        self.trainer = engine
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self.note_learning_rates)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_scalars)
        engine.add_event_handler(Events.COMPLETED, self.close)
        self.validator.add_event_handler(Events.STARTED, self.begin_validation)
        self.validator.add_event_handler(Events.ITERATION_COMPLETED, self.write_pictures)

    def start(self, engine: Engine) -> None:
        """Open the event file and purge events that an interrupted run wrote for later epochs."""
        self.writer = SummaryWriter(self.output_dir, purge_step=engine.state.epoch + 1 if engine.state.epoch else None)

    def note_learning_rates(self, engine: Engine) -> None:
        """Store the epoch's learning rates before schedulers change them."""
        self.learning_rates = current_learning_rates(engine)

    def write_scalars(self, engine: Engine) -> None:
        """Write the scalars of the completed epoch."""
        if self.writer is not None:
            for name, value in epoch_scalars(engine, self.validator, self.learning_rates).items():
                self.writer.add_scalar(name, value, engine.state.epoch)
            self.writer.flush()

    def begin_validation(self) -> None:
        """Select the cases to show, each once per validation (its first patch, if it has several)."""
        if not self.cases:
            self.cases = first_cases(self.validator.data_loader.dataset.data, self.most_cases)
        self.left = list(self.cases)

    def write_pictures(self, engine: Engine) -> None:
        """Draw the selected cases of a validation iteration."""
        batches, outputs = cast(list, engine.state.batch), cast(list, engine.state.output)
        for batch, output in zip(batches, outputs, strict=True):
            case = case_name(batch)
            if case not in self.cases and len(self.cases) < self.most_cases:
                self.cases.append(case)
                self.left.append(case)
            if case not in self.left or self.writer is None:
                continue
            self.left.remove(case)
            try:
                cut = LiveSlice.of_case({**batch, "case": case}, output, len(self.regions), *_slicing(engine.inferer))
                for name, draw in self._pictures(cut).items():
                    self.writer.add_figure(f"{name}/{case}", draw(cut), self.trainer.state.epoch, close=False)
            except Exception:  # an error in a picture must not end days of training
                logger.exception("case %s cannot be shown in the live view; training continues", case)

    def close(self) -> None:
        """Close the event file; the trainer's next run opens a new one."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _pictures(self, cut: LiveSlice) -> dict[str, Callable[[LiveSlice], Any]]:
        """Return the drawing functions for this kind of network, by name."""
        if cut.normalized is not None:
            return {"normalization": self._draw_normalization}
        pictures: dict[str, Callable[[LiveSlice], Any]] = {"slices": self._draw_slices}
        if getattr(self.trainer, "critic_plays", False):
            pictures["critic"] = self._draw_critic
        if hasattr(self.trainer.network, "locate"):
            pictures["localization"] = self._draw_localization
        return pictures

    def _draw_slices(self, cut: LiveSlice) -> Any:
        columns = 1 if cut.axis is None else len(cut.image)
        width, height = cut.figure_size(1, columns)
        width = max(width, (2 + len(self.regions)) * _LEGEND_ENTRY, columns * (len(cut.case) + 20) * _LETTER)
        figure, axes = black_figure(1, columns, (width, height + _LEGEND))
        if cut.axis is None:
            draw_photograph(axes[0, 0], cut.case, cut.shown, PHOTOGRAPH_COLOURS)
        else:
            draw_slice(axes[0], cut.case, cut.shown, self.modalities, COLOURS)
        outline_legend(figure, self.regions, COLOURS if cut.axis is not None else PHOTOGRAPH_COLOURS)
        return figure

    def _draw_critic(self, cut: LiveSlice) -> Any:
        network, critic, inferer = self.trainer.network, self.trainer.critic, self.validator.inferer
        if isinstance(inferer, VolumeWindowInferer):
            maps = critic_maps_of_slice(network, critic, cut, inferer.patch_size)
        else:
            maps = critic_maps(network, critic, cut.stack, cut.label, getattr(inferer, "min_size", (1, 1)))
        return critic_figure(cut, maps, self.regions, COLOURS if cut.axis is not None else PHOTOGRAPH_COLOURS)

    def _draw_normalization(self, cut: LiveSlice) -> Any:
        width, height = cut.figure_size(1, len(NORMALIZATION_COLUMNS))
        figure, axes = black_figure(1, len(NORMALIZATION_COLUMNS), (width, height + _LEGEND))
        ranks = [
            sum((r + 1) * m[..., 0] for r, m in enumerate(masks))
            for masks in (cut.shown.reference, cut.shown.prediction)
        ]
        normalized = cut.to_screen(cast(Tensor, cut.normalized))[0]
        row = {"input": cut.shown.image[0, ..., 0], "normalized": normalized, "aspect": cut.shown.aspect}
        row |= {"reference": ranks[0], "prediction": ranks[1]}
        draw_normalization(axes[0], cut.case, row, self.regions, normalized)
        region_legend(figure, self.regions)
        return figure

    def _draw_localization(self, cut: LiveSlice) -> Any:
        width, height = cut.figure_size(1, len(LOCALIZATION_COLUMNS))
        figure, axes = black_figure(1, len(LOCALIZATION_COLUMNS), (width, height))
        row = look(self.trainer.network, cut.image[None], cut.label[0].numpy())
        draw_localization(axes[0], {"case": cut.case, **row})
        return figure


def _slicing(inferer: Any) -> tuple[int, int]:
    """Return an inferer's (first) slicing axis, and the number of neighbouring slices on each side."""
    return getattr(inferer, "axes", (2,))[0], getattr(inferer, "neighbours", 0)
