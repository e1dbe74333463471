# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Base of all trainers: phases, mixed precision, processes and graceful stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from segan_monai.engines.accumulation import Part, joined, split
from segan_monai.engines.compiling import GRAPHS, compile_settings
from segan_monai.engines.gradient_exchange import GradientExchange
from segan_monai.engines.loss_watch import LossWatch
from segan_monai.engines.memory_format import CHANNELS_LAST, use_channels_last
from segan_monai.engines.phase_step import PhaseStep
from segan_monai.engines.running_statistics import RunningStatistics
from segan_monai.engines.stop_requests import StopRequests
from segan_monai.engines.synchronized_norm import synchronize_batch_norm
from segan_monai.engines.weight_average import WeightAverage
from segan_monai.errors import ConfigError
from segan_monai.mixed_precision import autocast_dtype
from segan_monai.processes import copy_from_first_process, gather_objects

LOOK_EVERY = 10
"""Iterations on a GPU after which the host looks at losses, and at requests of other processes for a stop."""


class PhasedTrainer(SupervisedTrainer):
    """Base of trainers whose iterations consist of phases, such as the steps of critic and segmentor.

    A subclass implements ``_iteration`` like the algorithm box of its paper: it computes the loss terms of a phase
    under ``autocast()`` and adds them to the step of ``minimizing``. Every entry of ``state.output["terms"]`` (name to
    detached scalar) is logged by name.

    The first SIGINT (Ctrl-C) or SIGTERM stops the training after the current iteration, or after the current
    validation. ``RunCheckpoint`` saves the state, and the process exits with status 128 + signal. A second signal stops
    it immediately.

    On a GPU the host does not wait for the device within an iteration, except with float16, in ``LSNetTrainer``, with
    partly known labels, and with critics of unlabelled images in several processes. It reads loss terms every ten
    iterations and at the end of an epoch; see ``LossWatch``.

    In a run of several processes:

    - Each process takes its own batches, and all start with the weights of rank 0.
    - Gradients are averaged over processes before each step, so the weights stay equal; see ``GradientExchange``.
    - Batch norm uses the statistics of the local batch, without ``sync_batch_norm``. Its running averages are averaged
      at the end of each epoch, before validation and before checkpoints are written.
    - The messages with gradients tell whether a signal has reached a process. On GPUs, the host reads that every ten
      iterations.

    Args:
        device: device to train on.
        max_epochs: number of epochs.
        train_data_loader: yields dictionaries with ``image`` and ``label``.
        network: the deployed network.
        optimizer: optimizer of ``network``.
        loss_function: loss function, as the subclass defines.
        adversaries: further networks by name, such as the critic; converted and moved like ``network``.
        amp: mixed precision on CPU (bfloat16) and CUDA (bfloat16, or float16 with one gradient scaler per phase).
        channels_last: whether networks and images use the channels-last memory format, which is faster.
        compile: None; ``graphs`` for inductor with CUDA graphs; or a backend of ``torch.compile``. Compiles ``network``
            and the functions that a subclass passes to ``compiled``. ``inductor`` needs Triton on CUDA or a C++
            compiler on CPU, and its first iteration takes minutes.
        ema_decay: decay of the moving average of the weights, such as 0.99, see ``WeightAverage``; 0 for none.
            ``FinalValidationHandler`` validates the average, and ``RunCheckpoint`` writes it as ``model.pt``.
        accumulation_steps: parts into which each batch is split. Each phase computes the gradient of one part after the
            other, and takes one step on their sum: the gradient of the whole batch, with the memory of a part. This is
            exact for loss terms that are means over samples, in networks without batch norm. ``LOSS_COMPLETED`` fires
            after the gradients of all parts, before the step.
        sync_batch_norm: whether batch norm takes the statistics of all processes, see ``synchronize_batch_norm``.
        augment: changes image, label and mask of a batch at random on the device, see ``AugmentBatch``; None for no
            change. A batch of unlabelled cases is changed by itself.
        epoch_length: iterations per epoch; default: the length of the loader.
        inferer: applies ``network`` to an image; default: one call.
        train_handlers: handlers, attached in the order given.
        key_train_metric, additional_metrics: see ``SupervisedTrainer``.

    Attributes:
        of_process: by name, objects with a ``state_dict`` that differs between processes until the end of an epoch.

    Raises:
        ConfigError: if ``compile`` is unknown or needs a GPU, ``ema_decay`` is out of range, ``accumulation_steps`` is
            not positive or combined with CUDA graphs, or ``sync_batch_norm`` is set without a GPU.
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
        compile: str | None = None,
        ema_decay: float = 0.0,
        accumulation_steps: int = 1,
        sync_batch_norm: bool = False,
        augment: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None,
        epoch_length: int | None = None,
        inferer: Inferer | None = None,
        train_handlers: Sequence | None = None,
        key_train_metric: dict | None = None,
        additional_metrics: dict | None = None,
    ) -> None:
        device = torch.device(device)
        settings = compile_settings(compile, device)
        if accumulation_steps < 1:
            raise ConfigError(
                f"accumulation_steps is {accumulation_steps}; expected 1 (batches are not split) or more."
            )
        if accumulation_steps > 1 and compile == GRAPHS:
            raise ConfigError(
                f"accumulation_steps is {accumulation_steps} and compile 'graphs'. A replayed graph overwrites what it "
                "returned for other parts. Use compile 'inductor', or accumulation_steps 1."
            )
        super().__init__(
            device=device,
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
            # MONAI's mixed precision supports only CUDA and a single scaler; see `PhaseStep` for ours
            amp=False,
            decollate=False,
            non_blocking=device.type == "cuda",
        )
        self.adversaries = adversaries
        self.accumulation_steps = accumulation_steps
        self.augment = augment
        self.channels_last = channels_last
        if isinstance(loss_function, nn.Module):
            loss_function.to(device)  # its buffers
        if sync_batch_norm:
            synchronize_batch_norm((network, *adversaries.values()), device)
        for module in (network, *adversaries.values()) if channels_last else ():
            use_channels_last(module)
        copy_from_first_process(network, *adversaries.values())
        self.weight_average = WeightAverage(network, ema_decay) if ema_decay else None
        deployed = {"network": network}
        if self.weight_average:
            deployed["averaged"] = self.weight_average.network
            # after the given handlers, which may load weights
            self.add_event_handler(Events.STARTED, self.weight_average.begin)
        self.compile_settings, self.graphs = settings, compile == GRAPHS
        for module in deployed.values() if settings else ():
            module.compile(**settings)  # in place, so that parameter names stay
        last = Events.ITERATION_COMPLETED(event_filter=lambda engine, number: number % engine.state.epoch_length == 0)
        self.add_event_handler(last, lambda: self.losses.look())
        statistics = RunningStatistics({**deployed, **adversaries})
        self.add_event_handler(last, statistics.average)
        self.of_process: dict[str, Any] = {"running_statistics": statistics}
        dtypes = gather_objects(autocast_dtype(self.state.device, amp))  # unlike GPUs need one scale of gradients
        self.autocast_dtype = torch.float16 if torch.float16 in dtypes else dtypes[0]
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        # a gradient scaler waits for the device in each step anyway
        self.look_every = LOOK_EVERY if device.type == "cuda" and self.autocast_dtype != torch.float16 else 1
        self.exchanges: dict[str, GradientExchange] = {}
        self.stops = StopRequests(self)
        self.stops.attach()  # last, see there

    def run(self) -> None:
        """Train.

        Raises:
            SystemExit: with status 128 + signal, if a signal stopped the training.
        """
        self.losses.reset()
        with self.stops.signals as signals:
            super().run()
        if self.should_terminate and signals.received:
            raise SystemExit(128 + signals.received)

    @property
    def averaged(self) -> nn.Module | None:
        """The network with averaged weights, in evaluation mode and without gradients; None without ``ema_decay``."""
        return self.weight_average.network if self.weight_average else None

    @property
    def stop_requested(self) -> bool:
        """Whether a signal requests a stop; the same value for all handlers and processes within an iteration."""
        return self.stops.any()

    @property
    def look_every(self) -> int:
        """Iterations between two looks of the host at losses, and of processes at requests of each other for a stop."""
        return self._look_every

    @look_every.setter
    def look_every(self, iterations: int) -> None:
        self._look_every = iterations
        self.losses = LossWatch(1 if iterations == 1 else 2 * iterations)  # most trainers have two phases

    def compiled(self, function: Callable) -> Callable:
        """Return the compiled function, or the function itself without ``compile``.

        Use one function per phase. torch.compile keeps one set of graphs per function, and does not notice in every
        version that weights were frozen since (pytorch issue 139476). The gradients would then be missing silently.
        """
        return torch.compile(function, **self.compile_settings) if self.compile_settings else function

    def autocast(self) -> torch.autocast:
        """Return the mixed-precision context of this run, which is disabled without ``amp``."""
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.state.device.type, dtype=self.autocast_dtype, enabled=enabled)

    def loss_scale(self, phase: str) -> float:
        """Return the factor of the losses of a phase in its backward pass: 1, or that of its scaler in float16."""
        return float(self.scaler_of(phase).get_scale()) if self.autocast_dtype is torch.float16 else 1.0

    def scaler_of(self, phase: str) -> torch.amp.GradScaler:
        """Return the gradient scaler of a phase, which is made when it is first asked for."""
        return self.scalers.setdefault(phase, torch.amp.GradScaler(self.state.device.type))

    def augmented(self, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with its tensors on the device and changed by ``augment``, if there is one.

        It is called outside ``autocast()``, so that mixed precision does not change the result.
        """
        if self.augment is None:
            return batchdata
        slices = {key: batchdata[key] for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "mask") if key in batchdata}
        on_device = {k: x.to(self.state.device, non_blocking=self.non_blocking) for k, x in slices.items()}
        changed = self.augment({key: self.plain(x, torch.contiguous_format) for key, x in on_device.items()})
        others = {key: self.augmented(batch) for key, batch in batchdata.items() if isinstance(batch, dict)}
        return {**batchdata, **changed, **others}

    def prepare(self, batchdata: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Move image and label to the device as plain float32 tensors in the trainer's memory format.

        Plain tensors, because torch.compile cannot trace ``MetaTensor``.
        """
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # outputs of the previous iteration may be overwritten
        image, label = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)[:2]

        self.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label, "terms": {}}
        return self.plain(image), self.plain(label)

    def plain(self, x: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
        """Convert a tensor on the device to a plain float32 tensor, by default in the trainer's memory format."""
        x = x.as_tensor() if hasattr(x, "as_tensor") else x
        if memory_format is None:
            memory_format = CHANNELS_LAST[x.ndim] if self.channels_last else torch.contiguous_format
        return x.float().contiguous(memory_format=memory_format)

    def moved(self, batchdata: dict[str, Any], key: str) -> Tensor | None:
        """Return a tensor of a batch on the device, see ``plain``; None if the batch does not have it."""
        if key not in batchdata:
            return None
        return self.plain(batchdata[key].to(self.state.device, non_blocking=self.non_blocking))

    def split(self, *tensors: Tensor | None) -> list[Part]:
        """Split the tensors of a batch into ``accumulation_steps`` parts, see ``accumulation.split``."""
        return split(tensors, self.accumulation_steps)

    def finish(self, logits: Sequence[Tensor], loss: Tensor) -> dict[str, Any]:
        """Add the predictions of all parts and the loss to the output of an iteration, and return the output."""
        prediction = joined(logits)
        if self.graphs:
            prediction = prediction.clone()  # a replay overwrites its output
        self.state.output.update({CommonKeys.PRED: prediction, CommonKeys.LOSS: loss})
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    @contextmanager
    def minimizing(
        self, phase: str, optimizer: Optimizer, constrain: Callable[[], None] = lambda: None
    ) -> Iterator[PhaseStep]:
        """Take one optimizer step on the loss of the parts added in the block; then update the average of the weights.

        Args:
            phase: name of the phase; each phase has a separate gradient scaler.
            optimizer: optimizer of the network trained in this phase.
            constrain: changes weights of the optimizer after the step, such as clamping.
        """
        step = PhaseStep(self, phase, optimizer)
        yield step
        step.take(constrain)
        if self.weight_average and optimizer is self.optimizer:
            self.weight_average.update()

    def exchange_of(self, phase: str, optimizer: Optimizer) -> GradientExchange:
        """Return the exchange of gradients of a phase between processes."""
        if phase not in self.exchanges:
            self.exchanges[phase] = GradientExchange(optimizer)
        return self.exchanges[phase]
