#!/usr/bin/env bash
# Starts Orthanc on the loopback, and tests `segan-monai dicom` from this server and back to it:
#   apt-get install orthanc orthanc-dicomweb && bash scripts/test_orthanc.sh
# Arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! PATH="/usr/sbin:$PATH" command -v Orthanc > /dev/null; then
    echo "error: Orthanc is not installed. Run: apt-get install orthanc orthanc-dicomweb" >&2
    exit 1
fi
source scripts/install.sh
exec python -m pytest tests/dicom/test_orthanc.py "$@"
