#!/usr/bin/env bash
# Installs into .venv and runs all tests. Arguments go to pytest: bash scripts/test.sh -k metrics
# SEGAN_MONAI_DATA names a folder with real data sets; tests that need it are skipped without it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
exec python -m pytest "$@"
