#!/usr/bin/env bash
# Installs into .venv and runs all tests. Arguments go to pytest: bash scripts/test.sh -k metrics
# SEGAN_MONAI_DATA names a folder with real data sets; tests that need it are skipped without it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
export PYTHONUTF8=1 # PyTorch's compiler reads its own source as the locale says
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # of each process
exec python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
