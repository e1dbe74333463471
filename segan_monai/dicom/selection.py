# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of one series per modality of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segan_monai.dicom.study import Study, StudySeries
from segan_monai.errors import ConfigError, DataError


def parse_selectors(texts: Sequence[str], modalities: Sequence[str]) -> dict[str, str]:
    """Read the option ``--series``.

    Args:
        texts: ``SERIES`` for a bundle of one modality, or ``MODALITY=SERIES``.
        modalities: those of the bundle.

    Returns:
        Selector of each named modality.

    Raises:
        ConfigError: A modality is unknown, or named twice; several modalities and one series without a name.
    """
    chosen: dict[str, str] = {}
    by_lower = {name.lower(): name for name in modalities}
    for text in texts:
        name, equals, selector = text.partition("=")
        if equals and name.strip().lower() in by_lower:
            modality = by_lower[name.strip().lower()]
        elif len(modalities) == 1:
            modality, selector = modalities[0], text
        else:
            raise ConfigError(
                f"--series {text} names none of the bundle's modalities. Expected --series MODALITY=SERIES once for "
                f"each of {', '.join(modalities)}, such as --series {modalities[0]}=3."
            )
        if modality in chosen:
            raise ConfigError(f"--series is given twice for {modality}: {chosen[modality]} and {selector}. Give one.")
        chosen[modality] = selector.strip()
    return chosen


def choose_series(
    study: Study, modalities: Sequence[str], dicom_modality: str, selectors: Mapping[str, str]
) -> dict[str, StudySeries]:
    """Choose one series for each modality of a bundle.

    A selector is a SeriesInstanceUID, a SeriesNumber, or a SeriesDescription or part of it, in any case; a whole
    description comes before a part. Without a selector, a bundle of one modality takes the only series of its DICOM
    modality with several images that is no localizer, and a bundle of several takes the series whose description is
    the name of the modality.

    Args:
        study: the study.
        modalities: those of the bundle, in channel order.
        dicom_modality: ``CT`` or ``MR``, which the series must be.
        selectors: see ``parse_selectors``.

    Raises:
        DataError: No series or several series fit; one series fits two modalities; the series are of several studies.
    """
    fitting = [one for one in study.series if one.modality == dicom_modality]
    if not fitting:
        raise DataError(
            f"{study.source}: no series of modality {dicom_modality}, which the bundle needs. Found {study.listed()}. "
            "Give another study, or another bundle."
        )
    chosen: dict[str, StudySeries] = {}
    for modality in modalities:
        selector = selectors.get(modality)
        if selector is None and len(modalities) == 1:
            candidates = [one for one in fitting if one.frames > 1 and not one.is_localizer]
        else:
            candidates = _matching(fitting, modality if selector is None else selector, selector is None)
        if len(candidates) != 1:
            raise _not_one(study, fitting, candidates, modality, selector, len(modalities) > 1)
        chosen[modality] = candidates[0]
    _check_together(chosen)
    return chosen


def _matching(series: Sequence[StudySeries], selector: str, whole: bool) -> list[StudySeries]:
    word = selector.lower()
    for found in (
        [one for one in series if one.uid == selector],
        [one for one in series if one.description.lower() == word],
        [one for one in series if one.number == selector],
        [one for one in series if not whole and word in one.description.lower()],
    ):
        if found:
            return found
    return []


def _not_one(
    study: Study,
    fitting: Sequence[StudySeries],
    candidates: Sequence[StudySeries],
    modality: str,
    selector: str | None,
    several: bool,
) -> DataError:
    how = f"--series {f'{modality}=' if several else ''}{selector or 'SERIES'}"
    what = f"{how} fits" if selector else f"without --series, {modality} fits"
    found = f"{len(candidates)} series: {study.listed(candidates)}" if candidates else "no series"
    others = "" if candidates else f" Series of the bundle's modality: {study.listed(fitting)}."
    first = (candidates or fitting)[0]
    example = f"{modality}=" if several else ""
    return DataError(
        f"{study.source}: {what} {found}.{others} Expected one; give its number, UID or a part of its description "
        f"that no other has, such as --series {example}{first.number or first.uid}."
    )


def _check_together(chosen: Mapping[str, StudySeries]) -> None:
    modalities = list(chosen)
    for index, modality in enumerate(modalities):
        for earlier in modalities[:index]:
            first, second = chosen[earlier], chosen[modality]
            if first.uid == second.uid:
                raise DataError(f"{earlier} and {modality} are both {first}. Expected two series: correct --series.")
            if first.study_uid != second.study_uid or first.identity != second.identity:
                raise DataError(
                    f"{earlier} is {first}, {modality} is {second}: they are of different studies or patients. "
                    "Expected one study; a DICOM result belongs to one."
                )
            if first.frame_of_reference != second.frame_of_reference or not first.frame_of_reference:
                raise DataError(
                    f"{earlier} is {first}, {modality} is {second}: their FrameOfReferenceUID differs, so their "
                    "positions cannot be compared. Register them, for example with 3D Slicer or ANTs, and export the "
                    "registered series as DICOM; or choose series of one examination with --series."
                )
