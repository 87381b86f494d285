#!/bin/bash
# gpu.sh - everything that must hold on a machine with an NVIDIA GPU, against `--isa ref` on its CPU.
#
#     tests/gpu.sh [options] [BUILD]
#
#     BUILD            folder of a build with the GPU plug-in, made here or elsewhere; default: build/ci or
#                      build/release
#     --dir DIR        the models' folder, default ${XDG_CACHE_HOME:-~/.cache}/tessera/models
#     --tmp DIR        for logits (2 GB) and a model of 4.4 GB, default /dev/shm
#     --log DIR        each check's output, default gpu-logs in the current folder
#     --chunks N       of 512 tokens for the perplexity, default 8
#     --only PART,...  some of: kernels models perplexity finite lines sanitizer sanitize_kernels memory several
#     --quick          2 chunks, fewer splits, no sanitizer of kernel tests, no large model
#     --standin        BUILD's stand-in for a GPU instead of one, to try this script where there is none: slow
#
# Needs bash, coreutils, python3 and no network. compute-sanitizer is looked for where CUDA is usually installed
# (COMPUTE_SANITIZER names another one). What can't be done here is SKIP; status 1 if anything is FAIL.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

die() { printf 'gpu.sh: %s\n' "$*" >&2; exit 2; }
value() { [ -n "${2:-}" ] || die "$1 wants a value"; }

models=${XDG_CACHE_HOME:-$HOME/.cache}/tessera/models
tmp=/dev/shm logs=gpu-logs chunks='' only='' build='' quick=false standin=false
while [ $# -gt 0 ]; do
    case $1 in
    --dir) value "$@"; models=$2; shift ;;
    --tmp) value "$@"; tmp=$2; shift ;;
    --log) value "$@"; logs=$2; shift ;;
    --chunks)
        [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || die "--chunks wants a number from 1 to 99, not '${2:-}'"
        chunks=$2
        shift
        ;;
    --only) value "$@"; only=$2; shift ;;
    --quick) quick=true ;;
    --standin) standin=true ;;
    -h | --help) sed -n '2,19s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    -*) die "unknown option '$1'" ;;
    *) [ -z "$build" ] || die "one BUILD, not '$build' and '$1'"; build=$1 ;;
    esac
    shift
done
parts="kernels models perplexity finite lines sanitizer sanitize_kernels memory several"
for part in ${only//,/ }; do
    [[ " $parts " == *" $part "* ]] || die "there is no part '$part'; there are: $parts"
done
for b in "$root/build/ci" "$root/build/release"; do
    if [ -z "$build" ] && [ -x "$b/tessera" ]; then build=$b; fi
done
[ -n "$build" ] || die "there is no build/ci or build/release: name the folder of a build"
build=$(cd "$build" && pwd) || die "there is no such folder"
tessera=$build/tessera
[ -x "$tessera" ] || die "$tessera isn't there"
[ -d "$models" ] || die "there is no folder $models: --dir names the models'"
[ -d "$tmp" ] || die "there is no folder $tmp: --tmp names another"
if [ -z "$chunks" ]; then chunks=8; if $quick; then chunks=2; fi; fi

library=$build/libtessera_cuda.so
if $standin; then library=$build/tests/libtessera_cuda_standin.so TS_TEST_FEW=1; export TS_TEST_FEW; fi
[ -r "$library" ] || die "$library isn't there: the build was made without it"
mkdir -p "$logs" || die "$logs can't be made"
logs=$(cd "$logs" && pwd)
work=$(mktemp -d "$tmp/tessera-gpu-XXXXXX") || die "no folder can be made in $tmp"
filler=
end()
{
    if [ -n "$filler" ]; then kill "$filler" 2>/dev/null; fi
    rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM
# The tests look for models in a cache, and for their own files where they were built.
mkdir -p "$work/cache/tessera"
ln -s "$(cd "$models" && pwd)" "$work/cache/tessera/models"
export TESSERA_CUDA_LIBRARY=$library XDG_CACHE_HOME=$work/cache TS_TEST_DIR=$here
alice=$here/golden/alice.txt
smollm2=$models/SmolLM2-135M-Instruct.Q4_1.gguf gemma3=$models/gemma-3-270m-q4_k_m.gguf

# --- running and counting -------------------------------------------------------------------------
passed=0 failures=() skips=()

heading() { printf '\n== %s\n' "$*"; }
pass() { passed=$((passed + 1)); printf 'PASS %5d s  %s\n' "$2" "$1"; }
fail() { failures+=("$1"); printf 'FAIL %5d s  %s\n' "$2" "$1"; tail -n 12 "$log" | sed 's/^/      | /'; }
skip() { skips+=("$1"); printf 'SKIP          %s\n' "$1"; }

# check NAME SECONDS COMMAND...: passes with status 0; 77 is a skip, too long a failure.
check()
{
    local name=$1 most=$2 begin=$SECONDS rc
    shift 2
    log=$logs/$(tr -c 'a-zA-Z0-9._\n-' _ <<<"$name").log
    printf '%s\n' "$*" >"$log"
    # A function of this script stays in this shell; what it runs has its own limits.
    if [ "$most" = - ]; then
        "$@" >>"$log" 2>&1
    else
        timeout -k 10 "$most" "$@" >>"$log" 2>&1
    fi
    rc=$?
    case $rc in
    0) pass "$name" $((SECONDS - begin)) ;;
    77) skip "$name: $(tail -n 1 "$log")" ;;
    124 | 137) echo "took longer than $most s" >>"$log"; fail "$name" $((SECONDS - begin)) ;;
    *) echo "status $rc" >>"$log"; fail "$name" $((SECONDS - begin)) ;;
    esac
}

wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }
run() { timeout -k 10 "${limit:-120}" "$tessera" "$@"; }
title() { local t=${1##*/}; echo "${t%%[-.]*}"; }

# splits MODEL: its numbers of layers.
splits()
{
    if $quick || $standin; then
        case $1 in *SmolLM2*) echo 10 31 auto ;; *) echo 6 19 auto ;; esac
    else
        case $1 in *SmolLM2*) echo 0 1 10 20 30 31 auto ;; *) echo 0 1 6 12 18 19 auto ;; esac
    fi
}

info=$(run info --json) || die "'$tessera info' failed"
ask() { python3 -c "import json, sys; i = json.load(sys.stdin); print($1)" <<<"$info"; }
n_gpus=$(ask 'len(i["gpus"])')
amx=$(ask 'str(any(k["name"] == "amx" and k["usable"] for k in i["kernel_sets"])).lower()')
ask '"%s, %d CPUs" % (i["cpu"]["brand"], i["cpu"]["n_cpus"])'
ask '"\n".join("%s: %s" % (g["name"], g["description"]) for g in i["gpus"]) or i["gpus_why_not"]'
[ "$n_gpus" -gt 0 ] || die "without a GPU there is nothing to test"
$amx || echo "no tiles here: amx is left out of the checks"
here_models=()
for m in "$smollm2" "$gemma3"; do
    if [ -r "$m" ]; then here_models+=("$m"); else skip "${m##*/} isn't in $models"; fi
done

# --- the checks -----------------------------------------------------------------------------------
kernels()
{
    local t
    for t in quant ops unpack moe latent; do
        if $standin; then
            check "test_cuda_$t" 900 "$build/tests/test_cuda_$t"
        else
            check "test_cuda_${t}_gpu" 500 "$build/cuda/test_cuda_${t}_gpu"
        fi
    done
}

models() { check test_gpu_models 580 "$build/tests/test_gpu_models"; }

# PPL ratio within 0.2 %; what the CPU multiplies is on tiles, if STATS is given.
judge_perplexity() # OUTPUT [STATS]
{
    python3 - "$@" <<'END'
import json, re, sys
text = open(sys.argv[1]).read()
print(text)
ratio = float(re.search(r"PPL ratio:\s+(\S+)", text)[1])
ok = abs(ratio - 1) <= 0.002
if len(sys.argv) > 2:
    cpu = [w for w in json.load(open(sys.argv[2]))["work"] if w["matrix"] and w["device"] == "CPU"]
    flops, tiles = (sum(w[k] for w in cpu) for k in ("flops", "tile_flops"))
    print("on the CPU: %.1f GFLOP in matrix products, %.2f %% on tiles" % (flops * 1e-9, 100 * tiles / max(flops, 1)))
    ok = ok and tiles >= 0.99 * flops
sys.exit(not ok)
END
}

