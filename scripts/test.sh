#!/bin/bash
# test.sh - everything that must hold before a change lands.
#
#     scripts/test.sh             what CI runs: layout, build, tests, sanitizers, fuzzers
#     scripts/test.sh --quick     build and tests only
#     scripts/test.sh --models    the larger models too (1.4 GB to fetch)
#     scripts/test.sh --fuzz N    N seconds for each fuzzer, 30 unless told
set -euo pipefail
. "$(dirname "$0")/setup.sh"
cd "$ts_root"

quick=false models=false fuzz_seconds=30
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=true ;;
    --models) models=true ;;
    --fuzz)
        [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || die "--fuzz wants a number of seconds, not '${2:-}'"
        fuzz_seconds=$2
        shift
        ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit ;;
    *) die "unknown option '$1'; known are --quick, --models and --fuzz" ;;
    esac
    shift
done

logs=$ts_root/build/logs
mkdir -p "$logs"
summary=()

# step NAME COMMAND...: says what runs, keeps its time; a failure ends the script.
step()
{
    local name=$1 start=$SECONDS
    shift
    say "$name"
    "$@" || die "failed: $name"
    summary+=("$(printf '%4d s  %s' $((SECONDS - start)) "$name")")
}

tools()
{
    if $quick; then ts_install; else ts_install tests fuzz; fi
}

# A model named in TS_TEST_MODELS must be there: its tests fail rather than skip.
fetch()
{
    local path
    path=$(ts_default_model) || return 1
    case $path in
    *SmolLM2*) TS_TEST_MODELS=smollm2 ;;
    *) TS_TEST_MODELS=gemma3 ;;
    esac
    if $models; then
        ts_model gemma3 qwen2 >/dev/null || return 1
        TS_TEST_MODELS="$TS_TEST_MODELS gemma3 qwen2"
    fi
    export TS_TEST_MODELS
}

# The chat templates of real models: without the network their test is skipped, which is said.
templates()
{
    if python3 scripts/fetch_templates.py >/dev/null; then
        export TS_TEST_TEMPLATES=1
    else
        say "the chat templates can't be had: the test jinja_templates is skipped"
    fi
}

layout()
{
    local format
    format=$(ts_clang_format)
    git ls-files -z '*.c' '*.h' '*.cu' '*.cpp' | xargs -0 "$format" --dry-run -Werror
}

build() # PRESET
{
    cmake --preset "$1" >"$logs/$1-configure.log" || { cat "$logs/$1-configure.log"; return 1; }
    cmake --build --preset "$1" -- --quiet
}

build_fuzz() { CC=$(ts_clang) build fuzz; }

# Each fuzzer from its seeds, all at a time; new inputs go to build/fuzz. A finding fails the step and
# stays in build/fuzz/findings.
fuzz()
{
    local found=build/fuzz/findings source name pids=() names=() i rc=0
    mkdir -p "$found"
    for source in tests/fuzz/fuzz_*.c; do
        name=$(basename "$source" .c)
        name=${name#fuzz_}
        mkdir -p "build/fuzz/corpus/$name"
        # a second under sanitizers is several where all of them share two CPUs
        options=(-max_total_time="$fuzz_seconds" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1
            -artifact_prefix="$found/$name-")
        if [ -f "tests/fuzz/$name.dict" ]; then options+=(-dict="tests/fuzz/$name.dict"); fi
        "build/fuzz/tests/fuzz/fuzz_$name" "${options[@]}" "build/fuzz/corpus/$name" "tests/fuzz/corpus_$name" \
            >"$logs/fuzz_$name.log" 2>&1 &
        pids+=($!)
        names+=("$name")
    done
    [ ${#pids[@]} -gt 0 ] || { echo "there is no fuzzer"; return 1; }
    for i in "${!pids[@]}"; do
        name=${names[$i]}
        if wait "${pids[$i]}"; then
            echo "fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/fuzz_$name.log") inputs, no finding"
        else
            tail -n 40 "$logs/fuzz_$name.log"
            rc=1
        fi
    done
    return $rc
}

tests() { ctest --preset ci -j "$(nproc)" | tee "$logs/ctest.log"; }

step "tools" tools
step "model" fetch
step "chat templates" templates
if ! $quick; then step "layout (clang-format)" layout; fi
step "build, gcc, warnings are errors" build ci
step "tests" tests
if ! $quick; then
    step "build with sanitizers" build asan
    step "tests under AddressSanitizer and UndefinedBehaviorSanitizer" ctest --preset asan -j "$(nproc)"
    step "build with ThreadSanitizer" build tsan
    step "pool, engine and scheduler under ThreadSanitizer" ctest --preset tsan -j "$(nproc)"
    step "build with clang and the fuzzers" build_fuzz
    step "fuzzers, $fuzz_seconds s each" fuzz
fi
say "all passed in $((SECONDS / 60)) min $((SECONDS % 60)) s"
printf '%s\n' "${summary[@]}" >&2
sed -n '/% tests passed/,$p' "$logs/ctest.log"
