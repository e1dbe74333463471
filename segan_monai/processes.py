# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Helpers for torch.distributed: rank, sharding, collectives.

In a run of one process every function does nothing, or returns what it was given.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
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
    """Another process of the run has ended, so a collective operation cannot complete."""


def process_rank() -> int:
    """Return the rank of this process; it is known before the process group exists."""
    return int(os.environ.get("RANK", 0))  # set by torchrun


def device_of_process() -> torch.device:
    """Return the GPU of this process, one per process; the CPU on machines without GPUs.

    Raises:
        ConfigError: ``torchrun`` did not start this process, or starts more processes on this machine than it has GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            "multi_gpu_*.json is for processes that torchrun starts, and torchrun did not start this one. Run torchrun "
            "--standalone --nproc_per_node GPUS -m monai.bundle run ..., or omit that file to use one GPU."
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
    """Initialize the process group of a run whose processes exchange results but no tensors, such as inference.

    Processes may wait for each other for days. Calling it again, or without ``torchrun``, does nothing.
    """
    several = "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        _initialize_process_group("gloo", timeout=timedelta(days=30))


def _initialize_process_group(backend: str, **settings: Any) -> None:
    """Initialize the process group once, and restore the exception hook that prints what to do about an error.

    Torch replaces it by one that buffers standard error; the buffer is lost when our hook ends the process.
    """
    if not torch.distributed.is_initialized():
        hook = sys.excepthook
        torch.distributed.init_process_group(backend, **settings)
        sys.excepthook = hook
        if backend == "gloo":
            atexit.register(_destroy_process_group)


def _destroy_process_group() -> None:
    """Destroy the process group before Python exits: a gloo thread that is still running could abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def init_process_group_for(device: str | torch.device) -> None:
    """Initialize the process group: NCCL for GPUs, gloo for the CPU. Ranks above 0 then log warnings only.

    Args:
        device: of this process.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _initialize_process_group("nccl" if device.type == "cuda" else "gloo")
    if process_rank() > 0:
        logging.disable(logging.INFO)


def shard(items: Sequence[T], repeat: bool = False) -> list[T]:
    """Return the items of this rank: every N-th item of N ranks, so neighbours go to different processes.

    Args:
        items: the same in all processes, in the same order, such as cases sorted by name or domain.
        repeat: repeat the first items so that all shards have one length: for training, where all processes take the
            same number of steps. Otherwise each item is in exactly one shard: for evaluation.

    Returns:
        The shard, at least one item.

    Raises:
        DataError: fewer items than processes.

    Examples:
        >>> shard([1, 2, 3])  # one process
        [1, 2, 3]
    """
    rank, processes = idist.get_rank(), idist.get_world_size()
    if len(items) < processes:
        raise DataError(
            f"{len(items)} cases cannot be divided among {processes} processes; expected at least one per process. "
            f"Start at most {len(items)} processes (--nproc_per_node, --nnodes), or add cases."
        )
    return partition_dataset(items, num_partitions=processes, even_divisible=repeat)[rank]


@contextmanager
def _detect_lost_process() -> Iterator[None]:
    """Turn the error of a collective operation into one that says that another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"process {idist.get_rank()} of {idist.get_world_size()} can no longer reach the others: one of them has "
            "ended. Its error is printed above or in its log, and torchrun names the first process that failed. Fix "
            "that error, then resume: training with --resume true, inference with the same command."
        ) from error


def gather_objects(value: T) -> list[T]:
    """Return the objects of all ranks, in the order of the ranks. All processes must call it."""
    if idist.get_world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * idist.get_world_size()
    with _detect_lost_process():
        torch.distributed.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank0(value: T) -> T:
    """Return the object of rank 0. All processes must call it."""
    if idist.get_world_size() == 1:
        return value
    values = [value]
    with _detect_lost_process():
        torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def any_rank(asks: bool) -> bool:
    """Return whether ``asks`` is true on any rank. All processes must call it."""
    if idist.get_world_size() == 1:
        return asks
    combined = torch.tensor(int(asks), device=idist.device())
    with _detect_lost_process():
        torch.distributed.all_reduce(combined, torch.distributed.ReduceOp.MAX)
    return bool(combined)


def average_over_processes(tensors: Sequence[Tensor]) -> None:
    """Average tensors over all processes, in place and in one message."""
    begin_average(tensors)()


def begin_average(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Send tensors in one message, and return the function that waits for their averages and stores them in place.

    All processes must send the same messages in the same order.
    """
    if idist.get_world_size() == 1 or not tensors:
        return _nothing
    combined = torch.cat([tensor.flatten() for tensor in tensors])
    with _detect_lost_process():
        work = torch.distributed.all_reduce(combined, async_op=True)

    def store() -> None:
        with _detect_lost_process():
            work.wait()
        parts = combined.div_(idist.get_world_size()).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    return store


def _nothing() -> None:
    pass


def copy_from_first_process(*networks: nn.Module) -> None:
    """Copy the weights and buffers of rank 0 to all processes."""
    if idist.get_world_size() > 1:
        for network in networks:
            for tensor in network.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)


# Former names, which configs made by earlier versions use
share_of_process = shard
join_processes = init_process_group_for
