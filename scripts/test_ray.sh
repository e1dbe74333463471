#!/usr/bin/env bash
# Tests --ray on a cluster of two real nodes on this machine, one of which is killed, and segan-monai sweep:
#   bash scripts/test_ray.sh
# Installs the extra `ray` into the environment of scripts/install.sh (400 MB more). .ci/run does not call this script;
# its tests run there too if Ray is installed. Takes some minutes. Arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
if ! python -c "import ray, optuna" 2> /dev/null; then
    python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray]"
fi
exec python -m pytest tests/reproduce/test_cluster.py tests/sweep "$@"
