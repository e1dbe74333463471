# Sourced by the scripts for MONAI Label: creates a virtual environment with the server and this package, if there is
# none or requirements have changed.
# SEGAN_MONAI_LABEL_VENV: folder of the environment (default .venv-monailabel). PYTHON: interpreter (default python3).
# Several checkouts can share the folder: each installs itself into it, which takes seconds.
VENV="${SEGAN_MONAI_LABEL_VENV:-.venv-monailabel}"
STAMP="$VENV/segan_monai_installed"
WANTED="$(cat setup.cfg requirements-monailabel.txt constraints-monailabel.txt | cksum)"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
    if ! "${PYTHON:-python3}" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))'; then
        echo "error: ${PYTHON:-python3} is $("${PYTHON:-python3}" -V); MONAI Label 0.8.5 needs Python 3.10, 3.11 or 3.12." \
            "Set PYTHON to one of these: PYTHON=python3.11 bash $0 ..." >&2
        exit 1
    fi
    echo "installing MONAI Label into $VENV (first time only)"
    "${PYTHON:-python3}" -m venv "$VENV"
    pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -c constraints-monailabel.txt)
    "${pip[@]}" -r requirements-monailabel.txt -e .
    "${pip[@]}" --no-deps monailabel
    echo "$WANTED" > "$STAMP"
    echo "$PWD" > "$STAMP.checkout"
fi
if [ "$(cat "$STAMP.checkout" 2>/dev/null)" != "$PWD" ]; then
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
    echo "$PWD" > "$STAMP.checkout"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
export PYTHONPATH="$PWD/scripts/monai_label"
if ! python -c "import torchvision" 2>/dev/null; then
    PYTHONPATH="$PYTHONPATH:$PWD/scripts/monai_label/cpu_torch"
fi
