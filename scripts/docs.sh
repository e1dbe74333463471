#!/usr/bin/env bash
# Builds the documentation site, output/site/index.html; with "serve", serves it and rebuilds on changes:
#   bash scripts/docs.sh [serve]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
export NO_MKDOCS_2_WARNING=1
if [ "${1:-}" = serve ]; then exec python -m mkdocs serve; fi
python -W ignore -m mkdocs build --strict --quiet
echo "output/site/index.html"
