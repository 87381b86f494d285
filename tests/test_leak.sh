#!/bin/bash
# Nothing leaks, and no byte is read before it is written: load, generate, close under valgrind.
set -euo pipefail
command -v valgrind >/dev/null || { echo "skipped: valgrind isn't installed"; exit 77; }
if grep -q '^TS_SANITIZE:STRING=.\+' "$TS_BUILD_DIR/CMakeCache.txt"; then
    echo "skipped: a sanitizer's build doesn't run under valgrind"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() # NAME COMMAND...
{
    local name=$1
    shift
    if ! valgrind --quiet --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
        --error-exitcode=9 "$@" >"$work/out" 2>"$work/err"; then
        echo "failed: $name"
        tail -n 40 "$work/err"
        return 1
    fi
    echo "$name: clean"
}

# Each kind of step once; what the other architectures are made of is the same code.
for arch in llama qwen2moe gemma2 command-r phi3 gpt-oss deepseek2; do
    "$TESSERA" synth --arch $arch --preset tiny --type Q4_K_M --seed 1 -o "$work/$arch.gguf" >/dev/null 2>&1
    check "run $arch" "$TESSERA" run -m "$work/$arch.gguf" -p "a tile of a mosaic" -n 4 -c 64 -ub 8 -t 2 \
        --temp 0.9 --seed 3 --repeat-penalty 1.1
done
check "run --isa ref" "$TESSERA" run -m "$work/llama.gguf" -p "a" -n 4 -c 64 -t 1 --temp 0 --isa ref
for what in write read; do
    check "run --pack-cache, $what" "$TESSERA" run -m "$work/llama.gguf" -p "a" -n 4 -c 64 -t 2 --temp 0 \
        --pack-cache "$work/cache"
done
check "plan" "$TESSERA" plan -m "$work/llama.gguf" --json
check "inspect" "$TESSERA" inspect "$work/llama.gguf"
