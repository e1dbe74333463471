# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Examples in docstrings run and print what they show.

They may use ``torch``, ``torch.nn`` as ``nn``, and what their package exports.
"""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

TOP = Path(__file__).parents[1]
WITH_EXAMPLES = sorted(
    file.relative_to(TOP).as_posix()
    for file in (TOP / "segan_monai").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_examples_of_a_module(file):
    module = import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    package = import_module(module.__package__)
    exported = {name: getattr(package, name) for name in package.__all__}
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, optionflags=flags, extraglobs={**exported, "torch": torch, "nn": torch.nn})
    assert result.attempted > 0, "examples outside docstrings"
    assert result.failed == 0, "see the output"
