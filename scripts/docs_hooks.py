# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Hooks for mkdocs (mkdocs.yml): pages outside docs/, reference pages, links, equations."""

from __future__ import annotations

import ast
import html
import json
import posixpath
import re
from importlib.resources import files as files_of
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File

TOP = Path(__file__).parents[1]
ROOMS = ("networks", "losses", "engines", "inferers", "transforms", "data", "metrics", "handlers")
# files of the repository that are pages of the site, by site path
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    **{f"bundles/{folder.name}.md": f"bundles/{folder.name}/docs/README.md" for folder in TOP.glob("bundles/*")},
}
REFERENCE = {f"reference/{room}.md": f"segan_monai/{room}/__init__.py" for room in ROOMS}
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """Add the pages outside docs/."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=_text(source)))
    for room in ROOMS:
        files.append(File.generated(config, f"reference/{room}.md", content=_reference(room)))
    files.append(File.generated(config, "reference/command_line.md", content=_command_line()))
    files.append(File.generated(config, "reference/keys.md", content=_keys()))
    font = files_of("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"  # few systems have a font for equations
    files.append(File.generated(config, "fonts/math.ttf", abs_src_path=str(font)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite links between files of the repository to site paths; copy other linked files to the site."""
    uri = page.file.src_uri
    folder = posixpath.dirname(PAGES.get(uri, f"docs/{uri}"))
    places = {source: place for place, source in (PAGES | REFERENCE).items()}

    def rewrite(match):
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if not (TOP / path).is_file():
            return match[0]
        place = places.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(TOP / path)))
        return match[1] + posixpath.relpath(place, posixpath.dirname(uri) or ".") + match[3]

    return LINK.sub(rewrite, markdown)


def on_page_content(content, **_):
    """Convert equations to MathML, which browsers render without JavaScript."""
    return EQUATION.sub(lambda match: _mathml(html.unescape(match[2]), match[1]), content)


def _mathml(equation: str, tag: str) -> str:
    display = "block" if tag == "div" else "inline"
    return f'<{tag} class="equation">{latex2mathml.converter.convert(equation.strip(), display=display)}</{tag}>'


def _text(source: str) -> str:
    text = (TOP / source).read_text(encoding="utf-8")
    if source == "README.md":
        return f"---\nhide: [toc, navigation]\n---\n\n{text}"
    metadata = (TOP / source).parents[1] / "configs" / "metadata.json"
    if metadata.is_file():  # the model zoo requires the same heading in all bundles
        name = json.loads(metadata.read_text(encoding="utf-8"))["name"]
        text = text.replace("# Model Overview", f"# {name}\n\n`{metadata.parents[1].name}`", 1)
    return text


def _reference(room: str) -> str:
    """Return the reference page of a package: all its public names."""
    tree = ast.parse((TOP / "segan_monai" / room / "__init__.py").read_text(encoding="utf-8"))
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    sections = "\n\n".join(f"::: segan_monai.{room}.{name}" for name in names)
    marks = "[Where a value comes from](../how_it_works.md#where-a-value-comes-from) explains `[ours]` and other marks."
    return f"# segan_monai.{room}\n\n{ast.get_docstring(tree)}\n\n{marks}\n\n{sections}\n"


def _keys() -> str:
    """Return the page of the config keys known to ``segan-monai check``, with their values in each ``train.json``."""
    from segan_monai.check.keys import KEYS

    trainings = {
        file.parents[1].name.split("_")[0]: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(TOP.glob("bundles/*/configs/train.json"))
    }
    rows = ["| key | meaning | values | in `train.json` of |", "|---|---|---|---|"]
    for name, key in KEYS.items():
        values: dict[str, list[str]] = {}
        for bundle, config in trainings.items():
            if name in config:
                values.setdefault(json.dumps(config[name]), []).append(bundle)
        own = "<br>".join(f"{', '.join(bundles)}: `{value}`" for value, bundles in values.items())
        rows.append(f"| `{name}` | {key.purpose} | {key.kind.expected} | {own} |")
    options = (
        "Every key is an option of `segan-monai train`, `evaluate` and `predict`, and of `python -m monai.bundle run`."
    )
    return f"# Keys of the configs\n\n{options}\n\n" + "\n".join(rows) + "\n"


def _command_line() -> str:
    """Return the page of all commands and options, from typer."""
    import typer.main
    from typer.cli import get_docs_for_click

    from segan_monai.cli.main import app

    command = typer.main.get_command(app)
    context = command.make_context("segan-monai", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="segan-monai", title="Command line")
    text = re.sub(r"`[^`]*`|<", lambda match: match[0] if match[0] != "<" else "&lt;", text)
    return re.sub(r"^Example: ((?:.+\n)+)", lambda match: f"```bash\n{match[1]}```\n", text, flags=re.MULTILINE)
