# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of compiler for training steps."""

from __future__ import annotations

from typing import Any

import torch

from segan_monai.errors import ConfigError

GRAPHS = "graphs"


def compile_settings(compile: str | None, device: torch.device) -> dict[str, Any]:
    """Return the arguments of ``torch.compile`` for a value of the trainers' setting ``compile``.

    Args:
        compile: None, ``graphs`` for inductor with CUDA graphs (its mode ``reduce-overhead``), or a backend of
            ``torch.compile``, such as ``inductor`` or ``aot_eager``.
        device: device of the training.

    Returns:
        The arguments; empty without ``compile``. Each shape has its own graph: batches of a training have one shape,
        and ``VolumeSliceInferer`` pads planes to few sizes.

    Raises:
        ConfigError: CUDA graphs without a GPU, or an unknown backend.

    Examples:
        >>> compile_settings("inductor", torch.device("cpu"))
        {'backend': 'inductor', 'dynamic': False}
    """
    if compile is None:
        return {}
    if compile == GRAPHS:
        if device.type != "cuda":
            raise ConfigError(
                f"compile is 'graphs' on {device}; CUDA graphs need a GPU. Expected inductor, or no value."
            )
        return {"mode": "reduce-overhead", "dynamic": False}
    known = sorted(torch.compiler.list_backends(exclude_tags=()))
    if compile not in known:
        raise ConfigError(
            f"compile is {compile!r}; expected 'graphs' or a backend of torch.compile: {', '.join(known)}."
        )
    return {"backend": compile, "dynamic": False}
