#!/usr/bin/env bash
# Makes the files of a release in dist/: wheel, source archive, one zip per bundle, SHA256SUMS, and for the hubs a model
# card and large_files.yml per bundle. Nothing is uploaded, and no tag is made.
#   bash scripts/release.sh --hub URL [--summary BUNDLE=summary.json]
#   bash scripts/release.sh --trial [--hub URL] [--summary BUNDLE=summary.json]
# Stops before it removes the last dist/ if versions, tag and CHANGELOG.md disagree; --trial allows unreleased changes.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
if [ -n "$(git status --porcelain)" ]; then
    echo "error: the checkout has changes that are not committed; a release is made of a commit." >&2
    exit 1
fi
case " $* " in *" -h "* | *" --help "*) exec python -m scripts.release --help ;; esac
python -m scripts.release dist --check "$@"
rm -rf dist
mkdir dist
source_dir="$(mktemp -d)"
trap 'rm -rf "$source_dir"' EXIT
git archive HEAD | tar -x -C "$source_dir"
build='import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])'
for hook in build_wheel build_sdist; do
    (cd "$source_dir" && python -c "$build" "$hook" "$OLDPWD/dist") > /dev/null
done
python -m scripts.release dist "$@"
