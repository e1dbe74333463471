# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai dicom``: segments a DICOM study, and writes DICOM results."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import segan_monai
from segan_monai.cli.bundle_runs import run_arguments, run_bundle
from segan_monai.cli.run_options import BundleOrRun, OutputDir, Overlays, Verbose
from segan_monai.errors import ConfigError
from segan_monai.optional import EXTRAS, require_modules

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def dicom(
    context: typer.Context,
    bundle: BundleOrRun,
    study: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="Folder, zip file or DICOMDIR of the study, or its URL on a server."),
    ],
    output_dir: OutputDir = None,
    series: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODALITY=]SERIES",
            help="Series by UID, number or part of the description; once per modality of the bundle.",
        ),
    ] = None,
    list_series: Annotated[bool, typer.Option("--list", help="List the series of the study, then stop.")] = False,
    seg_type: Annotated[
        str, typer.Option(metavar="TYPE", help="DICOM-SEG: binary, fractional (probabilities) or labelmap.")
    ] = "binary",
    rtstruct: Annotated[bool, typer.Option("--rtstruct", help="Write an RT structure set, too.")] = False,
    picture: Annotated[bool, typer.Option("--picture", help="Write the overlay as a secondary capture, too.")] = False,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Omit the patient's identity from the DICOM results.")
    ] = False,
    store: Annotated[bool, typer.Option("--store", help="Store the DICOM results on the server of STUDY.")] = False,
    overlay: Overlays = None,
    verbose: Verbose = False,
) -> None:
    """Segment a DICOM study: write DICOM-SEG that refers to its images, and the NIfTI label map.

    Every key of the bundle's inference.json is an option. Files and logs are named after a digest; only the DICOM
    results contain the patient's name and ID.

    Example: segan-monai dicom hippocampus STUDY -o OUT --series "T1 MPRAGE"
    """
    from segan_monai.dicom import node, web

    server = node if study.startswith(node.SCHEME) else web if study.startswith(("http://", "https://")) else None
    modules = [name for name in EXTRAS["dicom"] if name != "pynetdicom" or server is node]
    require_modules("dicom", "segan-monai dicom", modules)
    from segan_monai.dicom.conversion import BundleOfStudy, DicomOptions, convert_study, write_results
    from segan_monai.dicom.seg import KINDS
    from segan_monai.dicom.study import read_study

    if seg_type not in KINDS:
        raise ConfigError(f"--seg-type is {seg_type}. Expected {', '.join(KINDS)}.")
    if store and server is None:
        raise ConfigError(f"--store needs a study's URL on a server as STUDY; found {study}. Give it, or omit --store.")
    segan_monai.register_components()
    keys = context.obj
    arguments = run_arguments("dicom", bundle, Path(study), output_dir, overlay or (), keys)
    output = Path(arguments["output_dir"])
    with tempfile.TemporaryDirectory(prefix="segan_monai_") as scratch:
        parser = _config(arguments)
        wanted = None if list_series else BundleOfStudy.of(parser)
        source = Path(study).expanduser()
        if server is not None:
            source = Path(scratch, "server")
            server.fetch_study(study, wanted.dicom_modality if wanted else None, source)
        found = read_study(source, Path(scratch, "study"))
        if wanted is None:
            typer.echo("\n".join(map(str, found.series)))
            return
        converted = convert_study(found, wanted, series or (), output)
    for modality, volume in zip(wanted.modalities, converted.volumes, strict=True):
        typer.echo(f"{modality}: {volume.series}")
        for note in volume.notes:
            typer.echo(f"note: {note}")
    needed = {"save_probabilities": seg_type == "fractional", "save_overlays": picture}
    for key in (key for key, is_needed in needed.items() if is_needed):
        if key not in parser:
            raise ConfigError(f"{bundle} has no key {key}. Use another --seg-type, or omit --picture.")
        arguments[key] = True
    arguments["dataset_dir"] = str(converted.folder)
    with _as_prediction(bundle, converted.folder, output, overlay or (), keys):
        run_bundle(arguments, verbose)
    options = DicomOptions(seg_type, rtstruct, picture, anonymous)
    files = write_results(converted, wanted, output, options)
    for kind, file in files.items():
        typer.echo(f"{kind}: {file}")
    if store and server is not None:
        server.store_results(study, files.values())
        typer.echo(f"stored: {len(files)} of {len(files)} on the server")


def _config(arguments: Mapping[str, Any]) -> ConfigParser:
    """Return the parsed config with the settings that the network was trained with."""
    from segan_monai.check.config_files import read_configs
    from segan_monai.trained import apply_settings_of_weights

    parser = read_configs(arguments)
    apply_settings_of_weights(parser, arguments)
    return parser


@contextmanager
def _as_prediction(
    bundle: str, images: Path, output: Path, overlays: Sequence[str], keys: Mapping[str, str | None]
) -> Iterator[None]:
    """Let the run record the command that repeats it without the study, whose path may name the patient."""
    words = ["predict", bundle, "-i", str(images), "-o", str(output)]
    words += [word for overlay in overlays for word in ("--overlay", overlay)]
    words += [f"--{name}" if text is None else f"--{name}={text}" for name, text in keys.items()]
    given = sys.argv
    sys.argv = [given[0], *words]
    try:
        yield
    finally:
        sys.argv = given
