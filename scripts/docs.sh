#!/usr/bin/env bash
# Builds the documentation as a site, output/site/index.html; or shows it while it is being written:
#   bash scripts/docs.sh [serve]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
export NO_MKDOCS_2_WARNING=1
if [ "${1:-}" = serve ]; then exec python -m mkdocs serve; fi
python -W ignore -m mkdocs build --strict --quiet
echo "output/site/index.html"
