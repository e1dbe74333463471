# Sourced by the other scripts: makes a virtual environment with this package and its tested versions, once.
# SEGAN_MONAI_VENV names the folder (default .venv); PYTHON the interpreter to make it with (default python3).
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
