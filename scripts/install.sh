# Sourced by the other scripts: creates a virtual environment with this package and the tested versions of its
# dependencies, if there is none or requirements have changed.
# SEGAN_MONAI_VENV: folder of the environment (default .venv). PYTHON: interpreter to create it with (default python3).
# EXTRA: what a new environment has beside the package: dev (default, everything) or phantoms (what the demo needs).
VENV="${SEGAN_MONAI_VENV:-.venv}"
EXTRA="${EXTRA:-dev}"
STAMP="$VENV/segan_monai_installed"
# Else every process of the tests would compile what it imports: 5 s of CPU time for MONAI
unset PYTHONDONTWRITEBYTECODE
WANTED="$(cat setup.cfg constraints.txt | cksum)"
case "$(cat "$STAMP" 2>/dev/null)" in
    "$WANTED dev" | "$WANTED $EXTRA") ;;
    *)
        echo "installing into $VENV (first time only)"
        "${PYTHON:-python3}" -m venv "$VENV"
        # Python compiles what it imports; compiling everything beforehand takes longer than the rest of the installation
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[$EXTRA]"
        echo "$WANTED $EXTRA" > "$STAMP"
        ;;
esac
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