compare() # MODEL OPTIONS...: with the logits of ref; on tiles too, unless streaming leaves few rows to the CPU
{
    local model=$1 stats=()
    shift
    limit=300 run perplexity -m "$model" -f "$alice" --chunks "$chunks" --kl "$work/${model##*/}.logits" \
        --stats-json "$work/stats.json" "$@" >"$work/kl.txt" || return
    if $amx && [[ " $* " == *" --stream off "* ]]; then stats=("$work/stats.json"); fi
    judge_perplexity "$work/kl.txt" ${stats[@]+"${stats[@]}"}
}

# The plan: whatever the CPU multiplies is in a layout for tiles.
on_tiles() # MODEL N
{
    run plan -m "$1" -ngl "$2" --json >"$work/plan.json" || return
    python3 - "$work/plan.json" <<'END'
import json, sys
cpu = [w for w in json.load(open(sys.argv[1]))["weights"] if w["device"] == "CPU" and w["name"].startswith("blk.")]
other = [w["name"] + ": " + str(w["kernel_set"]) for w in cpu if w["kernel_set"] != "amx"]
print(len(cpu), "weights of layers are on the CPU")
print("\n".join(other))
sys.exit(bool(other))
END
}

reference() # MODEL
{
    [ -r "$work/${1##*/}.logits" ] && return
    check "$(title "$1"): logits of ref" 500 "$tessera" perplexity -m "$1" -f "$alice" --chunks "$chunks" --isa ref \
        -ngl 0 --save-logits "$work/${1##*/}.logits"
}

perplexity()
{
    local m n
    for m in "${here_models[@]}"; do
        reference "$m"
        for n in $(splits "$m"); do
            check "$(title "$m"): perplexity, -ngl $n" - compare "$m" -ngl "$n" --stream off
            if $amx; then check "$(title "$m"): plan, -ngl $n, the CPU's weights are amx" - on_tiles "$m" "$n"; fi
        done
        n=$(splits "$m" | cut -d ' ' -f "$(if $quick || $standin; then echo 1; else echo 3; fi)")
        check "$(title "$m"): perplexity, -ngl $n --stream on" - compare "$m" -ngl "$n" --stream on
        check "$(title "$m"): perplexity, -ngl $n --stream auto" - compare "$m" -ngl "$n" --stream auto
    done
}

finite()
{
    local m n
    head -c 2400 "$alice" >"$work/prompt.txt"
    for m in "${here_models[@]}"; do
        for n in 1 10 31 auto; do
            check "$(title "$m"): --check-finite, -ngl $n" 200 "$tessera" run -m "$m" -f "$work/prompt.txt" \
                -n 16 --temp 0 -ngl "$n" --check-finite --ignore-eos
        done
        check "$(title "$m"): --check-finite, -ngl 10 --stream on" 200 "$tessera" run -m "$m" -f "$work/prompt.txt" \
            -n 16 --temp 0 -ngl 10 --stream on --check-finite --ignore-eos
    done
}

