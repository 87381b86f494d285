"""--pack-cache: the same text with and without, what is said about it, and which commands take it."""
import os
import random
import sys

from cli_tool import Folder, bad, check, done, good


def files(cache):
    return sorted(os.listdir(cache)) if os.path.isdir(cache) else []


def run_command(model, cache):
    args = ["run", "-m", model, "-p", "a tile", "-n", "12", "-c", "64", "--temp", "0", "--isa", "avx2"]
    want = good(*args).out
    r = good(*args, "--pack-cache", cache)
    check(r.out == want and "warning" not in r.err and len(files(cache)) == 1, files(cache), r)
    r = good(*args, "--pack-cache", cache, "-v")
    check(r.out == want and "info: read the pack cache " + cache in r.err, r)
    path = os.path.join(cache, files(cache)[0])
    with open(path, "r+b") as f:
        f.seek(random.randrange(os.path.getsize(path)))
        old = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([old[0] ^ 1]))
    r = good(*args, "--pack-cache", cache)
    warnings = [l for l in r.err.splitlines() if l.startswith("warning: ")]
    check(r.out == want and len(warnings) == 1 and path in warnings[0] and "made anew: " in warnings[0], r)
    r = good(*args, "--pack-cache", cache)
    check(r.out == want and "warning" not in r.err, r)
    r = good(*args[:-1], "ref", "--pack-cache", cache)
    check("warning: no pack cache: the ref kernel sets pack nothing" in r.err, r)
    r = good(*args, "--pack-cache", os.path.join(cache, "not", "there"))
    check(r.out == want and "warning: no pack cache: making the directory" in r.err, r)
    bad([*args, "--pack-cache"], "--pack-cache needs a value")


def others(model, text, cache):
    want = good("perplexity", "-m", model, "-f", text, "-c", "32").out
    for _ in range(2):
        r = good("perplexity", "-m", model, "-f", text, "-c", "32", "--pack-cache", cache)
        check(r.out == want and "warning" not in r.err, r)
    r = good("bench", "-m", model, "-p", "8", "-n", "2", "-r", "1", "--pack-cache", cache, "-v")
    check("info: read the pack cache" in r.err, r)
    bad(["plan", "-m", model, "--pack-cache", cache], "unknown option '--pack-cache'")


with open("/proc/cpuinfo") as f:
    if " avx2 " not in f.read():
        print("skipped: no kernel set here packs")
        sys.exit(77)
with Folder() as f:
    tiny = f.model("tiny.gguf", type="Q4_K_M")
    words = f.file("text", "a tile of a mosaic " * 40)
    cache = f.name("cache")
    run_command(tiny, cache)
    others(tiny, words, cache)
done("pack_cache_cli")
