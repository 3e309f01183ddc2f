#!/bin/sh
# Gathers in benchmarks/gpu/pack, which git ignores, what a GPU machine without a network lacks: spconv
# and the packages it and the host import, for Python 3.12 on x86-64, and the host's checkout.
#
#     sh benchmarks/gpu/pack.sh [FOLDER_OF_SCENES]
#
# FOLDER_OF_SCENES: real scans in the host's layout (dos-plugin ingest makes it), packed as well; a
# handful, for the whole shall stay below 60 MiB with the tree. POINTCEPT_ROOT names the checkout,
# PYTHON the interpreter whose pip downloads.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
POINTCEPT=${POINTCEPT_ROOT:-$HOME/.cache/dos-plugin/Pointcept}
PACK=benchmarks/gpu/pack
LIMIT_MIB=60

# The last two releases that belong together for CUDA 12; both carry their own runtime of it.
PACKAGES="spconv-cu126==2.3.8 cumm-cu126==0.7.11
    pccm==0.4.16 ccimport==0.4.4 fire==0.7.1 lark==1.3.1 portalocker==4.4.2 termcolor==3.3.0
    addict==2.4.0 tensorboardX==2.6.5 yapf==0.43.0 platformdirs==4.14.7 mmengine-lite==0.10.7
    torch-pointcloud==0.0.18 plyfile==1.1.5"

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir -p "$PACK"
# pip matches platform tags exactly.
"$PYTHON" -m pip install --quiet --no-deps --no-compile --only-binary=:all: --target "$site" \
    --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 $PACKAGES
rm -rf "$site/bin"
echo "packages: $(du -sm "$site" | cut -f1) MB, being packed"
tar -C "$site" -c . | xz -9 -T2 > "$PACK/site.tar.xz"
if [ -d "$POINTCEPT/pointcept" ]; then
    tar -C "$POINTCEPT" -c pointcept tools scripts configs LICENSE | xz -9 > "$PACK/pointcept.tar.xz"
else
    echo "no Pointcept checkout at POINTCEPT_ROOT or $POINTCEPT: steps on the real host will be skipped" >&2
fi
if [ $# -gt 0 ]; then
    tar -C "$1" -c . | xz -9 > "$PACK/scenes.tar.xz"
fi

tree=$(git ls-files -z | xargs -0 cat | wc -c)
packed=$(cat "$PACK"/*.tar.xz | wc -c)
ls -l "$PACK"/*.tar.xz | awk '{printf "%8.1f MiB  %s\n", $5 / 2^20, $NF}'
awk -v tree="$tree" -v packed="$packed" -v limit="$LIMIT_MIB" 'BEGIN {
    all = (tree + packed) / 2^20
    printf "%8.1f MiB  tracked files\n%8.1f MiB  together (limit %d)\n", tree / 2^20, all, limit
    exit all > limit
}'
