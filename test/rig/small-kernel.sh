#!/bin/sh
# Builds a small kernel of Debian's sources for `p2pdma rig --kernel`, once, in the
# rig's cache folder, and prints its tree: some ten minutes of both CPUs of a small machine, no part of the tests.
#
#   test/rig/small-kernel.sh     afterwards: npm run rig -- --kernel TREE -- uname -r
#
# It needs flex, bison, bc and libelf-dev, beside what ./setup has installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/p2pdma
folder=$cache/small-kernel
tree=$folder/tree

for program in flex bison bc; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2 && exit 1; }
done
mkdir -p "$tree"
cd "$folder"
source=$(find . -maxdepth 1 -name 'linux-source-*' -type d | sort | tail -1)
if [ -z "$source" ]; then
  # The rig's own apt: over the suite that its kernel is from, see lib/rig/apt.ts.
  export APT_CONFIG="$cache/apt-toolchain/apt.conf"
  [ -e "$APT_CONFIG" ] || { echo 'first: p2pdma rig --setup --iommufd' >&2 && exit 1; }
  name=$(apt-cache pkgnames linux-source-7 | sort -V | tail -1)
  apt-get download -q "$name" >&2
  dpkg-deb --fsys-tarfile "$name"_*.deb | tar -xO "./usr/src/$name.tar.xz" | tar -xJ
  rm "$name"_*.deb
  source=./$name
fi
if [ ! -e "$tree/.config" ]; then
  make -s -C "$source" "O=$tree" tinyconfig >&2
  "$source/scripts/kconfig/merge_config.sh" -m -O "$tree" "$tree/.config" "$here/small.config" >&2
  make -s -C "$tree" olddefconfig >&2
fi
make -C "$tree" "-j$(nproc)" bzImage modules >"$folder/log" 2>&1 || { tail "$folder/log" >&2; exit 1; }
echo "$tree"
