#!/usr/bin/env bash
# Serves a bundle to 3D Slicer, OHIF and other clients of MONAI Label (docs/monai_label.md):
#   bash scripts/monai_label.sh BUNDLE STUDIES [OVERLAY.json ...]
# BUNDLE: name or folder, with trained weights in models, see below. STUDIES: folder of images, or URL of a DICOMweb server.
# OVERLAY: config files that the weights were trained with. The server listens on 127.0.0.1 only. It needs no network
# once installed: the package dcmqi has the program for DICOM-SEG that MONAI Label downloads otherwise.
# SEGAN_MONAI_LABEL_PORT: port (default 8000). SEGAN_MONAI_LABEL_APP: folder of the app (default
# output/monai_label/<bundle>), with the served copy of the bundle, which training from a viewer changes.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,8s/^# //p' "$0" >&2; exit 2; fi
absolute() { if [ -e "$1" ]; then realpath "$1"; else echo "$1"; fi; }
bundle="$(absolute "$1")"
studies="$(absolute "$2")"
overlays=()
for overlay in "${@:3}"; do overlays+=("$(absolute "$overlay")"); done
app="$(realpath -m "${SEGAN_MONAI_LABEL_APP:-$(dirname "$0")/../output/monai_label/$(basename "$bundle")}")"
cd "$(dirname "$0")/.."

if [ ! -d "$bundle" ]; then bundle="bundles/$(basename "$bundle")"; fi
name="$(basename "$bundle")"
if [ ! -f "$bundle/configs/inference.json" ]; then
    echo "error: there is no bundle $1. Give the folder of a bundle, or one of $(ls -x bundles | tr -s ' \n' ' ')" >&2
    exit 1
fi
if [ ! -f "$bundle/models/model.pt" ] && [ ! -f "$app/model/$name/models/model.pt" ] \
    && ! ls "$bundle"/models/fold_*/model.pt > /dev/null 2>&1 \
    && ! grep -qs '"weights": *\[' "$bundle/configs/inference.json" ${overlays[@]+"${overlays[@]}"} \
    && ! grep -qs '"included_weights_dir"' /dev/null ${overlays[@]+"${overlays[@]}"}; then
    cat >&2 <<MESSAGE
error: $bundle has no trained weights (models/model.pt, or models/fold_0/model.pt and so on). Without them, MONAI Label lists no model.
Train the bundle, which writes them there:
    python -m monai.bundle run training --config_file $bundle/configs/train.json --bundle_root $bundle --dataset_dir DIR \\
        --ckpt_dir $bundle/models
or copy model.pt from the output_dir of a training run to $bundle/models/.
$bundle/docs/README.md describes the data that the bundle takes.
MESSAGE
    exit 1
fi
case "$studies" in
http://* | https://*) ;;
*) if [ ! -d "$studies" ]; then echo "error: there is no folder $2 of studies. Create it and add images." >&2; exit 1; fi ;;
esac

source scripts/install_monai_label.sh
if [ ! -f "$app/main.py" ]; then
    mkdir -p "$(dirname "$app")"
    monailabel apps --download --name monaibundle --output "$app.download" > /dev/null
    mkdir -p "$app"
    cp -r "$app.download/monaibundle/." "$app"
    rm -r "$app.download"
fi
python -m segan_monai.label_bundle "$bundle" "$app/model" ${overlays[@]+"${overlays[@]}"}
export MONAI_LABEL_TRACKING_ENABLED=false
# list series of the bundle's modality on a DICOMweb server; the default of MONAI Label is CT
modality="$(python -c 'import json, sys
image = json.load(open(sys.argv[1]))["network_data_format"]["inputs"]["image"]
print(image.get("modality", "CT"))' "$bundle/configs/metadata.json")"
export MONAI_LABEL_DICOMWEB_SEARCH_FILTER="${MONAI_LABEL_DICOMWEB_SEARCH_FILTER:-{\"Modality\": \"$modality\"\}}"
exec monailabel start_server --app "$app" --studies "$studies" --host 127.0.0.1 --port "${SEGAN_MONAI_LABEL_PORT:-8000}" \
    --uvicorn_app label_server:app --conf models "$name" --conf zoo_source local --conf preload false --conf sam2 false
