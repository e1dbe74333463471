# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Studies from and results to a DICOM node: C-FIND, C-GET and C-STORE, with pynetdicom."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segan_monai.dicom.web import no_such_series, wanted_modalities
from segan_monai.errors import DataError, OutputError, UserError
from segan_monai.files import cannot_write

SCHEME = "dicom://"
TITLE = "SEGAN_MONAI"
"""Application entity title of this package, unless the URL has another."""

_STUDY = re.compile(
    r"dicom://(?:(?P<own>[^@:/]{1,16})@)?(?P<host>[^@:/]+):(?P<port>\d{1,5})/(?P<title>[^/]{1,16})/studies/(?P<uid>[0-9.]+)/?"
)
# MR, enhanced MR, CT, enhanced CT, and both converted from single images
_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "4.1", "2", "2.1", "2.2", "4.4"))
# explicit and implicit little endian, or as stored: RLE, JPEG lossless, JPEG-LS, JPEG 2000, JPEG
_SYNTAXES = (
    ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"),
    ("1.2.840.10008.1.2.5",),
    *((f"1.2.840.10008.1.2.4.{end}",) for end in ("57", "70", "80", "81", "90", "91", "50", "51")),
)


def fetch_study(url: str, modality: str | None, folder: Path) -> None:
    """Copy the series of a study from a node.

    Args:
        url: ``dicom://[OWN_TITLE@]HOST:PORT/TITLE/studies/StudyInstanceUID``.
        modality: ``CT`` or ``MR``, the series to copy; None for both.
        folder: receives one file per instance, numbered; created.

    Raises:
        DataError: The URL is not that of a study, the node does not answer, or the study has no such series.
        OutputError: A file cannot be written.
    """
    from pydicom.dataset import Dataset
    from pynetdicom import build_role, evt
    from pynetdicom.sop_class import (  # type: ignore[attr-defined]
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
    )

    folder.mkdir(parents=True)
    wanted = wanted_modalities(modality)
    find, get = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet
    images = [(image, syntaxes) for image in _IMAGES for syntaxes in _SYNTAXES]

    files = (folder / f"{number}.dcm" for number in itertools.count(1))  # the node's UID may be a path
    failures: list[OutputError] = []

    def write(event: Any) -> int:
        file = next(files)
        try:
            file.write_bytes(event.encoded_dataset())
        except OSError as error:
            failures.append(cannot_write(file, error.strerror or str(error)))
            return 0xA700  # out of resources
        return 0x0000

    roles = [build_role(image, scp_role=True) for image in _IMAGES]
    with _association(url, [(find, None), (get, None), *images], DataError, roles, [(evt.EVT_C_STORE, write)]) as (
        node,
        uid,
    ):
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "SERIES", uid
        query.SeriesInstanceUID, query.Modality = "", ""
        answers = node.send_c_find(query, find)
        found = [(str(one.get("Modality", "")), one.SeriesInstanceUID) for one in _finished(url, "C-FIND", answers)]
        chosen = [series for kind, series in found if kind in wanted]
        if not chosen:
            raise no_such_series(url, wanted, (kind for kind, _ in found))
        del query.Modality  # a retrieval has keys only
        for series in chosen:
            query.SeriesInstanceUID = series
            answers = list(node.send_c_get(query, get))
            if failures:
                raise failures[0]
            list(_finished(url, "C-GET", answers))


def store_results(url: str, files: Iterable[Path]) -> None:
    """Store DICOM files on a node.

    Args:
        url: see ``fetch_study``.
        files: results that belong to the study.

    Raises:
        OutputError: The node does not accept them.
    """
    import pydicom

    results = [pydicom.dcmread(file) for file in files]
    contexts = {(one.SOPClassUID, (one.file_meta.TransferSyntaxUID,)) for one in results}
    with _association(url, sorted(contexts), OutputError) as (node, _):
        for result in results:
            try:
                status = node.send_c_store(result).get("Status")
            except ValueError:  # no context for this kind of object
                status = 0x0122
            if status is None or (status != 0x0000 and status >> 12 != 0xB):  # B000 to B0FF are warnings
                raise OutputError(
                    f"{url}: the {result.Modality} was not stored ({_said(status)}). The results are in the output "
                    "folder; check whether the node accepts C-STORE of this kind of object, and run the command again."
                )


@contextmanager
def _association(
    url: str, contexts: Iterable[tuple[Any, Any]], error: type[UserError], roles: Any = None, handlers: Any = None
) -> Iterator[tuple[Any, str]]:
    """Yield an association with the node of a URL, and the UID of the study."""
    from pynetdicom import AE

    match = _STUDY.fullmatch(url)
    if match is None:
        raise DataError(
            f"{url} is not the URL of a study. Expected the node's host, port and title and the StudyInstanceUID, such "
            "as dicom://127.0.0.1:4242/ORTHANC/studies/1.2.3."
        )
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # logs identifiers of patients
    entity = AE(ae_title=match["own"] or TITLE)
    entity.maximum_pdu_size = 0  # unlimited
    for name, syntaxes in contexts:
        entity.add_requested_context(name, *(() if syntaxes is None else (list(syntaxes),)))
    node = entity.associate(
        match["host"], int(match["port"]), ae_title=match["title"], ext_neg=roles, evt_handlers=handlers
    )
    if not node.is_established:
        reason = "rejected the association" if node.is_rejected else "does not answer"
        raise error(
            f"{url}: {match['host']}:{match['port']} {reason}. Check host, port and title, and whether the node knows "
            f"this computer by the title {entity.ae_title} (another: {SCHEME}MY_TITLE@{match['host']}:...)."
        )
    try:
        yield node, match["uid"]
    finally:
        node.release()


def _finished(url: str, what: str, answers: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    """Yield the data sets of the pending answers to a request, and check the last one."""
    status = None
    for said, identifier in answers:
        status = said.get("Status")
        if status in (0xFF00, 0xFF01) and identifier is not None:
            yield identifier
    if status != 0x0000:
        raise DataError(
            f"{url}: {what} failed ({_said(status)}). Check whether the node permits {what} to this computer, and its "
            "log."
        )


def _said(status: int | None) -> str:
    return "no answer" if status is None else f"status {status:04X}"
