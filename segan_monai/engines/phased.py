# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Base of all trainers: phases, mixed precision, processes and graceful stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from segan_monai.engines.stop_signals import StopSignals
from segan_monai.errors import UserError
from segan_monai.processes import any_rank, average_over_processes, copy_from_first_process


class NonFiniteLossError(UserError):
    """Error for a loss term that became NaN or infinite; the weights are those before the step."""


def autocast_dtype(device: torch.device, amp: bool) -> torch.dtype | None:
    """Return the dtype of mixed precision: bfloat16 if the device supports it, else float16; None without ``amp``."""
    if not amp:
        return None
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16


def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; if not, mixed precision slows training on it."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Disable parameter gradients of these networks inside the block; gradients still flow to their inputs."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def clamp_weights(parameters: Iterable[Tensor], bound: float) -> None:
    """Clamp all weights to [-bound, bound] in place, with fused calls."""
    tensors = list(parameters)
    with torch.no_grad():
        torch._foreach_clamp_min_(tensors, -bound)
        torch._foreach_clamp_max_(tensors, bound)


def gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients of an optimizer's weights."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def running_statistics(*networks: nn.Module) -> list[Tensor]:
    """Return the running statistics of norm layers."""
    return [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]


def _names(batch: Any) -> str:
    """Return the distinct case names of a batch as text."""
    names = batch.get("case") if isinstance(batch, dict) else None
    return "cases without names" if not names else ", ".join(dict.fromkeys(map(str, names)))


