#!/usr/bin/env bash
# Shows a segmentation in the OHIF viewer, in headless Chromium in front of Orthanc, and tests where it lies:
#   apt-get install orthanc orthanc-dicomweb chromium chromium-driver npm && bash scripts/test_ohif.sh
# SEGAN_MONAI_ARTEFACTS: folder that receives the screenshot. Arguments are passed to pytest. The first run downloads the
# built viewer from npm (50 MB) to output/ohif.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=3.12.10
for program in Orthanc chromium chromedriver npm; do
    if ! PATH="/usr/sbin:$PATH" command -v "$program" > /dev/null; then
        echo "error: $program is not installed. Run: apt-get install orthanc orthanc-dicomweb chromium chromium-driver npm" >&2
        exit 1
    fi
done
folder="output/ohif/$VERSION"
if [ ! -f "$folder/package/dist/index.html" ]; then
    mkdir -p "$folder"
    npm pack --silent --pack-destination "$folder" "@ohif/app@$VERSION" > /dev/null
    tar -xzf "$folder/ohif-app-$VERSION.tgz" -C "$folder"
    rm "$folder/ohif-app-$VERSION.tgz"
fi
source scripts/install.sh
export SEGAN_MONAI_OHIF="$PWD/$folder/package/dist"
exec python -m pytest tests/dicom/test_ohif.py "$@"
