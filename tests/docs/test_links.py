# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Links lead somewhere, on a hosting site as on the built one (mkdocs --strict checks those); options exist."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from urllib.parse import unquote

import monai.bundle
import pytest
import typer.main

from segan_monai.cli.main import app
from tests.docs.pages import FENCE, PAGES, TOP, name_of, prose_of

LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--([a-zA-Z][\w-]*)")
# options of shell scripts, and of programs that are not of this project
OTHERS = {
    "scripts/test.sh": {"fast", "durations-table", "coverage"},
    "scripts/release.sh": {"hub", "summary", "trial"},
    "scripts/gpu_check.sh": {"collect", "cpu", "data"},
    "pip": {"no-deps", "wheel-dir", "index-url"},
    "torchrun": {"standalone", "nnodes", "nproc_per_node", "rdzv_backend", "rdzv_id", "rdzv_endpoint", "max-restarts"},
    "Docker and Apptainer": {"shm-size", "nv", "build-arg"},
    "Ray": {"head", "port", "address", "disable-usage-stats"},
    "Slurm": {"nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "array", "gpus", "requeue"},
    "mkdocs": {"strict"},
    "TensorBoard": {"logdir"},
    "MLflow": {"backend-store-uri"},
    "typer": {"help", "install-completion", "show-completion"},
    "segan-monai": {"version"},
}


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as hosting sites make them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    for link in LINK.findall(prose_of(page)):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{name_of(page)}: {link} leads to no file"
        assert target.is_relative_to(TOP)
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)}: {link}; there are {sorted(anchors(target))}"


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every option that a command of this project, or one that its docs use, takes."""
    names = set().union(*OTHERS.values())
    for file in [*TOP.glob("bundles/*/configs/*.json"), *TOP.glob("configs/**/*.json")]:
        names |= set(json.loads(file.read_text(encoding="utf-8")))
    for function in (monai.bundle.run, monai.bundle.ckpt_export, monai.bundle.onnx_export):
        names |= set(inspect.signature(function).parameters)
    commands = list(typer.main.get_command(app).commands.values())
    for command in commands:
        commands += getattr(command, "commands", {}).values()  # of a group: prepare brats
        names |= {
            option.lstrip("-") for parameter in command.params for option in parameter.opts + parameter.secondary_opts
        }
    for file in [*TOP.glob("scripts/benchmarks/*.py"), TOP / "segan_monai" / "export" / "run_onnx.py"]:
        text = file.read_text(encoding="utf-8")
        names |= set(OPTION.findall(text))
        names |= {name.replace("_", "-") for name in re.findall(r"(?:^    |\(|, )(\w+): [A-Za-z]", text, re.MULTILINE)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_exist(page, known):
    text = FENCE.sub(lambda match: match[3] if match[2] == "bash" else "", page.read_text(encoding="utf-8"))
    unknown = {option for option in OPTION.findall(text) if option not in known}
    assert not unknown, f"{name_of(page)} has options that nothing takes"


def test_headings_and_options_are_told_from_what_only_looks_so(known):
    assert "cost-per-class" in anchors(TOP / "docs" / "segan.md")
    assert "sbatch---nodes2" not in anchors(TOP / "docs" / "multi_gpu.md"), "a comment in code is no heading"
    assert {"learning_rate", "train-seconds", "base-channels"} <= known
    assert not {"learning_rte", "train_seconds"} & known
