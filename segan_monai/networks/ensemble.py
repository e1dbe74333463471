# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ensembles: the mean of the probabilities of several networks, or the RoIs of several L-SNets."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segan_monai.networks.lsnet import LSNet
from segan_monai.networks.lsnet_ensemble import with_all_segmentors
from segan_monai.networks.weights import load_weights

LEAST_PROBABILITY = 1e-7
"""Mean probabilities are limited to this and 1 minus it, so that their logits are finite in float32."""


class NetworkEnsemble(nn.Module):
    """Networks of one architecture whose predictions are combined, see ``combine_members``.

    The inferers of this project apply one member after the other to a whole image, with mirroring and all slicing axes,
    and combine what they predict. Other callers get the same for the batch that they pass.

    The state of a single network fits too: every member receives it.

    Args:
        network: the architecture; it becomes the first member, and the others are copies.
        count: number of members.

    Examples:
        >>> ensemble = NetworkEnsemble(nn.Conv2d(1, 2, 1), 3)
        >>> len(ensemble.members), ensemble(torch.zeros(1, 1, 4, 4)).shape
        (3, torch.Size([1, 2, 4, 4]))
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.members = nn.ModuleList([network, *(copy.deepcopy(network) for _ in range(count - 1))])
        self.register_load_state_dict_pre_hook(_for_every_member)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to the logits of the combined probabilities."""
        return combine_members(lambda member: member(x), self)


def members_of(network: Any) -> list[Any]:
    """Return the members of an ensemble, or a list of the network alone."""
    return list(network.members) if isinstance(network, NetworkEnsemble) else [network]


def combine_members(apply: Callable[[Any], Tensor], network: Any, plain_channels: int = 0) -> Tensor:
    """Return the logits that an ensemble predicts.

    They are those of the mean of the members' probabilities. Of L-SNets, every member's RoIs are segmented by all
    members, and merged by their maximum, see ``with_all_segmentors``.

    One output is in memory at a time, beside the running result, so memory does not grow with the number of members. A
    network that is no ensemble is applied as it is.

    Args:
        apply: maps a member to its logits (B, K, ...).
        network: an ensemble, or any network.
        plain_channels: number of last channels that are no logits, such as a normalized image; they are averaged as
            they are. L-SNets have none.

    Returns:
        (B, K, ...) as ``apply`` returns it. Sigmoid, or softmax for networks with ``has_softmax``, gives the
        probabilities; a mean is limited to ``LEAST_PROBABILITY``.
    """
    members = members_of(network)
    if len(members) == 1:
        return apply(members[0])
    if isinstance(members[0], LSNet):
        return _maximum(apply, with_all_segmentors(members))
    return _mean(apply, members, plain_channels)


def _maximum(apply: Callable[[Any], Tensor], members: Sequence[LSNet]) -> Tensor:
    first, *others = members
    result = apply(first).float()
    for member in others:
        result = torch.maximum(result, apply(member).to(result))
    return result


def _mean(apply: Callable[[Any], Tensor], members: Sequence[Any], plain_channels: int) -> Tensor:
    softmax = getattr(members[0], "has_softmax", False)
    mean: Tensor | None = None
    for member in members:
        output = _probabilities(apply(member), softmax, plain_channels).div_(len(members))
        mean = output if mean is None else mean.add_(output.to(mean.device))
        del output  # before the next member's output exists
    if mean is None:
        raise AssertionError("an ensemble has members")
    of_classes = mean[:, : mean.shape[1] - plain_channels]
    if softmax:
        of_classes.clamp_(min=LEAST_PROBABILITY).log_()
    else:
        of_classes.logit_(eps=LEAST_PROBABILITY)
    return mean


def network_of_weights(network: nn.Module, files: Sequence[str | os.PathLike[str]]) -> nn.Module:
    """Return the network with its weights, or an ensemble for several files of weights.

    Args:
        network: a network; one member of an ensemble. It receives the weights, in place.
        files: one file per member.

    Raises:
        ConfigError: See ``load_weights``.
    """
    return load_members(network if len(files) == 1 else NetworkEnsemble(network, len(files)), files)


def load_members(network: nn.Module, files: Sequence[str | os.PathLike[str]]) -> nn.Module:
    """Load one file of weights into each member of an ensemble, or the only file into a network.

    Args:
        network: an ensemble, or any network; it receives the weights, in place.
        files: one file per member, in their order.

    Returns:
        The same network.

    Raises:
        ConfigError: See ``load_weights``.
    """
    for member, file in zip(members_of(network), files, strict=True):
        load_weights(member, Path(file))
    return network


def _probabilities(output: Tensor, softmax: bool, plain_channels: int) -> Tensor:
    """Return a tensor of its own with the probabilities of the logits in float32; the other channels are unchanged."""
    output = output.float().clone()  # may be a view, or the buffer of a CUDA graph
    logits = output[:, : output.shape[1] - plain_channels]
    logits.copy_(torch.softmax(logits, dim=1) if softmax else torch.sigmoid(logits))
    return output


def _for_every_member(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the state of a single network to every member."""
    if not isinstance(module, NetworkEnsemble) or any(name.startswith(f"{prefix}members.") for name in state):
        return
    single: Mapping[str, Any] = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for index in range(len(module.members)):
        state.update({f"{prefix}members.{index}.{name.removeprefix(prefix)}": v for name, v in single.items()})
