#!/bin/sh
# The software engine's core under ThreadSanitizer, then under AddressSanitizer
# and UBSan: test/native/software-stress.cc. A report, or a wrong result, ends it
# with a code that is not 0. The programs are kept in build/sanitize, and built
# when a source is newer.
# Usage: scripts/sanitize-software.sh [SEED [ROUNDS] | --break]
set -eu
cd "$(dirname "$0")/.."
out=build/sanitize
mkdir -p "$out"
files="test/native/software-stress.cc native/support/wide_copy.cc"
for name in channel device engine injection post table; do files="$files native/software/$name.cc"; done
for sanitizer in thread address,undefined; do
  program="$out/software-$(echo "$sanitizer" | tr ',' '-')"
  if [ ! -e "$program" ] ||
    [ -n "$(find native test/native "$0" -name '*.[chs]*' -newer "$program" -print -quit)" ]; then
    # shellcheck disable=SC2086 # one word per file
    ${CXX:-g++} -std=c++20 -D_GNU_SOURCE -g -O1 -Wall -Wextra -fsanitize="$sanitizer" \
      -fno-sanitize-recover=undefined -Inative $files -o "$program.new" -pthread
    mv "$program.new" "$program"
  fi
done
code=0
for sanitizer in thread address-undefined; do
  echo "$sanitizer:"
  # TSan's shadow wants the addresses where kernels put them that randomize less.
  run=''
  if [ "$sanitizer" = thread ] && ! "$out/software-thread" 1 0 2>/dev/null; then run='setarch -R'; fi
  $run "$out/software-$sanitizer" "$@" || code=$?
done
exit "$code"
