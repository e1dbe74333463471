# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One checkpoint with everything, so that a resumed run goes on as if it had never stopped."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.networks.weights import read_checkpoint

logger = logging.getLogger(__name__)


def save_atomically(content: Any, file: Path) -> None:
    """Write a checkpoint to a temporary name and move it, so that the previous one stays whole until then."""
    temporary = file.with_name(f".{file.name}.part")
    torch.save(content, temporary)
    temporary.replace(file)


def random_state() -> dict[str, Any]:
    """Return the state of every generator in use, in types that `torch.load(weights_only=True)` reads."""
    name, keys, *rest = np.random.get_state(legacy=True)
    numpy_state = (name, np.asarray(keys).tolist(), *rest)
    state = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class RunCheckpoint:
    """Saves ``last.pt`` after every epoch and the best segmentor as ``model.pt``; resumes from ``last.pt``.

    ``last.pt`` holds the state of everything in `objects`, the gradient scalers, epoch, best metric and random states.
    ``model.pt`` holds the weights of `network` alone (the model zoo's convention). It is written whenever the key
    metric of the validator is better than ever before, and from the last epoch if there was no validation.
    Attach it after the handler that validates.

    Args:
        output_dir: gets ``last.pt`` and a copy of ``model.pt``.
        ckpt_dir: gets ``model.pt``, and ``split.json`` of `output_dir` beside it if there is one, so that an evaluation
            knows which cases the weights have seen.
        network: the deployed network, for ``model.pt``.
        objects: name to whatever has ``state_dict``: networks, optimizers, schedulers.
        validator: the evaluator whose key metric decides what is best; None if there is none.
        resume: go on from ``last.pt``.

    Raises:
        ConfigError: if `resume` is set and there is no ``last.pt``, or its content does not fit the objects.
    """

    def __init__(
        self,
        output_dir: str,
        ckpt_dir: str,
        network: nn.Module,
        objects: Mapping[str, Any],
        validator: Engine | None = None,
        resume: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.ckpt_dir = Path(ckpt_dir)
        self.network = network
        self.objects = dict(objects)
        self.validator = validator
        self.resume = resume

    @property
    def last(self) -> Path:
        """File with everything."""
        return self.output_dir / "last.pt"

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_STARTED, self.reseed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def reseed(self, engine: Engine) -> None:
        """Let random transforms in this process follow from the global state, as they do in worker processes."""
        loader = engine.state.dataloader
        if getattr(loader, "num_workers", None) == 0:
            set_rnd(loader.dataset, int(torch.randint(2**31, ())))

    def save(self, engine: Engine) -> None:
        """Write the checkpoints of the epoch that ended; of several processes, the first one does."""
        if idist.get_rank() > 0:
            return
        best = self.validator.state.best_metric if self.validator else None
        best_epoch = self.validator.state.best_metric_epoch if self.validator else -1
        validated_now = self.validator is not None and self.validator.state.epoch == engine.state.epoch
        never_validated = best_epoch < 0 and engine.state.epoch == engine.state.max_epochs
        if (validated_now and best_epoch == engine.state.epoch) or never_validated:
            self._save_model()
        save_atomically(
            {
                **{name: item.state_dict() for name, item in self.objects.items()},
                "scalers": {phase: scaler.state_dict() for phase, scaler in getattr(engine, "scalers", {}).items()},
                "epoch": engine.state.epoch,
                "best_metric": float(best) if best is not None else None,
                "best_metric_epoch": best_epoch,
                "random_state": random_state(),
            },
            self.last,
        )

    def load(self, engine: Engine) -> None:
        """Restore everything from ``last.pt``."""
        if not self.last.is_file():
            raise ConfigError(
                f"--resume true, but {self.last} does not exist. Point --output_dir at the folder of the run to go on "
                "with, or leave --resume away to start a new one."
            )
        checkpoint = read_checkpoint(self.last)
        for name, item in self.objects.items():
            try:
                item.load_state_dict(checkpoint[name])
            except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{self.last}: its '{name}' does not fit this configuration ({error}). Resume with the same config "
                    "file, overlays and overrides that run.json in that folder lists."
                ) from error
        for phase, state in checkpoint["scalers"].items():
            engine.scalers[phase] = torch.amp.GradScaler(engine.state.device.type)
            engine.scalers[phase].load_state_dict(state)
        engine.state.epoch = checkpoint["epoch"]
        engine.state.iteration = checkpoint["epoch"] * (engine.state.epoch_length or 0)
        if self.validator is not None and checkpoint["best_metric"] is not None:
            self.validator.state.best_metric = checkpoint["best_metric"]
            self.validator.state.best_metric_epoch = checkpoint["best_metric_epoch"]
        set_random_state(checkpoint["random_state"])
        logger.info("resumed from %s after epoch %d of %d", self.last, checkpoint["epoch"], engine.state.max_epochs)

    def _save_model(self) -> None:
        weights = self.network.state_dict()
        for folder in {self.output_dir, self.ckpt_dir}:
            folder.mkdir(parents=True, exist_ok=True)
            save_atomically(weights, folder / "model.pt")
        split = self.output_dir / "split.json"
        if split.is_file() and self.ckpt_dir != self.output_dir:
            shutil.copyfile(split, self.ckpt_dir / "split.json")
