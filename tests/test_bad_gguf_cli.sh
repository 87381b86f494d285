#!/usr/bin/env bash
# Malformed models on the command line: exit status 1, exactly one line on stderr, nothing on stdout.
# Every file of badgguf_cases.c that the loader refuses goes through `tessera inspect`, every other through
# `tessera plan`; `run`, `tokenize`, `bench` and `perplexity` see one each.
set -u

tessera=${TESSERA:?path of the tessera program}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0

# refused FRAGMENT COMMAND...
refused() {
    local fragment=$1 status
    shift
    timeout 20 "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
    if [ "$status" -eq 1 ] && [ "$(wc -l <"$dir/err")" -eq 1 ] && [ ! -s "$dir/out" ] &&
        grep -qF -- "$fragment" "$dir/err" && ! LC_ALL=C grep -q '[^ -~]' "$dir/err"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $*: status $status, expected '$fragment', stderr:" >&2
        cat -v "$dir/err" >&2
    fi
}

"${TS_BUILD_DIR:?build folder}/tests/test_bad_gguf" --write "$dir" >"$dir/list" || exit 1
while read -r name level fragment; do
    model=$dir/$name.gguf
    if [ "$level" = file ]; then
        refused "$fragment" "$tessera" inspect "$model"
    else
        refused "$fragment" "$tessera" plan -m "$model"
    fi
done <"$dir/list"

bad=$dir/data-cut.gguf
refused "$bad" "$tessera" inspect "$bad" --json
refused "$bad" "$tessera" run -m "$bad" -p hello
refused "$bad" "$tessera" tokenize -m "$bad" -p hello
refused "$bad" "$tessera" plan -m "$bad" --json
refused "$bad" "$tessera" bench -m "$bad"
echo text >"$dir/text"
refused "$bad" "$tessera" perplexity -m "$bad" -f "$dir/text"
refused "this is a directory" "$tessera" run -m "$dir" -p hello
refused "No such file" "$tessera" run -m "$dir/absent.gguf" -p hello

echo "bad_gguf_cli: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 60 ]
