# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs ``segan-monai`` as ``python -m segan_monai``."""

from __future__ import annotations

import sys

from segan_monai.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = "segan-monai"
    main()
