# Sourced by the other scripts: creates a virtual environment with this package and the tested versions of its
# dependencies, if there is none or requirements have changed.
# SEGAN_MONAI_VENV: folder of the environment (default .venv). PYTHON: interpreter to create it with (default python3).
VENV="${SEGAN_MONAI_VENV:-.venv}"
STAMP="$VENV/segan_monai_installed"
WANTED="$(cat setup.cfg constraints.txt | cksum)"
if [ "$(cat "$STAMP" 2>/dev/null)" != "$WANTED" ]; then
    echo "installing into $VENV (first time only)"
    "${PYTHON:-python3}" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
    echo "$WANTED" > "$STAMP"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
