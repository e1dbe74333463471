#!/usr/bin/env bash
# Creates a separate virtual environment with nnU-Net v2 for `python scripts/benchmark.py peers`:
#   bash scripts/install_nnunet.sh
# It uses PyTorch, NumPy and other packages of this project's environment, so that both sides run the same versions, and
# installs the remaining 250 MB. This project's environment is not changed.
# SEGAN_MONAI_NNUNET_VENV: folder of the environment (default .venv-nnunet).
# PYTHON: interpreter of this project's environment (default .venv/bin/python, created by scripts/test.sh and
# scripts/demo.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
VENV="${SEGAN_MONAI_NNUNET_VENV:-.venv-nnunet}"
PYTHON="${PYTHON:-.venv/bin/python}"
if ! packages="$("$PYTHON" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')"; then
    echo "error: $PYTHON has no PyTorch. Set PYTHON to the interpreter of this project's environment: PYTHON=... bash $0" >&2
    exit 1
fi
"$PYTHON" -m venv --clear "$VENV"
own="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
echo "$packages" > "$own/segan_monai_packages.pth"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-nnunet.txt nnunetv2
"$VENV/bin/python" -c 'import importlib.metadata as m; print("nnunetv2", m.version("nnunetv2"), "with torch", m.version("torch"))'
