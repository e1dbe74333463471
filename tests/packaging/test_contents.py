# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the wheel and the source archive contain, and what cannot be built."""

from __future__ import annotations

import re
import shutil
import tarfile
from zipfile import ZipFile

import pytest

from tests.packaging.builds import TOP, build, copy_checkout, metadata_of, try_build, unpack, versioned_files

pytestmark = pytest.mark.slow

LINKS = {"segan_monai/bundles", "segan_monai/configs"}
HIPPOCAMPUS, PANCREAS = "hippocampus_mri_segan_segmentation", "pancreas_ct_lsnet_segmentation"


def contents(wheel):
    """Bytes by name of the files of a wheel, without its dist-info."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_has_the_package_its_bundles_and_its_configs(wheel):
    found = contents(wheel)
    package = {name for name in versioned_files() if name.startswith("segan_monai/")} - LINKS
    copied = {name for name in versioned_files() if name.startswith(("bundles/", "configs/"))}
    assert set(found) == package | {f"segan_monai/{name}" for name in copied}
    for name in copied:
        assert found[f"segan_monai/{name}"] == (TOP / name).read_bytes(), name
    bundle = f"segan_monai/bundles/{HIPPOCAMPUS}"
    assert {f"{bundle}/LICENSE", f"{bundle}/docs/README.md", f"{bundle}/models/model.pt"} <= set(found)
    pictures = f"segan_monai/bundles/{PANCREAS}/models/ct_pictures/"
    assert [name for name in found if name.startswith(pictures) and name.endswith("/model.pt")]
    assert {"segan_monai/py.typed", "segan_monai/report/report.html.j2"} <= set(found)


def test_the_source_archive_has_all_that_is_under_version_control(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if not member.isdir()}
    made = {name for name in names if name.startswith("segan_monai.egg-info/")} | {"PKG-INFO"}
    assert names - made == set(versioned_files()) - LINKS


def test_the_source_archive_builds_the_same_wheel(sdist, wheel, tmp_path):
    source = unpack(sdist, tmp_path / "source")
    assert not (source / "segan_monai" / "bundles").exists()
    again = build("build_wheel", source, tmp_path)
    assert contents(again) == contents(wheel)
    assert metadata_of(again).as_string() == metadata_of(wheel).as_string()


def test_what_a_checkout_has_trained_is_not_packaged(wheel, tmp_path):
    source = copy_checkout(tmp_path / "source")
    for name in ("brats_mri_segan_segmentation/models/model.pt", f"{HIPPOCAMPUS}/models/last.pt", "x/output/run.json"):
        file = source / "bundles" / name.replace("x/", f"{HIPPOCAMPUS}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}", encoding="utf-8")
    (source / "build" / "lib" / "segan_monai" / "bundles" / "of_an_earlier_build").mkdir(parents=True)
    (source / "build" / "lib" / "segan_monai" / "bundles" / "of_an_earlier_build" / "LICENSE").touch()
    assert set(contents(build("build_wheel", source, tmp_path))) == set(contents(wheel))
    with tarfile.open(build("build_sdist", source, tmp_path)) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.endswith(("last.pt", "brats_mri_segan_segmentation/models/model.pt"))]
    assert not [name for name in names if "/output/" in name or "of_an_earlier_build" in name]


@pytest.mark.parametrize("hook", ["build_wheel", "build_sdist", "build_editable"])
@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("bundles", f"bundles/{HIPPOCAMPUS}/models/model.pt"),
        (f"bundles/{PANCREAS}/docs", f"bundles/{PANCREAS}/docs/README.md"),
        (f"bundles/{PANCREAS}/models", f"bundles/{PANCREAS}/models/ct_pictures/**/model.pt"),
    ],
)
def test_a_build_without_bundles_fails(hook, missing, named, checkout, tmp_path):
    source = shutil.copytree(checkout, tmp_path / "source", symlinks=True, ignore=shutil.ignore_patterns("tests"))
    shutil.rmtree(source / missing)
    done = try_build(hook, source, tmp_path / "built")
    assert done.returncode != 0
    assert re.search(rf"lacks .*{re.escape(named)}.*complete checkout or of an unpacked source archive", done.stderr)
    assert not list((tmp_path / "built").iterdir())


def test_an_editable_installation_needs_the_links(sdist, tmp_path):
    source = unpack(sdist, tmp_path / "source")
    build("build_editable", source, tmp_path)
    for name in ("bundles", "configs"):
        assert (source / "segan_monai" / name).resolve() == source / name
    (source / "segan_monai" / "bundles").unlink()
    (source / "segan_monai" / "bundles").write_text("../bundles", encoding="utf-8")  # git without links
    done = try_build("build_editable", source, tmp_path)
    assert done.returncode != 0
    assert "bundles is a file, not a link to ../bundles. Run git config core.symlinks true" in done.stderr
    assert set(contents(build("build_wheel", source, tmp_path))) >= {f"segan_monai/bundles/{PANCREAS}/LICENSE"}


def test_the_page_of_the_package_stands_alone(wheel):
    metadata = metadata_of(wheel)
    page = metadata.get_payload()
    assert page.strip() == (TOP / "PACKAGE.md").read_text(encoding="utf-8").strip()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert metadata["Author"] == "The segan-monai contributors"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == {"phantoms", "export", "dicom", "mlflow", "ray", "docs", "dev"}
