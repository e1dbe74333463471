# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparisons of scripts/benchmark.py, one file per subject."""
