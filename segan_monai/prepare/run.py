# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Preparation of a whole data set, with ``dataset.json`` and ``manifest.json``."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from segan_monai.case_names import case_name
from segan_monai.check.cases import check_headers
from segan_monai.check.headers import read_header
from segan_monai.check.report import Finding, Report, counted
from segan_monai.data.cases import find_cases
from segan_monai.data.prepared import MADE_BY, MANIFEST
from segan_monai.errors import ConfigError, DataError, UserError
from segan_monai.file_kinds import is_picture
from segan_monai.files import append_line, lies_in, writing
from segan_monai.json_files import write_json
from segan_monai.parallel import available_processes, map_in_processes
from segan_monai.prepare.archives import archives_in, unpacked, unpacked_bytes
from segan_monai.prepare.convert import forget_changed, prepare_case
from segan_monai.prepare.manifest import JOURNAL, file_records, read_manifest, versions
from segan_monai.prepare.options import PrepareOptions
from segan_monai.prepare.sources import FIND, with_unique_names
from segan_monai.run.lock import LOCK_FILE, output_folder
from segan_monai.transforms.load_case import LoadCased
from segan_monai.transforms.load_photograph import LoadPhotographd

_SCRATCH = ".unpacked"
_WRITTEN = ("imagesTr", "imagesTs", "labelsTr", "labelsTs")
_SPARE_BYTES = 100 * 2**20
_SHOWN = 10


@dataclass
class Prepared:
    """Outcome of preparing a data set.

    Attributes:
        folder: Output folder.
        made: Cases prepared by this call.
        kept: Cases prepared earlier from the same sources with the same options.
        failed: Error message of each case that failed.
        notes: Further remarks for the user.
        findings: Findings of the header check on the result.
    """

    folder: Path
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """Whether all cases succeeded and the result has no errors."""
        return not self.failed and not any(finding.level == "error" for finding in self.findings)

    def summary(self) -> str:
        """Return a summary of a few lines."""
        there = f", {len(self.kept)} already there" if self.kept else ""
        lines = [f"{counted(len(self.made), 'case')} prepared{there}, {len(self.failed)} failed: {self.folder}"]
        lines += [f"note: {note}" for note in self.notes]
        for level in ("error", "warning"):
            of_level = [finding for finding in self.findings if finding.level == level]
            lines += [f"{level} in the result: {finding.message}" for finding in of_level[:_SHOWN]]
            if len(of_level) > _SHOWN:
                lines.append(f"and {len(of_level) - _SHOWN} more {level}s in the result")
        lines += [f"failed: {case}: {message}" for case, message in self.failed.items()]
        if self.failed:
            lines.append("Fix the cause and run the same command again: finished cases are not repeated.")
        return "\n".join(lines)


def prepare_data_set(
    data_set: str,
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    options: PrepareOptions | None = None,
    workers: int | None = None,
) -> Prepared:
    """Prepare a public data set as downloaded from its site.

    Writes ``dataset.json`` in the decathlon's format with ``imagesTr``, ``labelsTr`` and so on, and ``manifest.json``
    with the SHA-256 of every source and result. Each case is written atomically and recorded at once, so an interrupted
    call can be resumed by repeating it. Cases with unchanged sources and options are not prepared again. A failed case
    does not affect the others.

    Args:
        data_set: A key of ``segan_monai.prepare.sources.FIND``, such as ``brats``.
        source: The folder of the data set, a folder above it, or an archive.
        folder: Output folder: new, empty, or from an earlier preparation of this data set.
        options: Preparation settings.
        workers: Number of processes; by default the available cores, at most 8.

    Raises:
        DataError: The source or the folder cannot be used; no case was found; no case could be prepared.
        ConfigError: The data set is unknown.
        FolderInUseError: Another process is preparing this folder.
        OutputError: There is not enough space, or a file cannot be written.
    """
    if data_set not in FIND:
        raise ConfigError(f"unknown data set {data_set!r}; expected one of {', '.join(FIND)}.")
    options = options or PrepareOptions()
    root, folder = Path(source).expanduser().absolute(), Path(folder).expanduser().absolute()
    _check_places(data_set, root, folder)
    with output_folder(folder):
        return _prepare(data_set, root, folder, options, workers)


