# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of a release: ``bash scripts/release.sh``."""
