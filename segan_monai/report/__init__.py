# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML report of a run: settings, progress, results and failures."""

from segan_monai.report.folder import NoResultsError
from segan_monai.report.page import write_report
from segan_monai.report.previews import CasePreview, load_previews, save_previews

__all__ = ["CasePreview", "NoResultsError", "load_previews", "save_previews", "write_report"]
