# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The comparisons of scripts/benchmark.py, one file a subject."""
