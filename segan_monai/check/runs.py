# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Entry points: all checks for a command line, and the quick checks at the start of training."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.check.background import check_background
from segan_monai.check.cases import check_contents, check_headers, unique_cases
from segan_monai.check.configs import (
    check_properties,
    check_used,
    read_configs,
    run_id_of,
    used_items,
)
from segan_monai.check.contents import read_contents, without_ignored
from segan_monai.check.initial_weights import check_initial_settings
from segan_monai.check.leakage import check_duplicates, check_subjects
from segan_monai.check.learnable import check_learnable
from segan_monai.check.report import Report, counted
from segan_monai.check.run_cases import RunCases, find_run_cases
from segan_monai.check.trial import (
    as_single_process,
    built,
    check_device,
    check_network,
    check_step,
    initialize,
    trial_parser,
)
from segan_monai.check.values import check_values
from segan_monai.command_line import config_files, overrides_of
from segan_monai.errors import ConfigError, DataError, UnknownKeyError, UserError, user_error_in
from segan_monai.places import require_results_outside
from segan_monai.trained import apply_settings_of_weights

logger = logging.getLogger(__name__)

CONFIG_RULES = ("references", "imports", "expressions", "classes", "ids", "settings")


def check_command_line(
    arguments: Mapping[str, Any], quick: bool = False, processes: int | None = None
) -> tuple[Report, Path | None]:
    """Check everything that a ``monai.bundle`` run would use.

    Configs are checked first. Data are checked only if the configs have no errors, and one step is run only if the data
    have none either.

    Args:
        arguments: see ``read_arguments``.
        quick: check configs and headers only.
        processes: number of processes that read cases; default: the available cores, at most 8.

    Returns:
        The report, and the folder that contains it as ``check.json``: ``check`` in the run's ``output_dir``, or None if
        the configs do not define that folder.
    """
    report = Report()
    try:
        files = config_files(arguments)
        report.note("configs", ", ".join(Path(file).name for file in files))
        report.note("keys", "every override names a key")
        parser = read_configs(arguments)
        run_id = run_id_of(parser, str(arguments.get("run_id", "run")))
    except ConfigError as error:
        rule = "keys" if isinstance(error, UnknownKeyError) else "configs"
        report.error(rule, "command line", str(error))
        return report, None
    init_id = arguments.get("init_id", "initialize")
    roots = [run_id, *(name for name in (init_id, arguments.get("final_id", "finalize")) if name in parser)]
    used, missing = used_items(parser, roots)
    check_properties(parser, run_id, report)
    check_used(parser, used, missing, report)
    check_values(parser, report)
    changed: dict[str, Any] = {}
    if not report.errors:
        try:
            changed = apply_settings_of_weights(parser, arguments)
        except ConfigError as error:
            report.error("settings", "model.json", str(error))
    contents = [parser.ref_resolver.items[name].get_config() for name in used]
    with tempfile.TemporaryDirectory() as scratch, as_single_process(contents):
        folder = None
        if "output_dir" in parser:
            where = ConfigParser(dict(parser.get()))
            ok, output_dir = built(where, "output_dir", "references", report)
            folder = Path(output_dir) / "check" if ok and _is_outside(where, output_dir, report) else None
        if not report.errors:
            trial = trial_parser(parser, scratch, folder and folder.parent)
            changed_keys = {*overrides_of(arguments), *changed}
            _check_built(trial, run_id, init_id, used, folder, quick, processes, report, changed_keys)
    if folder is not None:
        report.write(folder / "check.json")
    return report, folder


def _is_outside(parser: ConfigParser, output_dir: str, report: Report) -> bool:
    """Return whether results are written outside the data set; if not, report an error."""
    found = {key: built(parser, key, "data set", report)[1] for key in ("dataset_dir", "datalist") if key in parser}
    try:
        require_results_outside(output_dir, found.get("dataset_dir"), found.get("datalist"))
    except ConfigError as error:
        report.error("data set", "output_dir", str(error))
        return False
    return True


