#!/bin/bash
# Peak resident memory of a run on SmolLM2 stays within file + KV + 100 MB; says how long loading took.
set -euo pipefail
model=${XDG_CACHE_HOME:-$HOME/.cache}/tessera/models/SmolLM2-135M-Instruct.Q4_1.gguf
if grep -q '^TS_SANITIZE:STRING=.\+' "$TS_BUILD_DIR/CMakeCache.txt"; then
    echo "skipped: a sanitizer's shadow memory counts too"
    exit 77
fi
if [ ! -r "$model" ]; then
    [[ " ${TS_TEST_MODELS:-} " != *" smollm2 "* ]] || { echo "TS_TEST_MODELS wants $model"; exit 1; }
    echo "skipped: $model isn't there"
    exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run_peak() # CTX OPTION...: sets peak_kb
{
    local ctx=$1
    shift
    peak_kb=$(python3 - "$TESSERA" run -m "$model" -p "Once upon a time" -n 32 --temp 0 -t 2 -c "$ctx" "$@" 2>"$work/err" <<'PY'
import os, sys
pid = os.fork()
if pid == 0:
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
PY
    ) || { cat "$work/err"; exit 1; }
}

# K and V: 30 layers, 3 heads of 64, 2 bytes, for both.
failed=0
for case in "512" "4096" "4096 --isa ref"; do
    read -r ctx options <<<"$case"
    # shellcheck disable=SC2086
    run_peak "$ctx" $options
    file=$(stat -Lc %s "$model")
    kv=$((ctx * 30 * 2 * 3 * 64 * 2))
    limit_kb=$(((file + kv + 100000000) / 1024))
    echo "-c $case: peak $((peak_kb / 1024)) MiB, limit $((limit_kb / 1024)) MiB; $(grep "^load" "$work/err" | tr -s " ")"
    [ "$peak_kb" -le "$limit_kb" ] || { echo "failed: -c $case takes more memory than allowed"; failed=1; }
done
exit $failed
