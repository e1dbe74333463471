#!/usr/bin/env bash
# Trains SegAN and writes NIfTI label maps in minutes, on two CPU cores:
#   bash scripts/demo.sh        on simulated tumours in the MNI152 brain (no download)
#   bash scripts/demo.sh DIR    on your own BraTS or Medical Segmentation Decathlon folder
# DEMO_DIR: output folder (default: demo).
set -euo pipefail
data="${1:+$(cd "$1" && pwd)}"
cd "$(dirname "$0")/.."
EXTRA=phantoms source scripts/install.sh
out="${DEMO_DIR:-demo}"
bundle=bundles/brats_mri_segan_segmentation
overlay=configs/quick_cpu.json

if [ -z "$data" ]; then
    data="$out/simulated"
    if [ ! -d "$data" ]; then segan-monai phantoms "$data" --cases 40 --spacing 2; fi
elif grep -qsi hippocampus "$data/dataset.json"; then
    bundle=bundles/hippocampus_mri_segan_segmentation
    overlay=configs/cpu.json
fi

run() {
    python -m monai.bundle run "$1" --config_file "['$bundle/configs/$2.json','$overlay']" --bundle_root "$bundle" \
        --meta_file "$bundle/configs/metadata.json" --logging_file "$bundle/configs/logging.conf" \
        --dataset_dir "$data" --ckpt_dir "$out/models" --output_dir "$out/$1" "${@:3}" \
        | grep --line-buffered -v -e ' - INFO - ' -e '^$'
}
mkdir -p "$out"
echo; echo "== training segmentor and critics with the multi-scale L1 loss"
run training train
echo; echo "== evaluating the held-out cases"
run evaluating evaluate --subset validation
echo; echo "label maps (NIfTI):  $out/evaluating/*_seg.nii.gz"
echo "metrics:             $out/evaluating/metrics.csv, $out/evaluating/summary.json"
echo "overlay picture:     $out/evaluating/overlay.png"
