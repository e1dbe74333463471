# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def output_dir_option(help: str) -> Any:
    """Return the option ``--output-dir DIR``, or ``-o DIR``, with its line of help."""
    return typer.Option("--output-dir", "-o", metavar="DIR", file_okay=False, help=help)


_BUNDLE = "Name of a bundle or its first letters, such as hippocampus; or a folder"
Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help=f"{_BUNDLE}.")]
BundleOrRun = Annotated[
    str, typer.Argument(metavar="BUNDLE", help=f"{_BUNDLE}, also that of a training, whose weights are then used.")
]
OutputDir = Annotated[
    Path | None, output_dir_option("Folder for results; default: one in the current folder, named after the bundle.")
]
Overlays = Annotated[
    list[str] | None,
    typer.Option("--overlay", metavar="NAME", help="Config with further settings, such as cpu.json; may be repeated."),
]
BackgroundLabels = Annotated[
    str | None,
    typer.Option(
        "--background-labels",
        "--background_labels",
        metavar="VALUES",
        help="Label values of other structures, which count as background, such as 3,4.",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Run part I of N, such as 2/4, beside other processes; the command without it then gathers the results.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Run several at a time by Ray: local for this machine, auto or HOST:PORT for a cluster.",
    ),
]
RayCpus = Annotated[float, typer.Option("--ray-cpus", metavar="N", help="CPU cores per run, with --ray.")]
RayGpus = Annotated[
    float, typer.Option("--ray-gpus", metavar="N", help="GPUs per run, with --ray; 0.5 lets two runs share one.")
]
RayRetries = Annotated[
    int, typer.Option("--ray-retries", metavar="N", help="Times that a run whose machine is lost is started again.")
]
CheckOnly = Annotated[bool, typer.Option("--check-only", help="Check configs, data and memory, then stop.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error and MONAI's messages.")]
