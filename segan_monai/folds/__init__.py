# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cross-validation of configurations: trains all folds, scores every case out of fold, and chooses a configuration."""

from segan_monai.folds.choice import Choice, choose_row
from segan_monai.folds.configurations import configurations, folds_of
from segan_monai.folds.ensembles import ensemble_name, ensembles_of, score_ensemble
from segan_monai.folds.out_of_fold import check_complete, out_of_fold_scores, summarize_rows
from segan_monai.folds.region_rules import choose_region_rules, describe_rules
from segan_monai.folds.report import format_result, record_of_choice
from segan_monai.folds.results import Results, write_results
from segan_monai.folds.runs import FoldRun, can_save_maps, evaluation_keys, run_fold, skipped_steps

__all__ = [
    "Choice",
    "FoldRun",
    "Results",
    "can_save_maps",
    "check_complete",
    "choose_region_rules",
    "choose_row",
    "configurations",
    "describe_rules",
    "ensemble_name",
    "ensembles_of",
    "evaluation_keys",
    "folds_of",
    "format_result",
    "out_of_fold_scores",
    "record_of_choice",
    "run_fold",
    "score_ensemble",
    "skipped_steps",
    "summarize_rows",
    "write_results",
]
