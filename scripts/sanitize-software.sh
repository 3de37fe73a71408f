#!/bin/sh
# Runs the software engine's core under ThreadSanitizer and AddressSanitizer.
# Usage: scripts/sanitize-software.sh [SEED [ROUNDS]]
set -eu
cd "$(dirname "$0")/.."
out=build/sanitize
mkdir -p "$out"
sources="channel device engine injection post table"
files="native/support/wide_copy.cc"
for name in $sources; do files="$files native/software/$name.cc"; done
for sanitizer in thread address,undefined; do
  program="$out/software-$(echo "$sanitizer" | tr ',' '-')"
  ${CXX:-g++} -std=c++20 -D_GNU_SOURCE -g -O1 -Wall -Wextra -fsanitize="$sanitizer" \
    -Inative $files test/native/software-stress.cc -o "$program" -pthread
  echo "$sanitizer:"
  "$program" "$@"
done
