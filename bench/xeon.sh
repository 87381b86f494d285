#!/bin/bash
# xeon.sh - one run of everything that says how near Tessera is to what a Xeon with tiles can do.
#
#     bench/xeon.sh [-t THREADS] [-r ROUNDS] [--budget SECONDS] [--quick] [--only PART[,PART]] [options]
#
#     -t THREADS         of every program, default: all CPUs
#     -r ROUNDS          of the end-to-end comparison at most, default 5
#     --budget SECONDS   no further round begins if it would end later than this, default 450
#     --only PART        kernels, load, e2e; default: all three
#     --without NAME     leave out a program: llama.cpp, ik_llama.cpp, ik_llama.cpp-rtr, tessera-int8
#     --quick            two types, few sizes, one round: two minutes
#     --isa SET          kernel sets of Tessera, default amx
#     --preset NAME      of the models: 8b, or something small to try the script
#     --dir DIR          for models and pack cache (two models of 4.4 GiB and a cache), default /dev/shm, or
#                        where that is too small, TMPDIR or /tmp
#     -o DIR             for results, default ./xeon-DATE-TIME
#
# Parts: kernels (bench_kernels: every type, the shapes of an 8B model), load (seconds to open a model, with and
# without the pack cache), e2e (prefill and decode beside other programs in turns, decode with several tokens a step, a
# long prompt). Machines differ from hour to hour: every share and ratio in the table is of figures from this run.
#
# It ends with a table on stdout; DIR has it as xeon.md, everything measured as xeon.json (`bench/roofline.py` draws
# from it), and each program's own output: from that `bench/xeon_table.py` makes both for a run that was broken off.
# It needs bash, coreutils, python3, and the programs, which the preset `static` builds for machines without a
# compiler:
#
#     TESSERA, BENCH_KERNELS       default: build/release/tessera, build/release/bench/bench_kernels
#     LLAMA_BENCH, IK_LLAMA_BENCH  llama-bench of llama.cpp and of ik_llama.cpp; left out when unset. Where a file
#                                  PROGRAM.version lies beside one, its first line names the build in the table
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

say() { printf '== %4d s  %s\n' $((SECONDS - begin)) "$*" >&2; }
die() { printf 'xeon.sh: %s\n' "$*" >&2; exit 1; }
number() { [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || die "$1 wants a number, not '${2:-}'"; }
value() { [ -n "${2:-}" ] || die "$1 wants a value"; }

begin=$SECONDS
threads=$(nproc) rounds=5 budget=450 quick=false isa=amx preset=8b dir=
only=kernels,load,e2e out= without=,
command="$0 $*"
while [ $# -gt 0 ]; do
    case $1 in
    -t) number "$@"; threads=$2; shift ;;
    -r) number "$@"; rounds=$2; shift ;;
    --budget) number "$@"; budget=$2; shift ;;
    --only) value "$@"; only=$2; shift ;;
    --without) value "$@"; without+=$2,; shift ;;
    --quick) quick=true ;;
    --isa) value "$@"; isa=$2; shift ;;
    --preset) value "$@"; preset=$2; shift ;;
    --dir) value "$@"; dir=$2; shift ;;
    -o) value "$@"; out=$2; shift ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit ;;
    *) die "unknown option '$1'; --help lists them" ;;
    esac
    shift
done
for part in ${only//,/ }; do
    case $part in kernels | load | e2e) ;; *) die "--only wants kernels, load or e2e, not '$part'" ;; esac
done
wanted() { [[ ,$only, == *,$1,* ]]; }

tessera=${TESSERA:-$root/build/release/tessera}
bench_kernels=${BENCH_KERNELS:-$root/build/release/bench/bench_kernels}
[ -x "$tessera" ] || die "no program $tessera; build it (cmake --preset release) or set TESSERA"
if wanted kernels; then
    [ -x "$bench_kernels" ] || die "no program $bench_kernels; build it or set BENCH_KERNELS"
fi
peers=() versions=()
for peer in LLAMA_BENCH IK_LLAMA_BENCH; do
    if [ -z "${!peer:-}" ]; then continue; fi
    [ -x "${!peer}" ] || die "$peer: no program ${!peer}"
    names=(llama.cpp)
    if [ $peer = IK_LLAMA_BENCH ]; then names=(ik_llama.cpp ik_llama.cpp-rtr); fi
    for name in "${names[@]}"; do
        if [[ $without != *,$name,* ]]; then peers+=("$name"); fi
    done
    if [ -r "${!peer}.version" ]; then
        for name in "${names[@]}"; do versions+=("$name"$'\t'"$(head -n 1 "${!peer}.version")"); done
    fi
