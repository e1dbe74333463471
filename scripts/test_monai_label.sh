#!/usr/bin/env bash
# Runs a real MONAI Label server for each bundle that supports it, and sends a viewer's requests with MONAI Label's client:
#   bash scripts/test_monai_label.sh [-k hippocampus]
# If Orthanc is installed, it also serves one bundle in front of Orthanc's DICOMweb. Arguments are passed to pytest. The
# first run installs the server (scripts/install_monai_label.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install_monai_label.sh
python -m pytest --version > /dev/null 2>&1 || python -m pip install --quiet --disable-pip-version-check \
    -c constraints-monailabel.txt pytest
export SEGAN_MONAI_LABEL=1
exec python -m pytest tests/monai_label/test_live_server.py tests/monai_label/test_live_dicom.py -s "$@"
