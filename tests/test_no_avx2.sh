#!/bin/bash
# CPUs without AVX2, emulated: the program starts, takes `ref`, writes the text that ref writes here, and says why it
# can't take avx2. An instruction beyond plain x86-64 in code that every CPU runs ends it with SIGILL.
set -euo pipefail
command -v qemu-x86_64 >/dev/null || { echo "there is no qemu-x86_64 (package qemu-user)"; exit 77; }
if [ "$(nm "$TESSERA" | grep -c '__asan_init')" != 0 ]; then
    echo "AddressSanitizer's memory layout doesn't fit the emulator's"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "failed: $cpu: $*"; exit 1; }
unset TESSERA_ISA

# on PROGRAM ARGUMENT...: runs it on $cpu; its output goes to out, its stderr to err.
on() {
    local status=0
    qemu-x86_64 -cpu "$cpu" "$@" >"$work/out" 2>"$work/stderr" || status=$?
    grep -v "^qemu-x86_64: warning: TCG doesn't support" "$work/stderr" >"$work/err" || true
    return $status
}

cpu=here
for type in Q4_K_M Q8_0 BF16; do
    "$TESSERA" synth --preset tiny --type $type -o "$work/$type.gguf" 2>/dev/null || fail "synth $type"
done
run=(-p ab -n 4 --temp 0 -t 2)

# Plain x86-64, with every type; SSE4.2; AVX; AVX2 but not all that goes with it.
types="Q8_0 BF16 Q4_K_M"
for cpu in qemu64,-sse3,-cx16 Nehalem SandyBridge Haswell,-bmi2 Haswell,-f16c; do
    for type in $types; do
        model=$work/$type.gguf
        "$TESSERA" run -m "$model" "${run[@]}" --isa ref >"$work/expected" 2>/dev/null
        on "$TESSERA" run -m "$model" "${run[@]}" || fail "status $?: $(cat "$work/err")"
        grep -q ', ref, 2 threads' "$work/err" || fail "not ref: $(cat "$work/err")"
        cmp "$work/expected" "$work/out" || fail "$type: not the text that ref writes here"
    done
    types=Q4_K_M
    status=0
    on "$TESSERA" run -m "$model" "${run[@]}" --isa avx2 || status=$?
    [ $status = 1 ] || fail "--isa avx2: status $status"
    case $cpu in
    Haswell,-bmi2) lacks="BMI2" ;;
    Haswell,-f16c) lacks="F16C" ;;
    *) lacks="AVX2, FMA, F16C and BMI2" ;;
    esac
    grep -q "^tessera: kernel set avx2 can't run here: .*CPU lacks $lacks; the widest that can is ref\$" "$work/err" ||
        fail "--isa avx2: $(cat "$work/err")"
done

# What the emulator hides is what decides: on a CPU with all of it, avx2 is taken.
cpu=Haswell
on "$TESSERA" run -m "$model" "${run[@]}" || fail "status $?: $(cat "$work/err")"
grep -q ', avx2, 2 threads' "$work/err" || fail "not avx2: $(cat "$work/err")"

cpu=qemu64,-sse3,-cx16
for program in type pool utf8 gguf; do
    on "$TS_BUILD_DIR/tests/test_$program" || fail "test_$program: $(tail -n 5 "$work/err")"
done
echo "no_avx2: all as expected"
