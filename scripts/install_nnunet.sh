#!/usr/bin/env bash
# Makes a virtual environment of its own for nnU-Net v2, for `python scripts/benchmark.py peers`:
#   bash scripts/install_nnunet.sh
# It reads PyTorch, numpy and the like from this project's environment, so both sides compute with the same ones, and
# installs the rest, 250 MB, beside; this project's environment stays as it is.
# SEGAN_MONAI_NNUNET_VENV names the folder (default .venv-nnunet); PYTHON the interpreter of this project's environment
# (default .venv/bin/python, which scripts/test.sh and scripts/demo.sh make).
set -euo pipefail
cd "$(dirname "$0")/.."
VENV="${SEGAN_MONAI_NNUNET_VENV:-.venv-nnunet}"
PYTHON="${PYTHON:-.venv/bin/python}"
if ! packages="$("$PYTHON" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')"; then
    echo "error: $PYTHON has no PyTorch. Name the interpreter that this project is installed for: PYTHON=... bash $0" >&2
    exit 1
fi
"$PYTHON" -m venv --clear "$VENV"
own="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
echo "$packages" > "$own/segan_monai_packages.pth"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-nnunet.txt nnunetv2
"$VENV/bin/python" -c 'import importlib.metadata as m; print("nnunetv2", m.version("nnunetv2"), "beside torch", m.version("torch"))'
