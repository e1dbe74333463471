# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adds the bundles and the overlays and tables of ``configs`` to the package; everything else is in setup.cfg.

They are at the top of a checkout, where people look for them. ``segan_monai/bundles`` and ``segan_monai/configs`` are
links to them, which a source archive and some systems lack, so the build copies the files and never reads the links.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

TOP = Path(__file__).parent

# Weights are named one by one: models/ also receives what a checkout has trained.
PER_BUNDLE = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/*",
    "docs/README.md",
    "docs/*",
)
ONCE = (
    "bundles/hippocampus_mri_segan_segmentation/models/model.pt",
    "bundles/hippocampus_mri_segan_segmentation/models/*.json",
    "bundles/hippocampus_mri_segan_segmentation/models/folds/*/model.pt",
    "bundles/hippocampus_mri_segan_segmentation/models/folds/*/*.json",
    "bundles/pancreas_ct_lsnet_segmentation/models/ct_pictures/**/model.pt",  # one, or fold_0, fold_1, ...
    "bundles/pancreas_ct_lsnet_segmentation/models/ct_pictures/**/*.json",
    "configs/*.json",
    "configs/experiments/*/*.json",
)


def shipped_files() -> list[Path]:
    """Return the files of bundles and configs that the package contains, relative to the top of the checkout.

    Raises:
        SystemExit: Files are missing, so that the package would be useless. Setuptools turns other errors of an
            editable installation into a warning.
    """
    bundles = sorted(folder.relative_to(TOP).as_posix() for folder in TOP.glob("bundles/*/"))
    patterns = [*(f"{bundle}/{pattern}" for bundle in bundles for pattern in PER_BUNDLE), *ONCE]
    found = {pattern: [file for file in TOP.glob(pattern) if file.is_file()] for pattern in patterns}
    if missing := [pattern for pattern, files in found.items() if not files]:
        raise SystemExit(
            f"error: {TOP} lacks {', '.join(missing)}. The package needs the folders bundles and configs: build it at "
            "the top of a complete checkout or of an unpacked source archive."
        )
    return sorted({file.relative_to(TOP) for files in found.values() for file in files})


class BuildWithBundles(build_py):
    """Copies the bundles and configs into ``segan_monai``; an editable installation uses the links."""

    def run(self) -> None:
        """Build, then copy."""
        files = shipped_files()
        super().run()
        if self.editable_mode:
            self._require_links()
            return
        target = Path(self.build_lib, "segan_monai")
        for folder in ("bundles", "configs"):  # of an earlier build
            shutil.rmtree(target / folder, ignore_errors=True)
        for file in files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / file, target / file)

    def _require_links(self) -> None:
        for folder in ("bundles", "configs"):
            link = TOP / "segan_monai" / folder
            try:
                if not link.exists():  # a source archive contains no links
                    link.symlink_to(Path("..", folder), target_is_directory=True)
            except OSError as error:
                raise SystemExit(
                    f"error: {link} must be a link to ../{folder} and cannot be created: {error}."
                ) from error
            if not link.is_dir():
                raise SystemExit(
                    f"error: {link} is a file, not a link to ../{folder}. Run git config core.symlinks true, delete "
                    "the file and check it out again; or install without -e."
                )


class SdistWithBundles(sdist):
    """Adds the bundles to the source archive; MANIFEST.in lists the other files."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files that the archive contains."""
        super().make_release_tree(base_dir, sorted({*files, *(file.as_posix() for file in shipped_files())}))


setup(cmdclass={"build_py": BuildWithBundles, "sdist": SdistWithBundles})