done

# room DIR: does it have space for the models and a pack cache?
gigabytes=1
if [ "$preset" = 8b ] && { wanted load || wanted e2e; }; then gigabytes=15; fi
room() { [ -w "$1" ] && [ "$(df --output=avail -k "$1" | tail -n 1)" -ge $((gigabytes << 20)) ]; }
if [ -n "$dir" ]; then
    room "$dir" || die "$dir can't be written to, or has less than $gigabytes GiB of space"
else
    for d in /dev/shm "${TMPDIR:-/tmp}" /tmp ""; do
        if [ -n "$d" ] && room "$d"; then break; fi
    done
    dir=${d:-}
    [ -n "$dir" ] || die "neither /dev/shm nor /tmp has $gigabytes GiB of space; set --dir"
fi

out=${out:-xeon-$(date -u +%Y%m%d-%H%M%S)}
mkdir -p "$out"
: >"$out/runs.tsv"
work=$(mktemp -d "$dir/tessera-xeon-XXXXXX")
trap 'rm -rf "$work"' EXIT
printf 'date\t%s\nthreads\t%s\nisa\t%s\npreset\t%s\ncommand\t%s\n' "$(date -u +%Y-%m-%d)" "$threads" "$isa" \
    "$preset" "$command" >"$out/meta.tsv"
if [ ${#versions[@]} -gt 0 ]; then printf '%s\n' "${versions[@]}" >>"$out/meta.tsv"; fi

# record PART MODEL WHO ROUND COMMAND...: its stdout is kept, and one line says what it was. A failure is said, and
# is in the table.
n_runs=0 failures=0
record()
{
    local file rc=0 start=${EPOCHREALTIME/[.,]/} ms key=("${@:1:4}")
    shift 4
    n_runs=$((n_runs + 1))
    file=$(printf '%03d-%s' $n_runs "${key[0]}")
    timeout -k 5 200 "$@" >"$out/$file.json" 2>"$out/$file.log" || rc=$?
    if [ $rc != 0 ]; then
        failures=$((failures + 1))
        say "exit status $rc: $*"
        tail -n 3 "$out/$file.log" >&2
    fi
    ms=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
    printf '%s\t%s\t%s\t%s\t%s\t%d.%03d\t%s\t%s\n' "${key[@]}" $rc $((ms / 1000)) $((ms % 1000)) \
        "$file.json" "$*" >>"$out/runs.tsv"
}

types() # the types this ISA has kernels for
{
    python3 - "$out" "$isa" <<'PY'
import json
import sys

with open(sys.argv[1] + "/001-info.json", encoding="utf-8") as f:
    sets = {s["name"]: s for s in json.load(f)["kernel_sets"]}
if not sets[sys.argv[2]]["usable"]:
    sys.exit(f"xeon.sh: no kernel set {sys.argv[2]} here: {sets[sys.argv[2]]['why_not']}")
print(*sets[sys.argv[2]]["types"])
PY
}

main=(Q4_0 Q4_K Q6_K Q8_0) shapes=(4096x4096 4096x14336 14336x4096)
if $quick; then main=(Q4_0 Q4_K) shapes=(4096x14336); fi

kernels()
{
    local sizes=(1 2 4 8 16 32 64 128 512) ms=60 t s
    if $quick; then sizes=(1 16 512); fi
    for t in "${main[@]}"; do
        say "kernels: $t"
        for s in "${shapes[@]}"; do
            record kernels "$t" tessera 1 "$bench_kernels" -t "$threads" --isa "$isa" --type "$t" --shape "$s" \
                --ms $ms -o json $(printf -- '-m %s ' "${sizes[@]}")
        done
    done
    if $quick; then return; fi
    for t in $all_types; do
        if [[ " ${main[*]} " == *" $t "* ]]; then continue; fi
        say "kernels: $t"
        record kernels "$t" tessera 1 "$bench_kernels" -t "$threads" --isa "$isa" --type "$t" \
            --shape 4096x14336 --ms 50 -o json -m 1 -m 512
    done
}

bench() { echo "$tessera" bench -t "$threads" --isa "$isa" -o json; }

# The sizes that have floors, once more in every round: a shared machine is another every minute.
kernels_again() # ROUND
{
    local t s
    for t in "${main[@]}"; do
        for s in "${shapes[@]}"; do
            record kernels "$t" tessera "$1" "$bench_kernels" -t "$threads" --isa "$isa" --type "$t" --shape "$s" \
                --ms 60 -o json -m 1 -m 512
        done
    done
}

load() # one model
{
    local file=$work/$1.gguf cache=$work/cache one="-p 0 -n 1 -r 1 --no-warmup"
    say "load: $1"
    record load "$1" plain 1 $(bench) -m "$file" $one
    record load "$1" cache-write 1 $(bench) -m "$file" $one --pack-cache "$cache"
    record load "$1" cache-read 1 $(bench) -m "$file" $one --pack-cache "$cache"
    record load "$1" cache-read 2 $(bench) -m "$file" $one --pack-cache "$cache"
    rm -rf "$cache"
}

steps() # MODEL ROUND
{
    local list=1,2,4,8,16
    if $quick; then list=1,4,16; fi
    record steps "$1" tessera "$2" $(bench) -m "$work/$1.gguf" -p 0 -n 32 --tokens-per-step $list -r 1
}

# One repetition is twenty seconds long and needs no warm-up of its own: the first pp512 is that.
long()
{
    say "a long prompt: $1"
    record long "$1" tessera 1 $(bench) -m "$work/$1.gguf" -p 512,512,8192 -n 0 -ub 512 -r 1 --no-warmup
}

one_of_them() # WHO MODEL ROUND
{
    local file=$work/$2.gguf args=(-p 512 -n 32 -t "$threads" -r 1 -o json)
    case $1 in
    tessera-int8) record e2e "$2" "$1" "$3" "$tessera" bench -m "$file" -p 512 -n 0 -t "$threads" -r 1 -o json \
        --isa "$isa" --prefill int8 ;;
    tessera) record e2e "$2" "$1" "$3" "$tessera" bench -m "$file" "${args[@]}" --isa "$isa" --stats ;;
    llama.cpp) record e2e "$2" "$1" "$3" "$LLAMA_BENCH" -m "$file" "${args[@]}" -ngl 0 ;;
    ik_llama.cpp) record e2e "$2" "$1" "$3" "$IK_LLAMA_BENCH" -m "$file" "${args[@]}" -ngl 0 ;;
    ik_llama.cpp-rtr) record e2e "$2" "$1" "$3" "$IK_LLAMA_BENCH" -m "$file" "${args[@]}" -ngl 0 -rtr 1 ;;
    esac
}

