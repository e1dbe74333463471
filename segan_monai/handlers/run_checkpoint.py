# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the complete training state, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from segan_monai.deferred import training_begins
from segan_monai.earlier_runs import nothing_to_resume
from segan_monai.errors import ConfigError, UserError
from segan_monai.handlers.model_files import write_model
from segan_monai.handlers.process_state import load_state_of_process, states_of_processes
from segan_monai.handlers.random_state import random_state, set_random_state
from segan_monai.handlers.resumed_schedule import resume_optimizer, resume_schedule
from segan_monai.networks.weights import read_checkpoint, save_atomically
from segan_monai.places import require_outside_package
from segan_monai.processes import gather_objects
from segan_monai.trained import allowed_keys, contradictions, is_of_pretraining

logger = logging.getLogger(__name__)

AVERAGED = "averaged"
"""Name of the averaged weights in ``last.pt``."""


class RunCheckpoint:
    """Saves ``last.pt`` after every epoch and the best segmentor as ``model.pt``; resumes from ``last.pt``.

    ``last.pt`` contains the state of all ``objects``, gradient scalers, epoch, best metric and the random states of
    each process. The first process (rank 0) writes it, and all processes must have access to ``output_dir`` to resume.

    If a signal stops the trainer, ``last.pt`` is also written in the middle of an epoch. It then also contains the
    random states from the start of the epoch, so that the resumed run can skip exactly the batches already used, and
    what each process has of its own, such as running statistics. If the resumed run has another number of batches per
    epoch, it begins that epoch anew.

    A resumed run may have more epochs or another learning rate, see ``resume_schedule``.

    When the trainer starts and everything has been built, the files of an earlier run in ``output_dir`` are moved to
    ``previous_1``, see ``start_run``. Attach all handlers that write into the folder after this one.

    ``model.pt`` contains only the weights of ``network`` (the convention of MONAI's model zoo), averaged if the trainer
    has an ``ema_decay``; ``last.pt`` then contains both, the averaged ones as ``averaged``. It is written when the
    validator's key metric improves, or after the last epoch if there was no validation. Attach this handler after the
    validation handler.

    ``quality.json`` beside ``model.pt`` is removed, because it was fitted to the earlier weights.

    Beside ``model.pt`` lies ``model.json`` with the settings of the training, which later runs use. ``last.pt``
    contains them too, and a resumed training must have the same.

    Args:
        output_dir: receives ``last.pt`` and a copy of ``model.pt``.
        ckpt_dir: receives ``model.pt``, ``model.json`` and a copy of ``split.json`` from ``output_dir``, if it exists,
            so that evaluations know the training cases.
        network: the deployed network, for ``model.pt``.
        objects: objects with a ``state_dict``, by name: networks, optimizers, schedulers.
        validator: evaluator whose key metric selects the best weights, or None.
        resume: whether to resume from ``last.pt``.
        trained_settings: what the network depends on, see ``segan_monai.trained.record_of_training``; None writes no
            ``model.json``.
        allow_other_settings: keys that a resumed training may change.

    Raises:
        ConfigError: ``resume`` is set, and ``last.pt`` is missing or does not match the objects or the settings.
        OutputError: A checkpoint cannot be written; the previous one stays intact.
        UserError: A weight is not finite; the previous checkpoint is kept.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        ckpt_dir: str | os.PathLike[str],
        network: nn.Module,
        objects: Mapping[str, Any],
        validator: Engine | None = None,
        resume: bool = False,
        trained_settings: Mapping[str, Any] | None = None,
        allow_other_settings: Sequence[str] | str = (),
    ) -> None:
        self.output_dir = Path(output_dir)
        require_outside_package("ckpt_dir", ckpt_dir)
        self.ckpt_dir = Path(ckpt_dir)
        self.network = network
        self.objects = dict(objects)
        self.validator = validator
        self.resume = resume
        self.trained_settings = dict(trained_settings or {})
        self.allowed = allowed_keys(allow_other_settings)
        self.epoch_began_with: Mapping[str, Any] = {}
        self.batches_done = 0
        self.random_state_then: Mapping[str, Any] = {}

    @property
    def last(self) -> Path:
        """Path of the checkpoint with the complete state."""
        return self.output_dir / "last.pt"

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
            engine.add_event_handler(Events.GET_BATCH_STARTED, self.pass_over)
        engine.add_event_handler(Events.STARTED, lambda: training_begins(self.output_dir))
        engine.add_event_handler(Events.EPOCH_STARTED, self.reseed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save_if_asked_to_stop)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.name_weights)

    def reseed(self, engine: Engine) -> None:
        """Seed random transforms in this process from the global state, as in worker processes."""
        self.epoch_began_with = random_state(engine.state.device)
        loader = engine.state.dataloader
        if getattr(loader, "num_workers", None) == 0:
            set_rnd(loader.dataset, int(torch.randint(2**31, ())))

    def pass_over(self, engine: Engine) -> None:
        """Skip the batches of this epoch that were used before the run was stopped."""
        for _ in range(self.batches_done):
            next(engine._dataloader_iter)  # type: ignore[arg-type]  # the epoch's own iterator; it has no public name
        if self.batches_done and self.random_state_then:
            set_random_state(self.random_state_then, engine.state.device)
        self.batches_done = 0

    def save_if_asked_to_stop(self, engine: Engine) -> None:
        """Write a checkpoint in the middle of an epoch; at its end, ``save`` writes it."""
        done = engine.state.iteration % (engine.state.epoch_length or 1)
        if not done or not getattr(engine, "stop_requested", False):
            return
        self._check_weights(engine)
        random_states = gather_objects(random_state(engine.state.device))
        middle = {
            "batches_done": done,
            "epoch_length": engine.state.epoch_length,
            "epoch_began_with": gather_objects(self.epoch_began_with),
            "of_processes": states_of_processes(engine),
        }
        if idist.get_rank() == 0:
            self._save_last(engine, engine.state.epoch - 1, random_states, middle)
            logger.info("stopped in epoch %d; saved %s: --resume true resumes", engine.state.epoch, self.last)

    def save(self, engine: Engine) -> None:
        """Write the checkpoints of the completed epoch, on rank 0."""
        self._check_weights(engine)
        random_states = gather_objects(random_state(engine.state.device))
        if idist.get_rank() > 0:
            return
        best_epoch = self.validator.state.best_metric_epoch if self.validator else -1
        validated_now = self.validator is not None and self.validator.state.epoch == engine.state.epoch
        never_validated = best_epoch < 0 and engine.state.epoch == engine.state.max_epochs
        if (validated_now and best_epoch == engine.state.epoch) or never_validated:
            weights = (getattr(engine, "averaged", None) or self.network).state_dict()
            write_model(weights, self.output_dir, self.ckpt_dir, self.trained_settings)
        self._save_last(engine, engine.state.epoch, random_states, {})

    def load(self, engine: Engine) -> None:
        """Restore the state from ``last.pt``; only once, because federated learning starts the trainer every round."""
        if not self.resume:
            return
        self.resume = False
        if not self.last.is_file():
            raise nothing_to_resume(self.output_dir)
        checkpoint = read_checkpoint(self.last)
        self._check_settings(checkpoint.get("settings", {}))
        objects = self._objects_of(engine)
        if AVERAGED in checkpoint and AVERAGED not in objects:
            raise ConfigError(
                f"{self.last} has averaged weights, and its best metric is theirs, but ema_decay is 0. Resume with the "
                "--ema_decay of that training, or train anew in another --output_dir."
            )
        # schedules last: they may change the learning rate of their optimizer
        for name, item in sorted(objects.items(), key=lambda pair: isinstance(pair[1], LRScheduler)):
            if name == AVERAGED and name not in checkpoint:
                raise ConfigError(
                    f"{self.last} has no averaged weights, because that training had no ema_decay. Resume with "
                    "--ema_decay 0, or train anew in another --output_dir."
                )
            if name not in checkpoint and not item.state_dict():
                continue  # without state, and added after the checkpoint was written
            try:
                if isinstance(item, LRScheduler):
                    resume_schedule(name, item, checkpoint[name])
                elif isinstance(item, Optimizer):
                    resume_optimizer(name, item, checkpoint[name])
                else:
                    item.load_state_dict(checkpoint[name])
            except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{self.last}: its '{name}' does not match this configuration ({error}). Resume with the config "
                    "file, overlays and overrides listed in run.json in that folder."
                ) from error
        for phase, state in checkpoint["scalers"].items():
            engine.scalers[phase] = torch.amp.GradScaler(engine.state.device.type)
            engine.scalers[phase].load_state_dict(state)
        engine.state.epoch = checkpoint["epoch"]
        self.batches_done = checkpoint.get("batches_done", 0)
        length = engine.state.epoch_length
        if self.batches_done and checkpoint.get("epoch_length", length) != length:
            logger.warning(
                "%s was written after %d of %d batches of epoch %d; this training has %s batches per epoch, so it "
                "begins that epoch anew",
                self.last,
                self.batches_done,
                checkpoint["epoch_length"],
                checkpoint["epoch"] + 1,
                length,
            )
            self.batches_done = 0
        engine.state.iteration = checkpoint["epoch"] * (engine.state.epoch_length or 0) + self.batches_done
        if self.validator is not None and checkpoint["best_metric"] is not None:
            self.validator.state.best_metric = checkpoint["best_metric"]
            self.validator.state.best_metric_epoch = checkpoint["best_metric_epoch"]
        began_with = checkpoint["epoch_began_with"] if self.batches_done else checkpoint["random_states"]
        if idist.get_rank() < len(began_with):  # additional processes keep their seeds
            self.random_state_then = checkpoint["random_states"][idist.get_rank()]
            set_random_state(began_with[idist.get_rank()], engine.state.device)
        load_state_of_process(engine, checkpoint.get("of_processes", []))
        logger.info(
            "resumed from %s after epoch %d of %d%s",
            self.last,
            checkpoint["epoch"],
            engine.state.max_epochs,
            f" and {self.batches_done} batches" if self.batches_done else "",
        )

    def name_weights(self, engine: Engine) -> None:
        """Log where the weights are, on rank 0."""
        if idist.get_rank() == 0:
            use = "begin a training with them, pass --initial_weights"
            if not is_of_pretraining(self.trained_settings):
                use = "evaluate or apply them, pass --ckpt_dir"
            logger.info("weights: %s (to %s %s)", self.ckpt_dir / "model.pt", use, self.ckpt_dir)

    def _save_last(
        self, engine: Engine, epochs: int, random_states: list[dict[str, Any]], middle: Mapping[str, Any]
    ) -> None:
        best = self.validator.state.best_metric if self.validator else None
        save_atomically(
            {
                **{name: item.state_dict() for name, item in self._objects_of(engine).items()},
                "scalers": {phase: scaler.state_dict() for phase, scaler in getattr(engine, "scalers", {}).items()},
                "epoch": epochs,
                "best_metric": float(best) if best is not None else None,
                "best_metric_epoch": self.validator.state.best_metric_epoch if self.validator else -1,
                "random_states": random_states,
                "settings": self.trained_settings.get("settings", {}),
                **middle,
            },
            self.last,
        )

    def _objects_of(self, engine: Engine) -> dict[str, Any]:
        """Return the objects to save, with those of the trainer: averaged weights, running means of its losses."""
        average = getattr(engine, "weight_average", None)
        own = getattr(engine, "checkpointed", {})
        return {**self.objects, **own, **({AVERAGED: average} if average else {})}

    def _check_settings(self, of_checkpoint: Mapping[str, Any]) -> None:
        """Check that the settings are those of the checkpoint; checkpoints of earlier versions have none."""
        others = contradictions(of_checkpoint, self.trained_settings.get("settings", {}), self.allowed)
        if others:
            found = "; ".join(
                f"{key} is {now}, but {before} in the checkpoint" for key, (before, now) in others.items()
            )
            raise ConfigError(
                f"{self.last}: {found}. Resume with the settings of the run, which run.json in that folder lists, or "
                f'train anew in another --output_dir. For an intended change, add --allow_other_settings "{[*others]}".'
            )

    def _check_weights(self, engine: Engine) -> None:
        """Check that all weights are finite, because a finite loss can have an infinite gradient."""
        for name, item in self.objects.items():
            if not isinstance(item, nn.Module):
                continue
            for key, value in item.state_dict().items():
                if not torch.isfinite(value).all():
                    raise UserError(
                        f"weight '{key}' of '{name}' is NaN or infinite after epoch {engine.state.epoch}. {self.last} "
                        "of the previous epoch, if any, is unchanged. Lower the learning rate or train without amp, "
                        "and resume with --resume true."
                    )
