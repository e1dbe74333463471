# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Commands that take every key of a bundle's config as an option, and list these keys in their help."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

import segan_monai
from segan_monai.bundles_by_name import find_bundle_or_run
from segan_monai.errors import UserError

CONFIG_FILES = {
    "train": "train.json",
    "evaluate": "evaluate.json",
    "predict": "inference.json",
    "dicom": "inference.json",
}
"""Config of each command."""

_GIVEN = ("imports", "bundle_root", "dataset_dir", "output_dir")  # given by the command itself


class KeysCommand(TyperCommand):
    """Command that keeps options other than its own as ``context.obj``: a dictionary of texts by config id.

    An option takes the word after it as its value, unless that word is an option; then its value is None.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the options that are config keys aside; parse all others as usual."""
        own = [name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)]
        rest, ctx.obj = split_keys(args, [*own, *ctx.help_option_names])
        ctx.meta["bundle"] = rest[0] if rest and not rest[0].startswith("-") else ""
        return super().parse_args(ctx, rest)

    def get_help(self, ctx: Any) -> str:
        """Return the help text, with the keys of the bundle if one is named."""
        return super().get_help(ctx) + key_help(ctx.meta.get("bundle", ""), str(self.name))


def split_keys(words: Sequence[str], own: Iterable[str]) -> tuple[list[str], dict[str, str | None]]:
    """Separate options that are config keys from the other words of a command line.

    Args:
        words: words after the command's name.
        own: the command's own options.

    Returns:
        The other words, and the texts of the keys. Hyphens of a key become underscores, as in ``monai.bundle``;
        underscores of an own option become hyphens.
    """
    known, rest, keys, todo = {*own, "--"}, [], {}, list(words)
    while todo:
        word = todo.pop(0)
        name, equals, value = word.partition("=")
        name = name if name in known else name.replace("_", "-")
        if not word.startswith("--") or name in known:
            rest.append(f"{name}{equals}{value}" if word.startswith("--") else word)
            continue
        has_value = bool(todo) and not re.match("--|-[a-zA-Z]", todo[0])  # -1 is a number
        given = value if equals else todo.pop(0) if has_value else None
        keys[name.removeprefix("--").replace("-", "_")] = given
    return rest, keys


def key_help(bundle: str, command: str) -> str:
    """Return a list of the keys of a bundle's config: default and purpose, by section.

    Args:
        bundle: bundle or training run as typed; an empty list is returned if there is none.
        command: ``train``, ``evaluate`` or ``predict``.
    """
    try:
        folder, _ = find_bundle_or_run(bundle)
        config = json.loads((folder / "configs" / CONFIG_FILES[command]).read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        return "" if not bundle else f"\n'{bundle}' is not a bundle; its keys are not listed."
    purposes = key_purposes()
    lines = [f"\nKeys of {folder.name}, with their defaults:"]
    title: list[str] = []
    for name, value in config.items():
        if name == "initialize":  # components follow
            break
        if name.startswith("_"):
            title = ["", str(value).strip("- ")]
        elif name not in _GIVEN:
            lines += title
            title = []
            lines.append(f"  {f'--{name} {_shown(value)}':<46} {purposes.get(name, '')}".rstrip())
    return "\n".join(lines) + "\n"


def key_purposes() -> dict[str, str]:
    """Return the purposes of ``segan_monai.check.keys.KEYS``, read from its source; its import would load PyTorch."""
    source = Path(segan_monai.__file__).parent / "check" / "keys.py"
    (table,) = (node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Dict))
    return {key.value: call.args[1].value for key, call in zip(table.keys, table.values, strict=True)}  # type: ignore[union-attr, attr-defined]


def _shown(value: Any) -> str:
    """Return a default as a user would type it."""
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        return "(computed)"
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ",".join(map(str, value))
    if isinstance(value, dict) and all(isinstance(item, list) for item in value.values()):
        return "'" + ";".join(f"{name}={','.join(map(str, values))}" for name, values in value.items()) + "'"
    return "(see the config)" if isinstance(value, dict | list) else json.dumps(value).strip('"')