# Says something, more than the prompt. A model may end a text at once, but not three times.
answers() # PROMPT OPTIONS...
{
    local prompt=$1 try
    shift
    for try in 1 2 3; do
        run run -p "$prompt" "$@" >"$work/text.txt" || return
        cat "$work/text.txt"
        [ "$(wc -c <"$work/text.txt")" -le $((${#prompt} + 1)) ] || return 0
        echo "try $try: nothing but the prompt"
    done
    return 1
}

lines()
{
    local m n tiles=()
    if $amx; then tiles=(--amx); fi
    for m in "${here_models[@]}"; do
        check "$(title "$m"): run${tiles[*]:+ --amx} -t 64 -n 100 -p test" - \
            answers test -m "$m" ${tiles[@]+"${tiles[@]}"} -t 64 -n 100
        for n in 1 10 20 30 "20 -b 1024 -c 1024"; do
            # shellcheck disable=SC2086 # several options
            check "$(title "$m"): run${tiles[*]:+ --amx} -t 64 -n 100 -p test -ngl $n" - \
                answers test -m "$m" ${tiles[@]+"${tiles[@]}"} -t 64 -n 100 -ngl $n
        done
    done
}

find_sanitizer()
{
    local p
    for p in "${COMPUTE_SANITIZER:-compute-sanitizer}" "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer"; do
        command -v "$p" && return
    done
    return 1
}

sanitizer()
{
    local tool program
    program=$(find_sanitizer) || { skip "there is no compute-sanitizer"; return; }
    [ -r "$smollm2" ] || return 0
    head -c 2400 "$alice" >"$work/prompt.txt"
    for tool in memcheck racecheck; do
        check "$tool: -ngl 31" 400 "$program" --tool "$tool" --error-exitcode 9 "$tessera" run -m "$smollm2" \
            -p "Once upon a time there was a" -n 4 --temp 0 -c 512 -ngl 31
    done
    # racecheck runs out of 128 GB of memory with cuBLAS's kernels for more tokens; ours are under sanitize_kernels
    check "memcheck: -ngl 10 --stream on, a long prompt" 550 "$program" --tool memcheck --error-exitcode 9 "$tessera" \
        run -m "$smollm2" -f "$work/prompt.txt" -n 3 --temp 0 -c 1024 -ngl 10 --stream on
}

sanitize_kernels()
{
    local tool t program
    if $quick; then return; fi
    program=$(find_sanitizer) || { skip "there is no compute-sanitizer"; return; }
    for tool in memcheck racecheck; do
        for t in quant ops unpack moe latent; do
            check "$tool: test_cuda_${t}_gpu" 580 "$program" --tool "$tool" --error-exitcode 9 \
                "$build/cuda/test_cuda_${t}_gpu"
        done
    done
}

# fill OPTIONS...: gpu_fill.py in the background, until empty is called; waits for its first line.
fill()
{
    local begin=$SECONDS
    rm -f "$work/hold"
    mkfifo "$work/hold"
    python3 "$here/gpu_fill.py" "$@" <"$work/hold" >"$work/filled" 2>&1 &
    filler=$!
    exec 9>"$work/hold"
    while [ ! -s "$work/filled" ]; do
        if ! kill -0 "$filler" 2>/dev/null || [ $((SECONDS - begin)) -gt 60 ]; then
            cat "$work/filled"
            return 1
        fi
        sleep 0.05
    done
    grep -q '^free\|^waiting' "$work/filled"
}

empty()
{
    exec 9>&-
    if [ -n "$filler" ]; then wait "$filler"; fi
    filler=
    cat "$work/filled"
}

counting="1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12," # goes on without near ties

count() # OUTPUT OPTIONS...: SmolLM2's text
{
    local out=$1
    shift
    run run -m "$smollm2" -p "$counting" -n 48 --temp 0 "$@" >"$out"
}

same_text() # OPTIONS...
{
    count "$work/text.txt" "$@" || return
    cat "$work/text.txt"
    cmp "$work/text.txt" "$work/want.txt"
}

# -ngl all: an answer, or the sizes and a refusal. Nothing in between.
all_or_refused()
{
    local rc=0
    run run -m "$1" -p "$counting" -n 8 --temp 0 -ngl all >"$work/text.txt" 2>"$work/err.txt" || rc=$?
    cat "$work/text.txt" "$work/err.txt"
    if [ $rc = 0 ]; then
        [ "$(wc -c <"$work/text.txt")" -gt ${#counting} ]
    else
        [ $rc = 1 ] && grep -q 'would have to hold' "$work/err.txt"
    fi
}

# Half the weights have gone up, then another process takes the rest of the memory.
taken_meanwhile()
{
    local rc=0
    fill --after "$2" 200 || return
    run run -v -m "$1" -p "$counting" -n 8 --temp 0 -ngl all >"$work/text.txt" || rc=$?
    empty
    cat "$work/text.txt"
    [ $rc = 0 ] && [ "$(wc -c <"$work/text.txt")" -gt ${#counting} ]
}

memory()
{
    local gib big=$work/8b.gguf
    if $standin; then skip "a stand-in's memory isn't another process's"; return; fi
    if [ -r "$smollm2" ]; then
        check "text with the GPU's memory free" - count "$work/want.txt"
    fi
    if ! $quick; then
        check "synth --preset 8b --type Q4_0" 300 "$tessera" synth --arch llama --preset 8b --type Q4_0 -o "$big"
        check "8B: all of the GPU's memory is free" - answers "$counting" -m "$big" -n 8 --temp 0
    fi
    for gib in 1 2 5; do
        # Filled from this shell, which keeps the pipe that holds it.
        log=$logs/fill-$gib.log
        if ! fill $((gib * 1024)) >"$log" 2>&1; then
            fail "GPU memory filled but for $gib GiB" 0
            empty >>"$log"
            continue
        fi
        if [ -r "$smollm2" ]; then
            check "$gib GiB left: SmolLM2, the same text" - same_text
        fi
        if ! $quick; then
            check "$gib GiB left: 8B answers" - answers "$counting" -m "$big" -n 8 --temp 0
            check "$gib GiB left: 8B, -ngl all: an answer or the sizes" - all_or_refused "$big"
        fi
        empty >>"$log"
    done
    if ! $quick; then
        check "memory taken while 8B loads, -ngl all: an answer" - taken_meanwhile "$big" 1200
        check "memory taken when 8B is loaded, -ngl all: an answer" - taken_meanwhile "$big" 4600
        rm -f "$big"
    fi
}

# The others have all of the model, and a line says why.
one_is_full()
{
    count "$work/text.txt" -v -ngl all 2>"$work/err.txt" || { tail -n 3 "$work/err.txt"; return 1; }
    cmp "$work/text.txt" "$work/want.txt" && grep 'not every GPU can be used: GPU 0: ' "$work/err.txt" &&
        grep 'CUDA1, .*: [0-9]* of 30 layers' "$work/err.txt" && ! grep 'CUDA0, .*layers' "$work/err.txt"
}

# Both GPUs copy from and to the CPU's buffers themselves.
both_pinned()
{
    count "$work/text.txt" -v -ngl all 2>"$work/err.txt" || { tail -n 3 "$work/err.txt"; return 1; }
    ! grep "can't be pinned" "$work/err.txt" && grep 'CUDA0.*: [0-9]* of' "$work/err.txt" &&
        grep 'CUDA1.*: [0-9]* of' "$work/err.txt"
}

several()
{
    local m n
    if [ "$n_gpus" -lt 2 ]; then skip "there is one GPU: nothing to share among several"; return; fi
    if [ -r "$smollm2" ] && ! $standin; then
        check "text of the CPU" - count "$work/want.txt" -ngl 0
        check "two GPUs: the same text" - same_text -ngl all
        check "two GPUs, ffn_up on the CPU: the same text" - same_text -ngl all -ot ffn_up=CPU
        check "two GPUs: they use the CPU's pinned buffers" - both_pinned
        log=$logs/fill-one.log
        if fill 20 >"$log" 2>&1; then
            check "CUDA0 is full: the same text, by the others" - one_is_full
        else
            fail "GPU memory filled but for 20 MiB" 0
        fi
        empty >>"$log"
    fi
    for m in "${here_models[@]}"; do
        reference "$m"
        for n in $(case $m in *SmolLM2*) echo 20 31 ;; *) echo 12 19 ;; esac); do
            check "$(title "$m"): -ts 1,1 -ngl $n" - compare "$m" -ts 1,1 -ngl "$n" --stream off
            check "$(title "$m"): -ts 1,1 -ngl $n: --check-finite" 200 "$tessera" run -m "$m" -p "$counting" -n 16 \
                --temp 0 -ts 1,1 -ngl "$n" --check-finite
        done
        check "$(title "$m"): -ts 1,1 -ngl 10 --stream on" - compare "$m" -ts 1,1 -ngl 10 --stream on
    done
}

for part in $parts; do
    if wanted "$part"; then heading "$part"; "$part"; fi
done

heading "summary"
printf '%d passed, %d failed, %d skipped; outputs are in %s\n' "$passed" "${#failures[@]}" "${#skips[@]}" "$logs"
for f in ${failures[@]+"${failures[@]}"}; do printf 'FAIL  %s\n' "$f"; done
[ ${#failures[@]} = 0 ]
