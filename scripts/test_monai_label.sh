#!/usr/bin/env bash
# Runs a real MONAI Label server on each bundle that supports it and asks it what a viewer would, with its own client:
#   bash scripts/test_monai_label.sh [-k hippocampus]
# Arguments go to pytest. The first time it installs the server (scripts/monai_label.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install_monai_label.sh
python -m pytest --version > /dev/null 2>&1 || python -m pip install --quiet --disable-pip-version-check \
    -c constraints-monailabel.txt pytest
export SEGAN_MONAI_LABEL=1
exec python -m pytest tests/monai_label/test_live_server.py -s "$@"
