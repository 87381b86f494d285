#!/bin/bash
# What an installation consists of: its files, its pkg-config data, and no symbol but the public ones.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "failed: $*"; exit 1; }

DESTDIR=$work cmake --install "$TS_BUILD_DIR" --prefix /opt/ts >/dev/null
prefix=$work/opt/ts
for f in bin/tessera include/tessera.h; do
    [ -f "$prefix/$f" ] || fail "$f isn't installed"
done
lib=$(dirname "$(find "$prefix" -name libtessera.a)")
for f in libtessera.a libtessera.so pkgconfig/tessera.pc; do
    [ -e "$lib/$f" ] || fail "$f isn't installed"
done
for f in $(find "$prefix/include" -type f -printf '%P\n'); do
    [ "$f" = tessera.h ] || fail "include/$f has no business there"
done

export PKG_CONFIG_PATH=$lib/pkgconfig
version=$(sed -n 's/^#define TS_VERSION_[A-Z]* \([0-9]*\)$/\1/p' "$TS_SOURCE_DIR/include/tessera.h" | paste -sd.)
[ "$(pkg-config --modversion tessera)" = "$version" ] || fail "tessera.pc isn't of version $version"
[ "$(readlink "$lib/libtessera.so")" = "libtessera.so.${version%%.*}" ] || fail "the soname isn't the major version"

# The shared library exports what the header declares, all of it and nothing else.
sed -n 's/^TS_API .*[ *]\(ts_[a-z0-9_]*\)(.*/\1/p' "$TS_SOURCE_DIR/include/tessera.h" | sort >"$work/declared"
nm -D --defined-only "$lib/libtessera.so" | awk '{print $3}' | grep -v '^__\|^_init$\|^_fini$' | sort >"$work/exported"
[ -s "$work/declared" ] || fail "found no declaration in tessera.h"
diff "$work/declared" "$work/exported" || fail "exports differ from the header's declarations (<)"

# The header stands alone, in old C and in C++ where there is a compiler for it.
echo '#include <tessera.h>' >"$work/h.c"
cc -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include" "$work/h.c" || fail "not C99"
if command -v c++ >/dev/null; then
    c++ -x c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$prefix/include" "$work/h.c" ||
        fail "not C++11"
fi
echo "$(wc -l <"$work/declared") functions, version $version"
