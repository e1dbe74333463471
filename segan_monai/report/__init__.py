# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A run as one HTML page that opens anywhere: what it was, how it went, what it found, and where it failed."""

from segan_monai.report.page import write_report
from segan_monai.report.previews import CasePreview, load_previews, save_previews

__all__ = ["CasePreview", "load_previews", "save_previews", "write_report"]
