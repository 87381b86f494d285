#!/bin/bash
# examples/simple.c as a stranger builds it: an installed library, pkg-config, shared and static; both
# programs give the same text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "failed: $*"; exit 1; }

cmake --install "$TS_BUILD_DIR" --prefix "$work/ts" >/dev/null
lib=$(dirname "$(find "$work/ts" -name libtessera.a)")
export PKG_CONFIG_PATH=$lib/pkgconfig
compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$TS_BUILD_DIR/CMakeCache.txt")
flags=(-std=c11 -O2 -Wall -Wextra -Wpedantic -Werror)
sanitize=$(sed -n 's/^TS_SANITIZE:STRING=//p' "$TS_BUILD_DIR/CMakeCache.txt")
if [ -n "$sanitize" ]; then flags+=("-fsanitize=$sanitize"); fi

build() # NAME PKG-CONFIG-OPTION...
{
    local name=$1
    shift
    # shellcheck disable=SC2046
    "$compiler" "${flags[@]}" "$TS_SOURCE_DIR/examples/simple.c" -o "$work/$name" \
        $(pkg-config "$@" --cflags --libs tessera)
}

build shared
# grep -q on a pipe may end before ldd does, which pipefail takes for a failure
ldd "$work/shared" >"$work/needs"
grep -q libtessera "$work/needs" || fail "the first build doesn't use the shared library"
mkdir "$work/so" && mv "$lib"/libtessera.so* "$work/so"
build static --static
ldd "$work/static" >"$work/needs"
! grep -q libtessera "$work/needs" || fail "the second build uses the shared library"

"$TESSERA" synth --arch llama --preset tiny --type Q4_0 --seed 1 -o "$work/tiny.gguf" >/dev/null 2>&1
LD_LIBRARY_PATH=$work/so "$work/shared" "$work/tiny.gguf" "a tile of a mosaic" 16 >"$work/a"
"$work/static" "$work/tiny.gguf" "a tile of a mosaic" 16 >"$work/b"
cmp "$work/a" "$work/b" || fail "the two programs disagree"
[ "$(wc -c <"$work/a")" -gt 1 ] || fail "no text"

# An error is a sentence and exit status 1.
if "$work/static" "$work/nothing.gguf" "x" 2>"$work/err"; then fail "a missing model is no error"; fi
grep -q nothing.gguf "$work/err" || fail "the error doesn't name the file"

model=${XDG_CACHE_HOME:-$HOME/.cache}/tessera/models/SmolLM2-135M-Instruct.Q4_1.gguf
if [ -r "$model" ]; then
    "$work/static" "$model" "The capital of France is" 16 >"$work/a"
    grep -q Paris "$work/a" || { cat "$work/a"; fail "SmolLM2 doesn't know the capital of France"; }
    cat "$work/a"
fi
