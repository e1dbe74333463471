#!/usr/bin/env bash
# Builds containers/Dockerfile with buildah, without a registry, and segments a folder of images in the container:
#   apt-get install buildah debootstrap && bash scripts/test_containers.sh IMAGES [OPTION...]
# Needs root on Debian. The base image python:3.11-slim is replaced by Debian 12 with its Python 3.11.
# IMAGES: NIfTI files of hippocampi. Each OPTION goes to `buildah build`, such as --build-arg=TORCH_INDEX=URL.
# Takes 5 GB in TMPDIR and some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
for command in buildah debootstrap; do
    command -v "$command" > /dev/null || { echo "error: $command is not installed. Run: apt-get install buildah debootstrap" >&2; exit 1; }
done
[ -d "${1:-}" ] || { echo "error: '${1:-}' is no folder; expected a folder of hippocampus images in NIfTI format" >&2; exit 2; }
images="$(cd "$1" && pwd)"
shift

work="$(mktemp -d)"
export BUILDAH_ISOLATION=chroot # needs no more rights than a chroot
store() { buildah --root "$work/store" --runroot "$work/run" "$@"; }
trap 'store rm --all > /dev/null 2>&1 || true; rm -rf "$work"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/debian" > "$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; echo "error: debootstrap failed, see above" >&2; exit 1; }
ln -s python3 "$work/debian/usr/bin/python"
base="$(store from scratch)"
store add --quiet "$base" "$work/debian" / > /dev/null
store commit --quiet "$base" docker.io/library/python:3.11-slim > /dev/null
rm -rf "$work/debian"

store build --pull=never --network host --ignorefile containers/Dockerfile.dockerignore "$@" \
    --file containers/Dockerfile --tag segan-monai .

container="$(store from --pull=never segan-monai)"
mkdir -m 777 "$work/out"
in_container() { store run --user 1000 --volume "$images:/images:ro" --volume "$work/out:/work" "$container" -- "$@"; }
in_container segan-monai info
in_container segan-monai predict hippocampus -i /images -o label_maps
found="$(find "$work/out/label_maps" -name '*.nii.gz' | wc -l)"
wanted="$(find "$images" -maxdepth 1 -name '*.nii.gz' | wc -l)"
[ "$found" = "$wanted" ] || { echo "error: $found label maps of $wanted images" >&2; exit 1; }
echo "the image was built, and segmented $found images"