def _check_built(
    trial: ConfigParser,
    run_id: str,
    init_id: str,
    used: Sequence[str],
    folder: Path | None,
    quick: bool,
    processes: int | None,
    report: Report,
    overrides: Collection[str],
) -> None:
    has_device = check_device(trial, report)
    data = find_run_cases(trial, used, report)
    if data is not None:
        data = _usable(data, report)
        _check_data_quickly(data, report)
    if not report.errors:
        check_initial_settings(trial, report)
    if not quick and data is not None and folder is not None:
        cases = unique_cases(data.parts)
        contents = read_contents(cases, data.loader, data.settings, folder / "cases.jsonl", processes)
        contents = without_ignored(contents, data.ignore_label)
        check_contents(cases, contents, data.regions, data.relabelled, report)
        if "skull_stripped" in trial and trial.get("intensity_window") is None:
            check_background(contents, trial.get_parsed_content("skull_stripped"), report)
        check_learnable(data.parts, contents, data.regions, data.relabelled, report)
        check_duplicates(data.parts, contents, report)
    data_errors = bool(report.errors)
    if not has_device or not initialize(trial, init_id, report):
        return
    if not check_network(trial, report, overrides):
        return
    if quick or data_errors:
        report.note("step", f"not run: {'--quick' if quick else 'the data have errors'}")
        return
    check_step(trial, run_id, report)


def _usable(data: RunCases, report: Report) -> RunCases:
    """Report the cases that lack a file, and return the others."""
    for case in unique_cases(data.parts):
        if "unusable" in case:
            report.error("headers", case["case"], case["unusable"])
    parts = {name: [case for case in part if "unusable" not in case] for name, part in data.parts.items()}
    return data._replace(parts=parts)


def _check_data_quickly(data: RunCases, report: Report) -> None:
    check_subjects(data.parts, data.seen, report, data.begun_on)
    check_headers(unique_cases(data.parts), data.loader, data.label_keys, report)


def check_configs_before_run(parser: ConfigParser) -> None:
    """Check references, imports, expressions, classes and arguments before training writes anything.

    Raises:
        ConfigError: The first error found and the number of others.
    """
    report = Report()
    used, missing = _used_by_run(parser)
    check_used(parser, used, missing, report)
    _raise_first(report)


def check_cases_before_run(parser: ConfigParser) -> None:
    """Check split and headers before training reads whole images. Warnings go to the log.

    Raises:
        DataError: The first error found and the number of others.
    """
    report = Report()
    used, _ = _used_by_run(parser)
    data = find_run_cases(parser, used, report)
    if data is not None:
        _check_data_quickly(data, report)
    _raise_first(report)
    check_initial_settings(parser, report)
    for rule in report.rules:
        of_rule = [finding for finding in report.warnings if finding.rule == rule]
        if of_rule:
            more = (
                f" (and {counted(len(of_rule) - 1, 'more case')}: segan-monai check lists all)"
                if len(of_rule) > 1
                else ""
            )
            logger.warning("%s: %s%s", rule, of_rule[0].message, more)


def lacks_its_data(parser: ConfigParser) -> bool:
    """Return whether the run reads ``dataset_dir``, and there is no such folder or file.

    MONAI Label gives the cases in place of those of the folder; such a run lacks nothing.
    """
    used, _ = _used_by_run(parser)
    if "cases" not in used or parser.get_parsed_content("datalist") is not None:
        return False
    return not Path(parser.get_parsed_content("dataset_dir")).expanduser().exists()


def _used_by_run(parser: ConfigParser) -> tuple[list[str], dict[str, str]]:
    roots = [name for name in ("run", "initialize", "finalize") if name in parser]
    return used_items(parser, roots)


def _raise_first(report: Report) -> None:
    if report.raised:
        raise user_error_in(report.raised[0]) or report.raised[0]  # as the run itself would
    if not report.errors:
        return
    first, *others = report.errors
    kind: type[UserError] = ConfigError if first.rule in CONFIG_RULES else DataError
    more = f" And {counted(len(others), 'more error')}: segan-monai check lists all." if others else ""
    raise kind(f"{first.message}{more} (Found before the run; --check false skips this check.)")
