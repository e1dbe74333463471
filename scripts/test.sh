#!/usr/bin/env bash
# Installs into .venv and runs all tests, or with an option a part of them:
#   --fast             without the tests marked slow: under 3 minutes on two cores
#   --durations-table  writes the seconds of each test file to docs/test_durations.md
#   --coverage         prints the share of lines that the tests ran (subprocesses are not measured)
# Other arguments go to pytest: bash scripts/test.sh -k metrics
# SEGAN_MONAI_DATA names a folder with real data sets; tests that need it are skipped without it.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=()
for argument in "$@"; do
    case "$argument" in
        --fast) arguments+=(-m "not slow") ;;
        # with "=", because pytest would take a separate value for a test file
        --durations-table) arguments+=(--durations-table=docs/test_durations.md) ;;
        --coverage) arguments+=(--cov=segan_monai --cov-report=term) ;;
        *) arguments+=("$argument") ;;
    esac
done
source scripts/install.sh
export PYTHONUTF8=1 # PyTorch's compiler reads its own source as the locale says
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # of each process
exec python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder ${arguments[@]+"${arguments[@]}"}
