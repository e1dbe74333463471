# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings that belong to trained weights: ``model.json`` beside ``model.pt``."""

from segan_monai.trained.apply import allowed_keys, apply_settings_of_weights, apply_trained_settings, given_keys
from segan_monai.trained.compare import contradictions
from segan_monai.trained.included import included_weights_dir
from segan_monai.trained.members import require_same_settings
from segan_monai.trained.record import record_of_training, settings_of_training, user_settings
from segan_monai.trained.settings_file import (
    cases_of_region_rules,
    changed_files,
    is_of_pretraining,
    read_initial_settings,
    read_trained_settings,
    settings_file,
    write_region_rules,
    write_trained_settings,
)

__all__ = [
    "allowed_keys",
    "apply_settings_of_weights",
    "apply_trained_settings",
    "cases_of_region_rules",
    "changed_files",
    "contradictions",
    "given_keys",
    "included_weights_dir",
    "is_of_pretraining",
    "read_initial_settings",
    "read_trained_settings",
    "record_of_training",
    "require_same_settings",
    "settings_file",
    "settings_of_training",
    "user_settings",
    "write_region_rules",
    "write_trained_settings",
]