class PhasedTrainer(SupervisedTrainer):
    """Base of trainers whose iterations consist of phases, such as the steps of critic and segmentor.

    A subclass implements ``_iteration`` like the algorithm box of its paper: it computes the loss terms of a phase
    under ``autocast()`` and passes them to ``minimize``. Every entry of ``state.output["terms"]`` (name to detached
    scalar) is logged by name.

    The first SIGINT (Ctrl-C) or SIGTERM stops the training after the current iteration, or after the current
    validation. ``RunCheckpoint`` saves the state, and the process exits with status 128 + signal. A second signal stops
    it immediately.

    In a run of several processes:

    - Each process takes its own batches, and all start with the weights of rank 0.
    - Gradients are averaged over processes before each step, so the weights stay equal.
    - Norm layers use the statistics of the local batch. Their running averages are averaged at the end of each epoch,
      before validation and before checkpoints are written.

    Args:
        device: device to train on.
        max_epochs: number of epochs.
        train_data_loader: yields dictionaries with ``image`` and ``label``.
        network: the deployed network.
        optimizer: optimizer of ``network``.
        loss_function: loss function, as the subclass defines.
        adversaries: further networks by name, such as the critic; converted and moved like ``network``.
        amp: mixed precision on CPU (bfloat16) and CUDA (bfloat16, or float16 with one gradient scaler per phase).
        channels_last: whether 2-D networks and images use the channels-last memory format, which is faster.
        epoch_length: iterations per epoch; default: the length of the loader.
        inferer: applies ``network`` to an image; default: one call.
        train_handlers: handlers, attached in the order given.
        key_train_metric: see ``SupervisedTrainer``.
        additional_metrics: see ``SupervisedTrainer``.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable,
        adversaries: dict[str, nn.Module],
        amp: bool = False,
        channels_last: bool = True,
        epoch_length: int | None = None,
        inferer: Inferer | None = None,
        train_handlers: Sequence | None = None,
        key_train_metric: dict | None = None,
        additional_metrics: dict | None = None,
    ) -> None:
        super().__init__(
            device=torch.device(device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            epoch_length=epoch_length,
            inferer=inferer,
            train_handlers=train_handlers,
            key_train_metric=key_train_metric,
            additional_metrics=additional_metrics,
            # MONAI's mixed precision supports only CUDA and a single scaler; see `minimize` for ours
            amp=False,
            decollate=False,
        )
        self.adversaries = adversaries
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        for module in (network, *adversaries.values()):
            module.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        networks = (network, *adversaries.values())
        copy_from_first_process(*networks)
        last = Events.ITERATION_COMPLETED(event_filter=lambda engine, number: number % engine.state.epoch_length == 0)
        self.add_event_handler(last, lambda: average_over_processes(running_statistics(*networks)))
        self.autocast_dtype = autocast_dtype(self.state.device, amp)
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.signals = StopSignals()
        self._asked: tuple[int, bool] = (-1, False)
        # attached last, so that the given handlers have completed the iteration or epoch
        self.add_event_handler(Events.ITERATION_COMPLETED, self._stop_if_asked, at_epoch_end=False)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._stop_if_asked, at_epoch_end=True)

    def run(self) -> None:
        """Train.

        Raises:
            SystemExit: with status 128 + signal, if a signal stopped the training.
        """
        with self.signals:
            super().run()
        if self.should_terminate and self.signals.received:
            raise SystemExit(128 + self.signals.received)

    @property
    def stop_requested(self) -> bool:
        """Whether a signal requests a stop; the same value for all handlers and processes within an iteration."""
        if self._asked[0] != self.state.iteration:
            self._asked = self.state.iteration, any_rank(bool(self.signals.received))
        return self._asked[1]

    def _stop_if_asked(self, at_epoch_end: bool) -> None:
        """Stop after an iteration if requested; after the last one of an epoch, only once its handlers have run."""
        ended = self.state.iteration % (self.state.epoch_length or 1) == 0
        complete = ended and self.state.epoch == self.state.max_epochs
        if ended == at_epoch_end and not complete and self.stop_requested:
            self.terminate(skip_completed=True)

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context of this run, which is disabled without ``amp``."""
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.state.device.type, dtype=self.autocast_dtype, enabled=enabled)

    def prepare(self, batchdata: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Move image and label to the device as plain float32 tensors in the trainer's memory format."""
        image, label = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)[:2]

        def plain(x: Tensor) -> Tensor:
            x = x.as_tensor() if hasattr(x, "as_tensor") else x
            return x.float().contiguous(memory_format=self.memory_format)

        self.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label, "terms": {}}
        return plain(image), plain(label)

    def finish(self, logits: Tensor, loss: Tensor) -> dict[str, Any]:
        """Add prediction and loss to the output of an iteration, and return the output."""
        self.state.output.update({CommonKeys.PRED: logits.detach(), CommonKeys.LOSS: loss})
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def minimize(self, phase: str, terms: dict[str, Tensor], weights: dict[str, float], optimizer: Optimizer) -> Tensor:
        """Take one optimizer step on the weighted sum of the terms.

        Args:
            phase: name of the phase; each phase has a separate gradient scaler.
            terms: scalar loss terms by name; logged under these names.
            weights: weight of each term in the sum; -1 to maximize.
            optimizer: optimizer of the network trained in this phase.

        Returns:
            The weighted sum, detached.

        Raises:
            NonFiniteLossError: if a term is not finite, before any weight changes. The message names the first one.
        """
        if not torch.stack(list(terms.values())).isfinite().all():  # the only device synchronization per phase
            bad = [name for name, term in terms.items() if not term.isfinite()]
            raise NonFiniteLossError(
                f"loss term '{bad[0]}' of the {phase} became {float(terms[bad[0]].detach())} in epoch "
                f"{self.state.epoch}, iteration {self.state.iteration}, on a batch of {_names(self.state.batch)}; "
                "expected a finite number. The checkpoint of the last epoch is kept. Lower the learning rate, train "
                "without amp, or check these images for extreme intensities; then continue with --resume true."
            )
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.state.output["terms"].update({name: term.detach() for name, term in terms.items()})
        if not loss.requires_grad:
            return loss  # independent of the weights: layer 0 alone (S3-3C-s0) is the masked image itself
        optimizer.zero_grad(set_to_none=True)
        if self.autocast_dtype is torch.float16:
            scaler = self.scalers.setdefault(phase, torch.amp.GradScaler(self.state.device.type))
            scaler.scale(loss).backward()
            average_over_processes(gradients(optimizer))
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            average_over_processes(gradients(optimizer))
            optimizer.step()
        return loss.detach()
