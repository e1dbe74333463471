# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Report of a check: a table with one row per rule, and ``check.json`` with all findings."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segan_monai.json_files import write_json

Level = Literal["error", "warning"]

_MAX_MESSAGES = 3  # messages per row and level in the table; the file has all
_WIDTH = 118


def counted(number: int, noun: str, plural: str = "s") -> str:
    """Format a count with its noun: ``1 error``, ``2 errors``."""
    return f"{number} {noun}{'' if number == 1 else plural}"


@dataclass(frozen=True)
class Finding:
    """One error or warning.

    Attributes:
        rule: row in the table, such as ``spacing``.
        level: an error stops a run or makes its result wrong; a warning is for the user to judge.
        where: config id, case or file.
        message: value found, value expected and remedy.
    """

    rule: str
    level: Level
    where: str
    message: str


@dataclass
class Report:
    """Rules in the order in which they were checked, and their findings.

    Attributes:
        rules: name of each rule to a short description of what was checked.
        findings: all findings.
        measured: figures of the run: cases, memory, times.
        raised: exceptions raised while parts of the config were built.
    """

    rules: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    raised: list[Exception] = field(default_factory=list)

    def note(self, rule: str, looked_at: str) -> None:
        """Add a row for a rule, with a short description of what was checked."""
        self.rules[rule] = looked_at

    def error(self, rule: str, where: str, message: str) -> None:
        """Record a finding that stops a run or makes its result wrong."""
        self._add(Finding(rule, "error", where, message))

    def warning(self, rule: str, where: str, message: str) -> None:
        """Record a finding for the user to judge."""
        self._add(Finding(rule, "warning", where, message))

    def _add(self, finding: Finding) -> None:
        self.rules.setdefault(finding.rule, "")
        self.findings.append(finding)

    def of_rule(self, rule: str) -> list[Finding]:
        """Return the findings of one rule."""
        return [finding for finding in self.findings if finding.rule == rule]

    @property
    def errors(self) -> list[Finding]:
        """Findings that make the check fail."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that do not make the check fail."""
        return [finding for finding in self.findings if finding.level == "warning"]

    def table(self) -> str:
        """Format one row per rule with its first messages, and a last line of counts."""
        lines = []
        for rule, looked_at in self.rules.items():
            counts = []
            shown: list[Finding] = []
            for level, of_level in (("error", self.errors), ("warning", self.warnings)):
                of_rule = [finding for finding in of_level if finding.rule == rule]
                if of_rule:
                    counts.append(counted(len(of_rule), level))
                shown += of_rule[:_MAX_MESSAGES]
            row = f"{rule:15} {', '.join(counts) or 'ok':22} {looked_at}".rstrip()
            lines += textwrap.wrap(row, _WIDTH, subsequent_indent=" " * 39, break_long_words=False)
            for finding in shown:
                lines += textwrap.wrap(
                    f"{finding.level}: {finding.message}",
                    _WIDTH,
                    initial_indent="    ",
                    subsequent_indent="        ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            hidden = len([f for f in self.findings if f.rule == rule]) - len(shown)
            if hidden > 0:
                lines.append(f"    and {hidden} more in check.json")
        verdict = "failed" if self.errors else "passed"
        lines.append(f"{verdict}: {counted(len(self.errors), 'error')}, {counted(len(self.warnings), 'warning')}")
        return "\n".join(lines)

    def write(self, file: Path) -> None:
        """Write all findings as JSON."""
        content = {
            "passed": not self.errors,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "rules": self.rules,
            "measured": self.measured,
            "findings": [asdict(finding) for finding in self.findings],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content, default=str)
