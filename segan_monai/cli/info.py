# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai info``: lists bundles, weights, versions and devices."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False) -> None:
    """List the bundles with their classes, weights and licences, and the versions and devices of this machine.

    Example: segan-monai info
    """
    from segan_monai.installed import describe_installation, format_installation

    found = describe_installation()
    typer.echo(json.dumps(found, indent=4) if as_json else format_installation(found))
