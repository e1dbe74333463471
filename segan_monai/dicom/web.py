# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Studies from and results to a DICOMweb server: QIDO-RS, WADO-RS and STOW-RS, with dicomweb-client.

Credentials are those of ``~/.netrc`` for the server's host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segan_monai.errors import DataError, OutputError

_STUDY = re.compile(r"(?P<server>https?://.+?)/studies/(?P<uid>[0-9.]+)/?")


def wanted_modalities(modality: str | None) -> tuple[str, ...]:
    """Return the modalities to copy: that of the bundle, or all that are read."""
    return ("CT", "MR") if modality is None else (modality,)


def no_such_series(url: str, wanted: Iterable[str], found: Iterable[str]) -> DataError:
    """Return the error for a study without a series of the wanted modalities."""
    kinds = ", ".join(sorted(set(found))) or "no series"
    return DataError(f"{url} has no series of modality {' or '.join(wanted)}; found {kinds}. Give another study.")


def _client(url: str) -> tuple[Any, str]:
    from dicomweb_client.api import DICOMwebClient

    match = _STUDY.fullmatch(url)
    if match is None:
        raise DataError(
            f"{url} is not the URL of a study. Expected the server's DICOMweb root and the StudyInstanceUID, such as "
            "http://127.0.0.1:8042/dicom-web/studies/1.2.3."
        )
    client = DICOMwebClient(match["server"])
    client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=100)  # by default half a minute
    return client, match["uid"]


def fetch_study(url: str, modality: str | None, folder: Path) -> None:
    """Copy the series of a study from a server.

    Args:
        url: ``SERVER/studies/StudyInstanceUID``.
        modality: ``CT`` or ``MR``, the series to copy; None for both.
        folder: receives one file per instance; created.

    Raises:
        DataError: The URL is not that of a study, the server does not answer, or the study has no such series.
    """
    client, uid = _client(url)
    folder.mkdir(parents=True)
    wanted = wanted_modalities(modality)
    try:
        series = client.search_for_series(uid)
        found = [(_value(one, "00080060"), _value(one, "0020000E")) for one in series]
        chosen = [series_uid for kind, series_uid in found if kind in wanted]
        for series_uid in chosen:
            for number, instance in enumerate(client.iter_series(uid, series_uid)):
                instance.save_as(folder / f"{series_uid}_{number}.dcm", enforce_file_format=True)
    except OSError as error:  # requests' errors of network and status
        raise DataError(
            f"{url} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]}). Check the URL, and "
            "the server's entry in ~/.netrc if it needs a password."
        ) from error
    if not chosen:
        raise no_such_series(url, wanted, (kind for kind, _ in found))


def store_results(url: str, files: Iterable[Path]) -> None:
    """Store DICOM files on the server of a study.

    Args:
        url: see ``fetch_study``.
        files: results that belong to the study.

    Raises:
        OutputError: The server does not accept them.
    """
    import pydicom

    client, uid = _client(url)
    try:
        client.store_instances([pydicom.dcmread(file) for file in files], study_instance_uid=uid)
    except OSError as error:
        raise OutputError(
            f"{url}: the results were not stored ({type(error).__name__}: {' '.join(str(error).split())[:200]}). They "
            "are in the output folder; check whether the server accepts STOW-RS, and run the command again."
        ) from error


def _value(item: dict[str, Any], tag: str) -> str:
    return str((item.get(tag, {}).get("Value") or [""])[0])