def _prepare(data_set: str, root: Path, folder: Path, options: PrepareOptions, workers: int | None) -> Prepared:
    manifest = _opened(data_set, folder, options)
    outcome = Prepared(folder)
    scratch = folder / _SCRATCH
    if root.exists():
        _check_room(folder, sum(map(unpacked_bytes, archives_in(root))), "to unpack archives")
    with unpacked(root, scratch) as unpacked_root, _naming(root, unpacked_root):
        found = FIND[data_set](unpacked_root, options)
        outcome.notes += found.notes
        outcome.failed |= {case_name(name): fault for name, fault in found.unusable.items()}
        cases = with_unique_names(found.cases, outcome.failed)
        known = manifest["cases"]
        changed = forget_changed(known, cases)
        work = [(case, known.get(case["case"])) for case in cases]
        _check_room(folder, _room_for([case for case, before in work if before is None], options), "for the result")
        if changed or not known:
            (folder / "dataset.json").unlink(missing_ok=True)  # until the end, files of two preparations may mix
        write_json(folder / MANIFEST, manifest)
        convert = partial(prepare_case, root=unpacked_root, folder=folder, options=options)
        journal = folder / JOURNAL
        workers = available_processes(len(work), workers)
        results = map_in_processes(convert, work, workers, option="--workers", in_order=False)
        for result in tqdm(results, desc="cases", total=len(work), unit="case", disable=None):
            name = result.pop("case")
            if "error" in result:
                outcome.failed[name] = result["error"]
                known.pop(name, None)
                continue
            known[name] = result
            if result.pop("again"):
                outcome.kept.append(name)
                continue
            outcome.made.append(name)
            append_line(journal, json.dumps([manifest["options"], name, result]))
        # the user does not know the scratch folder
        outcome.failed = {name: fault.replace(str(unpacked_root), str(root)) for name, fault in outcome.failed.items()}
        manifest["failed"] = outcome.failed
        write_json(folder / MANIFEST, manifest)
        journal.unlink(missing_ok=True)
    _finish(manifest, {case["case"] for case in cases}, found.description, outcome)
    _remove_outdated(manifest, outcome)
    return outcome


