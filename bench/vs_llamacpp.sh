#!/bin/bash
# vs_llamacpp.sh - tessera bench and llama-bench on the same files, in turns, as a Markdown table.
#
#     bench/vs_llamacpp.sh [-t THREADS] [-p PROMPT] [-n GEN] [-r ROUNDS] [--types | MODEL.gguf ...]
#
# Without models: SmolLM2-135M-Instruct and two synth models of a Llama 1B's shape, Q4_0 and Q4_K_M; with
# --types: one of every type instead. Each round runs both programs on each model, the one that went second
# going first in the next; the table has the median over rounds and the range. llama.cpp's activations have 8 bits
# and Tessera's 15; the rows "prefill int8" are Tessera's with 8 bits too (--prefill int8).
#
# LLAMA_BENCH=PATH uses that llama-bench. Otherwise llama.cpp is taken from the source package llama-cpp-python
# and built for this machine (needs a C++ compiler; once, about ten minutes) under the cache folder.
# TESSERA=PATH uses that tessera; otherwise build/release is built.
set -euo pipefail
. "$(dirname "$0")/../scripts/setup.sh"
cd "$ts_root"

LLAMA_PACKAGE=llama-cpp-python LLAMA_VERSION=0.3.36
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tessera
threads=$(nproc) n_prompt=512 n_gen=128 rounds=5 types=false
models=()

number() { [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || die "$1 wants a number, not '${2:-}'"; }
while [ $# -gt 0 ]; do
    case $1 in
    -t) number "$@"; threads=$2; shift ;;
    -p) number "$@"; n_prompt=$2; shift ;;
    -n) number "$@"; n_gen=$2; shift ;;
    -r) number "$@"; rounds=$2; shift ;;
    --types) types=true ;;
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit ;;
    -*) die "unknown option '$1'; known are -t -p -n -r --types" ;;
    *) [ -r "$1" ] || die "can't read $1"; models+=("$(realpath "$1")") ;;
    esac
    shift
done

build_llama()
{
    local home=$cache/llama.cpp-$LLAMA_VERSION
    LLAMA_BENCH=$home/build/bin/llama-bench
    if [ -x "$LLAMA_BENCH" ]; then return; fi
    have c++ || die "building llama.cpp needs a C++ compiler (package g++); or set LLAMA_BENCH"
    say "building llama.cpp from $LLAMA_PACKAGE $LLAMA_VERSION in $home"
    mkdir -p "$home"
    python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$home" \
        "$LLAMA_PACKAGE==$LLAMA_VERSION"
    tar -xzf "$home"/*.tar.gz -C "$home" --strip-components=1
    cmake -S "$home/vendor/llama.cpp" -B "$home/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF >"$home/configure.log"
    cmake --build "$home/build" --target llama-bench >"$home/build.log"
}

ts_install
if [ -z "${TESSERA:-}" ]; then
    say "building build/release"
    cmake --preset release >/dev/null
    cmake --build --preset release --target tessera -- --quiet
    TESSERA=build/release/tessera
fi
if [ -z "${LLAMA_BENCH:-}" ]; then build_llama; fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/vs-XXXXXX")
trap 'rm -rf "$work"' EXIT

synth() # TYPE [OPTION]
{
    local file="$work/synth-1b-$1.gguf"
    "$TESSERA" synth --arch llama --preset 1b --type "$@" --seed 1 -o "$file" >&2
    models+=("$file")
}
if [ ${#models[@]} = 0 ]; then
    if $types; then
        for t in F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4; do
            synth $t --pure
        done
    else
        models+=("$(ts_default_model)")
        synth Q4_0
        synth Q4_K_M
    fi
fi

llama=("$LLAMA_BENCH" -p "$n_prompt" -n "$n_gen" -t "$threads" -r 1 -ngl 0 -o json)
tessera=("$TESSERA" bench -p "$n_prompt" -n "$n_gen" -t "$threads" -r 1 -o json)
int8=("$TESSERA" bench -p "$n_prompt" -n 0 -t "$threads" -r 1 -o json --prefill int8)
for round in $(seq "$rounds"); do
    for i in "${!models[@]}"; do
        m=${models[$i]}
        say "round $round of $rounds: $(basename "$m")"
        order=(llama tessera int8)
        if [ $((round % 2)) = 0 ]; then order=(int8 tessera llama); fi
        for who in "${order[@]}"; do
            declare -n command=$who
            "${command[@]}" -m "$m" >"$work/$i-$round-$who.json" 2>"$work/stderr" ||
                { cat "$work/stderr" >&2; die "$who failed on $m"; }
        done
    done
done

python3 - "$work" "$rounds" "$(date -u +%Y-%m-%d)" "${llama[*]}" "${tessera[*]}" "${models[@]}" <<'PY'
import json
import os
import re
import statistics
import subprocess
import sys

work, rounds, date, llama, tessera = sys.argv[1:6]
models, build = sys.argv[6:], ""

with open("/proc/cpuinfo", encoding="utf-8") as f:
    cpu = re.search(r"model name\s*: (.*)", f.read()).group(1)
commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)


def speeds(i, who, n_prompt):
    """t/s of the test with (or without) a prompt, one a round"""
    global build
    out = []
    for r in range(1, int(rounds) + 1):
        with open(f"{work}/{i}-{r}-{who}.json", encoding="utf-8") as f:
            for test in json.load(f):
                if bool(test["n_prompt"]) == n_prompt:
                    out.append(test["avg_ts"])
                if who == "llama":
                    build = f"{test['build_commit']} ({test['build_number']})"
    return out


def show(v):
    return f"{statistics.median(v):.1f} ({min(v):.1f}–{max(v):.1f})"


def short(command):
    return re.sub(r"\S*/", "", command)


rows, per_byte = [], []
for i, m in enumerate(models):
    size = os.path.getsize(m)
    for prompt, name, who in ((True, "prefill", "tessera"), (True, "prefill int8", "int8"),
                              (False, "decode", "tessera")):
        a, b = speeds(i, "llama", prompt), speeds(i, who, prompt)
        ratio = statistics.median(b) / statistics.median(a)
        rows.append(f"| {os.path.basename(m)} | {size / 2**20:.0f} MiB | {name} | {show(a)} | {show(b)} "
                    f"| {ratio:.2f} | {statistics.median(b) * size / 1e9:.1f} |")
print(f"{date}, {cpu}, {os.cpu_count()} CPUs. Medians of {rounds} alternating rounds (lowest–highest), tokens "
      f"per second.\nTessera {commit.stdout.strip()}, llama.cpp {build}.\n")
print(f"    {short(llama)} -m MODEL\n    {short(tessera)} -m MODEL\n")
print("| model | file | test | llama.cpp | Tessera | ratio | file GB × t/s |\n|---|---|---|---|---|---|---|")
print("\n".join(rows))
PY