# A B C D, then D C B A: what slows the machine down for a while hits all of them.
compare()
{
    local round start last=0 order reversed who m
    order=(tessera)
    if [[ $without != *,tessera-int8,* ]]; then order+=(tessera-int8); fi
    order+=("${peers[@]}")
    reversed=()
    for who in "${order[@]}"; do reversed=("$who" "${reversed[@]}"); done
    if $quick; then rounds=1; fi
    for round in $(seq "$rounds"); do
        if [ "$round" -gt 1 ] && [ $((SECONDS - begin + last)) -gt "$budget" ]; then break; fi
        start=$SECONDS
        for m in "${models[@]}"; do
            say "round $round: $m"
            for who in "${order[@]}"; do one_of_them "$who" "$m" "$round"; done
            steps "$m" "$round"
        done
        if [ "$round" -gt 1 ] && wanted kernels; then kernels_again "$round"; fi
        last=$((SECONDS - start))
        local turned=("${reversed[@]}")
        reversed=("${order[@]}")
        order=("${turned[@]}")
    done
}

record info - tessera 1 "$tessera" info -t "$threads" --json
all_types=$(types)
if wanted kernels; then kernels; fi
models=()
if wanted load || wanted e2e; then
    for t in Q4_0 Q4_K_M; do
        say "making a model: $preset $t"
        "$tessera" synth --arch llama --preset "$preset" --type $t --seed 1 -o "$work/$preset-$t.gguf" >&2
        models+=("$preset-$t")
    done
fi
if wanted load; then for m in "${models[@]}"; do load "$m"; done; fi
if wanted e2e; then
    if ! $quick; then long "${models[0]}"; fi
    compare
fi
record info - tessera 2 "$tessera" info -t "$threads" --json

printf 'seconds\t%s\n' $((SECONDS - begin)) >>"$out/meta.tsv"
python3 "$here/xeon_table.py" collect "$out" >"$out/xeon.json"
python3 "$here/xeon_table.py" table "$out/xeon.json" | tee "$out/xeon.md"
say "the table is $out/xeon.md, everything measured $out/xeon.json"
[ $failures = 0 ] || die "$failures of $n_runs runs failed"
