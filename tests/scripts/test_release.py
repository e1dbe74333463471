# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of a release, and their download by MONAI from a local server in the shape of the hubs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from monai.bundle import download, download_large_files

from scripts.release.__main__ import main, read_summaries
from scripts.release.bundles import bundle_files, large_files, model_card, write_zip, zip_name
from scripts.release.versions import disagreements
from tests.scripts.hugging_face import serve_repository

TOP = Path(__file__).parents[2]
BUNDLES = sorted(path for path in (TOP / "bundles").iterdir() if path.is_dir())
HIPPOCAMPUS = TOP / "bundles" / "hippocampus_mri_segan_segmentation"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder, and the address at which its files can be downloaded."""
    folder = tmp_path / "hub"
    folder.mkdir()
    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def test_versions_and_changelog_agree():
    assert disagreements(TOP) == []


def test_what_disagrees_is_named(tmp_path):
    (tmp_path / "segan_monai").mkdir()
    (tmp_path / "segan_monai" / "_version.py").write_text('__version__ = "0.2.0"\n', encoding="utf-8")
    (tmp_path / "CITATION.cff").write_text("version: 0.1.0\n", encoding="utf-8")
    configs = tmp_path / "bundles" / "liver" / "configs"
    configs.mkdir(parents=True)
    metadata = {"version": "0.3.0", "changelog": {"0.1.0": "x"}, "required_packages_version": {"segan-monai": "0.1.0"}}
    (configs / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## Unreleased\n\n- new\n\n## 0.1.0 - 2026-11-21\n\n- first\n", encoding="utf-8")
    assert disagreements(tmp_path) == [
        "CITATION.cff has the version 0.1.0; expected 0.2.0",
        "liver: the changelog of metadata.json has no version 0.3.0",
        "liver: metadata.json requires segan-monai 0.1.0; expected 0.2.0",
        "CHANGELOG.md has no section '## 0.2.0 - YYYY-MM-DD'",
    ]
    changelog.write_text("## Unreleased\n\n- new\n\n## 0.2.0 - 2026-12-01\n", encoding="utf-8")
    assert "lists changes as unreleased" in disagreements(tmp_path, released=True)[-1]


def test_a_release_needs_a_hub_and_summaries_that_exist(tmp_path, capsys):
    (tmp_path / "summary.json").write_text('{"regions": {}}', encoding="utf-8")
    texts = [f"{HIPPOCAMPUS.name}={tmp_path}/summary.json", f"{HIPPOCAMPUS.name}={tmp_path}/none.json", "liver=a", "b"]
    names = [bundle.name for bundle in BUNDLES]
    assert read_summaries(texts, names) == (
        {HIPPOCAMPUS.name: {"regions": {}}},
        [
            f"--summary {texts[1]}: there is no file {tmp_path}/none.json",
            f"--summary liver=a; expected BUNDLE=FILE with one of the bundles {', '.join(names)}",
            f"--summary b; expected BUNDLE=FILE with one of the bundles {', '.join(names)}",
        ],
    )
    assert main([str(tmp_path / "dist"), "--check", "--summary", texts[1]]) == 1
    said = capsys.readouterr().err
    assert "error: --hub is missing; expected the address of the bundles' repositories" in said
    assert "none.json." in said
    assert main([str(tmp_path / "dist"), "--check", "--trial"]) == 0
    assert not (tmp_path / "dist").exists()


def test_addresses_of_weights_name_a_version(tmp_path, capsys):
    assert main([str(tmp_path), "--trial", "--hub", "https://hub/OWNER/"]) == 0
    text = (tmp_path / "hub" / HIPPOCAMPUS.name / "large_files.yml").read_text(encoding="utf-8")
    *members, entry = yaml.safe_load(text)["large_files"]
    assert len(members) == 5
    assert entry["url"] == f"https://hub/OWNER/{HIPPOCAMPUS.name}/resolve/0.1.0/models/model.pt"
    assert f"{HIPPOCAMPUS.name}_v0.1.0.zip" in (tmp_path / "SHA256SUMS").read_text(encoding="utf-8")


def test_monai_downloads_a_bundle_from_a_server(server, tmp_path):
    folder, url = server
    file = write_zip(HIPPOCAMPUS, folder)
    assert file.name == "hippocampus_mri_segan_segmentation_v0.1.0.zip"
    assert write_zip(HIPPOCAMPUS, tmp_path).read_bytes() == file.read_bytes(), "the same files give the same zip"
    download(name=HIPPOCAMPUS.name, url=f"{url}/{file.name}", bundle_dir=tmp_path / "downloaded", progress=False)
    found = tmp_path / "downloaded" / HIPPOCAMPUS.name
    for name in bundle_files(HIPPOCAMPUS):
        assert (found / name).read_bytes() == (HIPPOCAMPUS / name).read_bytes(), name
    assert (found / "README.md").read_text(encoding="utf-8") == model_card(HIPPOCAMPUS)


def test_sources_of_monai_find_the_zip_by_its_name(server, tmp_path, monkeypatch):
    folder, url = server
    release = folder / "owner" / "segan-monai" / "releases" / "download" / "v0.1.0"
    release.mkdir(parents=True)
    write_zip(HIPPOCAMPUS, release)
    layout = "{}/{}/releases/download/{tag_name}/{filename}"
    monkeypatch.setattr(
        "monai.bundle.scripts._get_git_release_url",  # its host is fixed
        lambda owner, name, **names: f"{url}/{layout.format(owner, name, **names)}",
    )
    download(
        name=HIPPOCAMPUS.name,
        version="0.1.0",
        source="github",
        repo="owner/segan-monai/v0.1.0",
        bundle_dir=tmp_path / "downloaded",
        progress=False,
    )
    assert (tmp_path / "downloaded" / HIPPOCAMPUS.name / "models" / "model.pt").is_file()


@pytest.mark.slow
def test_monai_downloads_a_bundle_from_the_hugging_face_hub(tmp_path):
    write_zip(HIPPOCAMPUS, tmp_path)
    with ZipFile(tmp_path / zip_name(HIPPOCAMPUS)) as archive:
        archive.extractall(tmp_path / "uploaded")
    uploaded, downloaded = (tmp_path / folder / HIPPOCAMPUS.name for folder in ("uploaded", "downloaded"))
    name, repository = HIPPOCAMPUS.name, f"OWNER/{HIPPOCAMPUS.name}"
    words = f"-m monai.bundle download --source huggingface_hub --name {name} --repo {repository}".split()
    with serve_repository(uploaded, repository, tag="0.1.0") as url:
        # the client reads its address when it is imported: a process of its own
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, *words, "--bundle_dir", str(downloaded.parent)],
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
    assert done.returncode == 0, done.stderr
    for file in bundle_files(HIPPOCAMPUS):
        assert (downloaded / file).read_bytes() == (HIPPOCAMPUS / file).read_bytes(), file


def test_monai_downloads_the_large_files(server, tmp_path):
    folder, url = server
    weights = [name for name in bundle_files(HIPPOCAMPUS) if name.suffix == ".pt"]
    for name in weights:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((HIPPOCAMPUS / name).read_bytes())
    (tmp_path / "large_files.yml").write_text(large_files(HIPPOCAMPUS, url), encoding="utf-8")
    download_large_files(bundle_path=str(tmp_path))
    entries = yaml.safe_load(large_files(HIPPOCAMPUS, url))["large_files"]
    for name, entry in zip(weights, entries, strict=True):
        assert (tmp_path / name).read_bytes() == (HIPPOCAMPUS / name).read_bytes()
        assert entry["hash_val"] == hashlib.sha256((HIPPOCAMPUS / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_every_bundle_has_a_card_with_a_licence(bundle):
    head, _, text = model_card(bundle).removeprefix("---\n").partition("---\n")
    found = yaml.safe_load(head)
    weights = [name for name in bundle_files(bundle) if name.suffix == ".pt"]
    assert (found["license"] == "apache-2.0") == (not weights)
    assert found["library_name"] == "monai"
    assert "Not a medical device" in text
    assert zip_name(bundle) == f"{bundle.name}_v0.1.0.zip"


def test_figures_of_an_evaluation_are_in_the_card():
    region = {"cases": 50, "failures": 1, "dice": {"mean": 0.8764}, "hd95_mm": {"median": 1.234}}
    unknown = {"cases": 50, "failures": 0, "dice": {"mean": 0.5}, "hd95_mm": {"median": None}}
    card = model_card(HIPPOCAMPUS, {"regions": {"anterior": region, "posterior": unknown}})
    assert "| anterior | 50 | 0.876 | 1.23 | 1 |\n| posterior | 50 | 0.500 | unknown | 0 |" in card
