#!/usr/bin/env bash
# Tests, measures and trains on a GPU, in at most 8 minutes and without a network:
#   bash scripts/gpu_check.sh --collect [DIR]   first, where there is a network: downloads the wheels below to .gpu_wheels,
#                                               and copies the hippocampus data (Task04_Hippocampus) from DIR to .gpu_data
#   bash scripts/gpu_check.sh                   on the machine with the GPU, in a copy of this folder
#   bash scripts/gpu_check.sh --cpu             the same parts in miniature, on a CPU
# --part NAME: only this part; may be repeated. The names are in the plan that it prints.
# --data DIR: folder of the hippocampus data (default: .gpu_data, then SEGAN_MONAI_DATA/msd_hippocampus).
# PYTHON: interpreter with a CUDA build of PyTorch (default python3). Packages that it lacks are installed from
# .gpu_wheels into a temporary folder.
# OUT: folder of gpu_check.json and gpu_check.log (default output/gpu_check).
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"

# What an image with PyTorch, pytest, pandas, tensorboard, matplotlib, typer and onnx lacks. SimpleITK, itk-io and nilearn
# (200 MB) are not needed for NIfTI.
wheels=(monai==1.6.1 pytorch-ignite==0.5.5 nibabel==5.4.2 fire==0.7.1 termcolor==3.3.0 jsonschema==4.26.0
    jsonschema-specifications==2025.9.1 referencing==0.37.0)
compiled=(rpds-py==2026.9.1)
largest_mib=45

if [ "${1:-}" = --collect ]; then
    if [ $# -gt 1 ] && [ ! -f "$2/dataset.json" ]; then
        echo "error: $2 has no dataset.json; expected Task04_Hippocampus" >&2
        exit 1
    fi
    mkdir -p .gpu_wheels .gpu_data
    download() { "$python" -m pip download --quiet --no-deps --only-binary=:all: --dest .gpu_wheels "$@"; }
    download "${wheels[@]}"
    for version in 3.11 3.12 3.13; do
        download --python-version "$version" --implementation cp --platform manylinux_2_28_x86_64 \
            --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 "${compiled[@]}"
    done
    if [ $# -gt 1 ]; then
        cp -r "$2/dataset.json" "$2/imagesTr" "$2/labelsTr" .gpu_data
    fi
    # bytes of the files, not of the blocks that they fill
    found=$(find .gpu_wheels .gpu_data -type f -printf '%s\n' | awk '{sum += $1} END {print int(sum / 2^20) + 1}')
    echo "$found MiB in .gpu_wheels and .gpu_data"
    if [ "$found" -gt "$largest_mib" ]; then echo "error: expected at most $largest_mib MiB" >&2; exit 1; fi
    exit
fi

started=$SECONDS
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
missing=()
for pair in monai:monai ignite:pytorch-ignite nibabel:nibabel fire:fire termcolor:termcolor jsonschema:jsonschema \
    jsonschema_specifications:jsonschema-specifications referencing:referencing rpds:rpds-py; do
    "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('${pair%%:*}') is None)" ||
        missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]} from .gpu_wheels"
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --find-links .gpu_wheels --target "$site" \
        "${missing[@]}"
fi
export PYTHONPATH="$PWD:$site" PYTHONUTF8=1 PYTHONUNBUFFERED=1
"$python" scripts/gpu_check/run.py --since "$((SECONDS - started))" "$@"