@contextmanager
def _naming(root: Path, unpacked_root: Path) -> Iterator[None]:
    """Let user errors name the source instead of the scratch folder, to which its archives were unpacked."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(unpacked_root), str(root))) from error


def _check_places(data_set: str, root: Path, folder: Path) -> None:
    """Check that the source exists and that source and output do not contain each other."""
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder. Expected the download of {data_set} from its site.")
    if root.is_file() and not archives_in(root):
        raise DataError(f"{root} is a file. Expected a folder, or a .zip, .tar, .tar.gz or .tgz file.")
    if lies_in(folder, root) or lies_in(root, folder):
        raise DataError(
            f"of {folder} and {root}, one contains the other. Choose an output folder beside the source, so that "
            "neither is mistaken for part of the other."
        )
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file. Choose the name of a new folder.")


def _opened(data_set: str, folder: Path, options: PrepareOptions) -> dict[str, Any]:
    """Return the manifest to continue, or a new one."""
    manifest = read_manifest(folder)
    if manifest is None:
        others = sorted(path.name for path in folder.iterdir() if path.name not in (_SCRATCH, LOCK_FILE))
        if others:
            raise DataError(
                f"{folder} is not empty: it holds {others[0]}, and has no {MANIFEST}. Choose a new folder: prepared "
                "cases must not mix with other files."
            )
    elif manifest["data_set"] != data_set:
        raise DataError(f"{folder} holds {manifest['data_set']}, not {data_set}. Choose a new folder.")
    # tuples become lists, as in JSON
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    earlier = manifest or {"cases": {}, "options": chosen}
    cases = earlier["cases"] if earlier["options"] == chosen else {}
    results = [*earlier.get("earlier_results", []), *_results(earlier)]
    distinct = list({(file["path"], file["sha256"]): file for file in results}.values())
    head = {"made_by": MADE_BY, "data_set": data_set, "options": chosen, "versions": versions()}
    return {**head, "cases": cases, "failed": {}, "earlier_results": distinct}


def _results(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [file for record in manifest["cases"].values() for file in record["results"]]


def _room_for(cases: Sequence[Mapping[str, Any]], options: PrepareOptions) -> int:
    """Estimate the maximum size of the results in bytes: at most that of the sources, unless options enlarge them."""
    total, growth = 0, 1.0
    for case in cases:
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        total += sum(Path(file).stat().st_size for file in images if Path(file).exists())
    if options.spacing_mm and cases and "series" not in cases[0]:
        images = [cases[0]["image"]] if isinstance(cases[0]["image"], str) else cases[0]["image"]
        voxel = abs(float(np.linalg.det(read_header(images[0]).grid.affine[:3, :3])))
        growth *= max(voxel / float(np.prod(options.spacing_mm)), 1.0)
    if options.n4 or options.spacing_mm:
        growth *= 2  # 32-bit floats instead of 16-bit integers
    return int(total * growth)


def _check_room(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise DataError(
            f"{folder}: about {needed / 2**30:.1f} GiB are needed {what}, {free / 2**30:.1f} GiB are free. Free disk "
            "space, or choose a folder on another disk."
        )


def _finish(manifest: Mapping[str, Any], found: set[str], description: Mapping[str, Any], outcome: Prepared) -> None:
    """Write ``dataset.json``, read it as a run does, and check all headers."""
    records = manifest["cases"]
    if not records:
        reasons = "; ".join(f"{case}: {message}" for case, message in list(outcome.failed.items())[:3])
        raise DataError(f"none of {len(outcome.failed)} cases could be prepared. {reasons}")
    if elsewhere := sorted(records.keys() - found):
        outcome.notes.append(f"from an earlier run, no longer in the source: {', '.join(elsewhere)}")
    flips = Counter(note.split(" (")[0] for record in records.values() for note in record["notes"] if "flipped" in note)
    outcome.notes += [f"{note}: {counted(count, 'case')}" for note, count in flips.items()]
    outcome.notes += [f"{name}: {n}" for name, record in records.items() for n in record["notes"] if "incomplete" in n]
    if len(flips) > 1:
        outcome.notes.append("label maps of a data set usually have the same flip: check these cases in a viewer")
    lists: dict[str, list[dict[str, Any]]] = {"training": [], "unlabeled": [], "validation": [], "test": []}
    for name in sorted(records):
        lists[records[name]["section"]].append(records[name]["entry"])
    names = description.get("modality", [])
    channels = {str(index): channel for index, channel in enumerate(names)} if isinstance(names, list) else names
    content = {
        **description,
        "modality": channels,
        "tensorImageSize": "4D" if len(channels) > 1 and manifest["options"]["four_d"] else "3D",
        "numTraining": len(lists["training"]),
        "numTest": len(lists["test"]),
        **{section: entries for section, entries in lists.items() if entries or section in ("training", "test")},
    }
    write_json(outcome.folder / "dataset.json", content)
    cases = find_cases(outcome.folder)
    report = Report()
    loader = (LoadPhotographd if is_picture(cases[0]["image"]) else LoadCased)(allow_missing_keys=True)
    check_headers(cases, loader, ("label",), report)
    # data types differ between cases on purpose: each is the smallest exact one
    outcome.findings += [finding for finding in report.findings if finding.rule != "data types"]


def _remove_outdated(manifest: dict[str, Any], outcome: Prepared) -> None:
    """Remove results of earlier records that the present ones do not list, unless they have been changed since."""
    earlier = manifest.pop("earlier_results")
    # some file systems ignore case
    present = {file["path"].lower() for file in _results(manifest)}
    contents = {(file["path"], file["sha256"]) for file in earlier}
    removed, changed = [], []
    for path in sorted({file["path"] for file in earlier}):
        file = outcome.folder / path
        if path.lower() in present or Path(path).parent.as_posix() not in _WRITTEN or not file.is_file():
            continue
        if (path, file_records([file], outcome.folder, earlier)[0]["sha256"]) in contents:
            with writing(file):
                file.unlink()
            removed.append(path)
        else:
            changed.append(path)
    if removed:
        outcome.notes.append(f"{counted(len(removed), 'outdated file')} removed, such as {removed[0]}")
    if changed:
        outcome.notes.append(
            f"outdated, but changed since they were prepared, so not removed: {', '.join(changed[:_SHOWN])}"
        )
    write_json(outcome.folder / MANIFEST, manifest)
