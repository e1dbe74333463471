# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One process of several that `torchrun` starts: who it is, what its share is, and how results come together.

Without others every function here does nothing, or gives back what it was given.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
from monai.data import partition_dataset
from torch import Tensor, nn

from segan_monai.errors import ConfigError, DataError, UserError

T = TypeVar("T")


class ProcessLostError(UserError):
    """Another process of the run has ended, so that nothing can be exchanged with it."""


def process_rank() -> int:
    """Number of this process among all, from 0; known before the processes have met."""
    return int(os.environ.get("RANK", 0))  # set by torchrun


def device_of_process() -> torch.device:
    """The GPU of this process, one each; the CPU where there is none.

    Raises:
        ConfigError: not started by `torchrun`, or more processes on this machine than it has GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "multi_gpu_*.json is for processes that torchrun starts, and this one was not. Start it as torchrun "
            "--standalone --nproc_per_node GPUS -m monai.bundle run ..., or leave that file away to use one GPU."
        )
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise ConfigError(
            f"process {number} of this machine has no GPU of its own: there are {gpus}. Pass --nproc_per_node {gpus} "
            "to torchrun, or fewer."
        )
    return torch.device("cuda", number)


def meet_processes() -> None:
    """Meet the other processes of a run that exchange no tensors, only what they have done; they may wait for days.

    Does nothing where `torchrun` has not started several, or they have met already.
    """
    several = "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        _meet("gloo", timeout=timedelta(days=30))


def _meet(backend: str, **settings: Any) -> None:
    """Initialize the process group, once, and keep the hook that says what to do about an error.

    Torch calls it with standard error replaced by a buffer, which is lost when the hook ends the process.
    """
    if not torch.distributed.is_initialized():
        hook = sys.excepthook
        torch.distributed.init_process_group(backend, **settings)
        sys.excepthook = hook
        if backend == "gloo":
            atexit.register(_part)


def _part() -> None:
    """Leave the group before Python ends, if that is not done yet: what gloo still runs then may abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def join_processes(device: str | torch.device) -> None:
    """Meet the other processes of the run, by NCCL on GPUs and by gloo on the CPU. All but the first only warn.

    Args:
        device: of this process.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _meet("nccl" if device.type == "cuda" else "gloo")
    if process_rank() > 0:
        logging.disable(logging.INFO)


def share_of_process(items: Sequence[T], repeat: bool = False) -> list[T]:
    """The share of this process: one item of every N, so that neighbours go to different processes.

    Args:
        items: the same, in the same order, in all processes; such as cases sorted by name or domain.
        repeat: give every process as many, the first few items twice if need be: for training, where all processes
            must take the same number of steps. Without it each item is in one share only: for evaluation.

    Returns:
        At least one item.

    Raises:
        DataError: fewer items than processes.

    Examples:
        >>> share_of_process([1, 2, 3])  # without other processes
        [1, 2, 3]
    """
    rank, processes = idist.get_rank(), idist.get_world_size()
    if len(items) < processes:
        raise DataError(
            f"{len(items)} cases cannot be shared by {processes} processes; expected at least one each. Start at most "
            f"{len(items)} processes (--nproc_per_node, --nnodes), or add cases."
        )
    return partition_dataset(items, num_partitions=processes, even_divisible=repeat)[rank]


@contextmanager
def _others_needed() -> Iterator[None]:
    """Say in plain words that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"process {idist.get_rank()} of {idist.get_world_size()} can reach the others no more: one of them has "
            "ended. What ended it stands above or in that process's log, and at the end torchrun names the first that "
            "failed. Mend that, and go on: training with --resume true, inference with the same command."
        ) from error


def gather_objects(value: T) -> list[T]:
    """What each process has, in the order of their numbers; every process must call it."""
    if idist.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * idist.get_world_size()
    with _others_needed():
        torch.distributed.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank0(value: T) -> T:
    """What the first process has; every process must call it."""
    if idist.get_world_size() == 1:
        return value
    said = [value]
    with _others_needed():
        torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


def any_rank(asks: bool) -> bool:
    """Whether it is so in any of the processes; every process must call it."""
    if idist.get_world_size() == 1:
        return asks
    together = torch.tensor(int(asks), device=idist.device())
    with _others_needed():
        torch.distributed.all_reduce(together, torch.distributed.ReduceOp.MAX)
    return bool(together)


def average_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their average over all processes, in place and in one message."""
    if idist.get_world_size() == 1 or not tensors:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    with _others_needed():
        torch.distributed.all_reduce(together)
    parts = together.div_(idist.get_world_size()).split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])


def copy_from_first_process(*networks: nn.Module) -> None:
    """Let all processes have the weights and buffers of the first one."""
    if idist.get_world_size() > 1:
        for network in networks:
            for tensor in network.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)
