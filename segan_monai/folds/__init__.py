# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cross-validation of configurations: trains all folds, scores every case out of fold, and chooses a configuration."""

from segan_monai.folds.choice import Choice, choose_row
from segan_monai.folds.configurations import bundle_folds, configurations
from segan_monai.folds.out_of_fold import check_complete, out_of_fold_scores, summarize_rows
from segan_monai.folds.report import format_result, record_of_choice
from segan_monai.folds.runs import FoldRun, run_fold

__all__ = [
    "Choice",
    "FoldRun",
    "bundle_folds",
    "check_complete",
    "choose_row",
    "configurations",
    "format_result",
    "out_of_fold_scores",
    "record_of_choice",
    "run_fold",
    "summarize_rows",
]
