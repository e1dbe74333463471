# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of label maps, and their evaluation by folders."""

from __future__ import annotations

from segan_monai.metrics.evaluation import case_metrics, evaluate_case, evaluate_folders
from segan_monai.metrics.jensen_shannon import IntensityHistograms, JensenShannonDivergence, jensen_shannon_divergence
from segan_monai.metrics.known_dice import KnownDiceMetric
from segan_monai.metrics.label_maps import LabelMap, find_label_maps, label_map, read_label_map, without_labels
from segan_monai.metrics.overlap import EMPTY_MASK_RULE, overlap_metrics
from segan_monai.metrics.summary import format_table, summarize, write_evaluation
from segan_monai.metrics.surface import surface_distances, surface_metrics

__all__ = [
    "EMPTY_MASK_RULE",
    "IntensityHistograms",
    "JensenShannonDivergence",
    "KnownDiceMetric",
    "LabelMap",
    "case_metrics",
    "evaluate_case",
    "evaluate_folders",
    "find_label_maps",
    "format_table",
    "jensen_shannon_divergence",
    "label_map",
    "overlap_metrics",
    "read_label_map",
    "summarize",
    "surface_distances",
    "surface_metrics",
    "without_labels",
    "write_evaluation",
]
