# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results of rows of a table, as ``run_row`` returns them."""

from __future__ import annotations


def result(row, seed, left, right, failures=0):
    """What ``run_row`` returns, with two regions of the given Dice scores."""

    def region(dice):
        distance = {"mean": None, "infinite": failures} if failures else {"mean": 2.0, "infinite": 0}
        return {
            "cases": 4,
            "failures": failures,
            **{metric: {"mean": dice} for metric in ("dice", "iou", "precision", "sensitivity")},
            "hd95_mm": distance,
            "assd_mm": distance,
        }

    return {
        "row": row,
        "seed": seed,
        "epochs": 10 + seed,
        "train_seconds": 100.0 + seed,
        "peak_memory_mib": 500.0 + seed,
        "parameters": {"network": 1_500_000, "critic": 250_000} if row == "SegAN" else {"network": 1_500_000},
        "training_cases": 16,
        "unlabeled_cases": 0,
        "regions": {"left": region(left), "right": region(right)},
    }
