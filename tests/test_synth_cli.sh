#!/usr/bin/env bash
# tessera synth on the command line: the same seed, one sentence for what is wrong, no half file.
set -u
tessera=${TESSERA:?}
dir=$(mktemp -d "${TMPDIR:-/tmp}/synth.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

fail() {
    echo "failed: $*" >&2
    failed=1
}

# PART_OF_THE_SENTENCE COMMAND...: status 1, nothing on stdout, one line on stderr, no file.
refuses() {
    local part=$1 status=0
    shift
    "$@" >out 2>err || status=$?
    [ "$status" = 1 ] || fail "$*: status $status"
    [ ! -s out ] || fail "$*: wrote to stdout"
    [ "$(wc -l <err)" = 1 ] || fail "$*: $(cat err)"
    grep -qF -- "$part" err || fail "$*: '$part' is not in: $(cat err)"
    rm -f out err
    rm -f fifo
    [ -z "$(ls -A)" ] || fail "$*: left $(ls -A)"
    rm -rf -- ./*
}

[ "$("$tessera" synth --help | grep -c 'tessera synth --arch')" != 0 ] || fail "--help has no example"

"$tessera" synth --arch llama --type Q4_K_M --seed 3 -t 1 -o a.gguf 2>/dev/null || fail "synth"
"$tessera" synth --arch llama --type Q4_K_M --seed 3 -t 2 -o b.gguf 2>/dev/null || fail "synth -t 2"
"$tessera" synth --arch llama --type Q4_K_M --seed 4 -o c.gguf 2>/dev/null || fail "synth --seed 4"
cmp -s a.gguf b.gguf || fail "two threads make another file"
cmp -s a.gguf c.gguf && fail "another seed makes the same file"
rm -f ./*.gguf

for rope in none linear yarn; do
    for arch in llama qwen2 qwen3 gemma3 olmo2 granite gemma2 command-r phi3; do
        "$tessera" synth --arch $arch --rope-scaling $rope -o r.gguf 2>err || fail "$arch $rope"
        "$tessera" inspect r.gguf >out 2>&1 || fail "inspect $arch $rope: $(cat out)"
        if [ $rope != none ]; then
            grep -q "rope.scaling.type.*$rope" out || fail "$arch: no $rope scaling in the file"
        fi
    done
done
rm -f out err r.gguf

refuses "-o" "$tessera" synth
refuses "mamba" "$tessera" synth --arch mamba -o x.gguf
refuses "13b" "$tessera" synth --preset 13b -o x.gguf
refuses "'Q9_0'" "$tessera" synth --type Q9_0 -o x.gguf
refuses "'-1'" "$tessera" synth --seed -1 -o x.gguf
refuses "'many'" "$tessera" synth -t many -o x.gguf
refuses "--presets" "$tessera" synth --presets tiny -o x.gguf
refuses "No such file" "$tessera" synth -o no/x.gguf
mkfifo fifo
refuses "not a regular file" "$tessera" synth -o fifo
refuses "directory" "$tessera" synth -o /

# A limit on file sizes (512-byte or 1024-byte units).
refuses "File too large" bash -c 'ulimit -f 100; exec "$0" synth --type Q8_0 -o x.gguf' "$tessera"

# A full disk, where this user may have one of 1 MB.
full=$dir.full
mkdir "$full"
full_disk='mount -t tmpfs -o size=1m none "$1" && cd "$1"'
if unshare -rm bash -c "$full_disk" - "$full" 2>/dev/null; then
    unshare -rm bash -c "$full_disk"' && "$0" synth --type Q8_0 -o x.gguf 2>"$2"
        status=$?; ls -A >"$3"; exit $status' "$tessera" "$full" "$dir/err" "$dir/left"
    [ $? = 1 ] || fail "a full disk is no error"
    grep -q "No space left" err || fail "full disk: $(cat err)"
    [ ! -s left ] || fail "full disk: left $(cat left)"
else
    echo "no tmpfs to fill here"
fi
rmdir "$full"
rm -f err left

# start COMMAND...: runs it behind this script, as $pid, until it writes big.gguf.
start() {
    "$@" synth --preset 8b --type Q4_0 -o big.gguf 2>/dev/null &
    pid=$!
    for _ in $(seq 500); do
        [ -n "$(find . -name 'big.gguf*' -size +1k)" ] && break
        sleep 0.01
    done
}

# ends WHAT STATUS: what ended $pid gives this status and leaves no file.
ends() {
    local status=0
    wait "$pid" || status=$?
    [ $status = "$2" ] || fail "$1: status $status"
    [ -z "$(ls -A)" ] || fail "$1 left $(ls -A)"
    rm -f ./*
}

# A signal while writing: status 128 + its number, nothing stays.
for signal in INT TERM HUP; do
    start "$tessera"
    kill -s $signal "$pid"
    ends "SIG$signal" $((128 + $(kill -l $signal)))
done

# Twice the same, as timeout(1) and a closing terminal send it.
for signal in TERM HUP; do
    start "$tessera"
    kill -s $signal "$pid"
    kill -s $signal "$pid" 2>/dev/null
    ends "SIG$signal twice" $((128 + $(kill -l $signal)))
done

# nohup(1): what was ignored stays ignored.
start bash -c 'trap "" HUP; exec "$0" "$@"' "$tessera"
kill -s HUP "$pid"
sleep 0.1
kill -s TERM "$pid"
ends "SIGHUP ignored, then SIGTERM" 143

[ $failed = 0 ] && echo "synth_cli: all as expected"
exit $failed
