"""plan, bench and perplexity: what they print for programs, and the files of logits."""
import csv
import io
import json
import math
import os
import re
import resource
import signal
import struct
import subprocess
import time

from cli_tool import ENV, SOURCE, TESSERA, Folder, bad, check, done, good, run

TEXT = os.path.join(SOURCE, "tests", "golden", "alice.txt")


def plan(model):
    r = good("plan", "-m", model)
    check("blk.0.attn_q.weight" in r.out and "Q8_0" in r.out, r)
    p = json.loads(good("plan", "-m", model, "--json", "-c", "100").out)
    check({"weights", "buffers", "kv", "predicted"} <= set(p), list(p))
    for w in p["weights"]:
        check(set(w) >= {"name", "type", "shape", "device", "kernel_set", "layout", "bytes",
                         "reason"}, w)
        check(w["bytes"] > 0 and all(n > 0 for n in w["shape"]) and w["reason"], w)
    check(p["kv"]["n_ctx"] == 100 and p["kv"]["bytes"] > 0, p["kv"])
    check({"prefill_tps", "decode_tps"} <= set(p["predicted"]), p["predicted"])


def info():
    """The machine: nothing it says contradicts /proc, and it takes at most 3 seconds."""
    seconds = []
    for _ in range(3): # other programs may be at work
        start = time.time()
        r = good("info", "--json")
        seconds.append(time.time() - start)
        if seconds[-1] <= 3:
            break
    check(min(seconds) <= 3, "info takes", seconds)
    i = json.loads(r.out)
    with open("/proc/cpuinfo") as f:
        proc = f.read()
    flags = set(re.search(r"^flags\s*: (.*)$", proc, re.M).group(1).split())
    check(i["cpu"]["brand"] in proc, i["cpu"])
    check(i["cpu"]["n_cpus"] == i["n_threads"] == len(os.sched_getaffinity(0)), i)
    for name in ["AVX2", "FMA", "F16C", "BMI2", "AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL",
                 "AVX512CD", "AVX512_VNNI", "AVX512_VBMI", "AVX512_BF16", "AMX-TILE", "AMX-INT8",
                 "AMX-BF16"]:
        # Linux drops what its own options switch off
        flag = name.lower().replace("-", "_")
        flag = {"avx512_vbmi": "avx512vbmi"}.get(flag, flag)
        check(flag not in flags or name in i["cpu"]["features"], name, i["cpu"]["features"])
    check(i["memory"]["total_bytes"] > 0, i["memory"])
    if os.path.isdir("/sys/devices/system/node/node0"):
        check(i["numa"] and i["numa"][0]["total_bytes"] > 0, i["numa"])
    sets = {s["name"]: s for s in i["kernel_sets"]}
    check(list(sets) == ["ref", "avx2", "avx512", "amx"], sets)
    for s in sets.values():
        check(s["usable"] == (s["why_not"] is None), s)
    check(sets["ref"]["usable"] and "Q4_K" in sets["ref"]["types"], sets["ref"])
    amx = sets["amx"]["usable"]
    check(i["tiles"]["granted"] == amx and (i["tiles"]["asked"] or not amx), i["tiles"])
    m = i["measured"]
    check(min(m["read_gbs"], m["fma_gflops"], m["int8_gops"]) > 0, m)
    check((m["tile_int8_gops"] > 0) == (m["tile_bf16_gflops"] > 0) == amx, m)
    r = good("info", "-t", 1)
    check(i["cpu"]["brand"] in r.out and "measured, 1 thread\n" in r.out, r)
    for s in sets.values():
        check(re.search(rf"^  {s['name']} +{'yes' if s['usable'] else 'no: '}", r.out, re.M), s, r)
        check(s["usable"] or s["why_not"] in r.out, s, r)
    check(("there are no tiles" in r.out) != amx, r)
    bad(["info", "extra"], "no use for the argument 'extra'")
    bad(["info", "-t", "0"], "-t must be from 1")


FIELDS = ["build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type",
          "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "type_k", "type_v", "n_gpu_layers", "stream",
          "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"]
OWN = ["isa", "tokens_per_step", "load_seconds", "weight_bytes", "body_params", "head_params", "peak_read_gbps", "peak_fma_tflops",
       "peak_int8_tops", "peak_tile_bf16_tflops", "peak_tile_int8_tops", "bound", "achieved_gbps", "achieved_tflops", "share"]


def check_numbers(t):
    n = t["n_prompt"] + t["n_gen"]
    ns, ts = t["samples_ns"], t["samples_ts"]
    check(len(ns) == len(ts) == 2, t)
    check(all(abs(b - 1e9 * n / a) < 1e-5 * b + 1e-5 for a, b in zip(ns, ts)), t)
    check(abs(t["avg_ts"] - sum(ts) / 2) < 1e-5 * t["avg_ts"] + 1e-5, t)
    check(abs(t["stddev_ts"] - abs(ts[0] - ts[1]) / math.sqrt(2)) < 1e-4 * t["avg_ts"] + 1e-5, t)
    check(abs(t["avg_ns"] - sum(ns) / 2) <= 1, t)
    check(min(t["peak_read_gbps"], t["peak_fma_tflops"], t["peak_int8_tops"]) > 0, t)
    if t["n_prompt"] and t["n_gen"]:
        check(t["bound"] is t["share"] is t["achieved_gbps"] is t["achieved_tflops"] is None, t)
    elif t["n_gen"]:
        steps = math.ceil(t["n_gen"] / t["tokens_per_step"])
        gbps = 1e-9 * t["avg_ts"] * t["weight_bytes"] * steps / t["n_gen"]
        check(t["bound"] == "read" and t["achieved_tflops"] is None, t)
        check(abs(t["achieved_gbps"] - gbps) < 1e-4 * gbps + 1e-6, t)
        check(abs(t["share"] - gbps / t["peak_read_gbps"]) < 1e-3 * t["share"] + 1e-6, t)
    else:
        batches = math.ceil(t["n_prompt"] / t["n_batch"])
        flops = 2 * (t["body_params"] + t["head_params"] * batches / t["n_prompt"])
        tflops = 1e-12 * flops * t["avg_ts"]
        peaks = {"fma": "peak_fma_tflops", "int8": "peak_int8_tops",
                 "tile_bf16": "peak_tile_bf16_tflops", "tile_int8": "peak_tile_int8_tops"}
        peak = t[peaks[t["bound"]]]
        tile = {"exact": "tile_bf16", "int8": "tile_int8"}[t["prefill"]]
        check((t["bound"] == tile) == (t["isa"] == "amx") and t["achieved_gbps"] is None, t)
        check(abs(t["achieved_tflops"] - tflops) < 1e-3 * tflops + 2e-6, t)
        check(abs(t["share"] - tflops / peak) < 1e-3 * t["share"] + 2e-6, t)


def bench(model, f32):
    quick = ["-r", 2, "-t", 1]
    r = good("bench", "-m", model, "-p", "8,16", "-n", 4, "-pg", "8,2", "-d", "0,8", "-b", 8, *quick,
             "-o", "json")
    tests = json.loads(r.out)
    check([(t["n_prompt"], t["n_gen"], t["n_depth"]) for t in tests] ==
          [(p, n, d) for d in (0, 8) for p, n in ((8, 0), (16, 0), (0, 4), (8, 2))], r)
    for t in tests:
        check([k for k in t if k in FIELDS] == FIELDS, "llama-bench's fields:", list(t))
        check(set(OWN) <= set(t) and t["n_threads"] == 1 and t["n_batch"] == 8, t)
        check(t["bound"] in (None, "read", "int8", "tile_bf16"), "Q8_0 is int8:", t)
        check(t["model_filename"] == model, t)
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", t["test_time"]), t)
        check_numbers(t)
    # what a token reads: all matrices, the embedding only if it is the output matrix too
    dump = json.loads(good("inspect", model, "--json").out)["tensors"]
    two = [t for t in dump if len(t["shape"]) == 2]
    if any(t["name"] == "output.weight" for t in two):
        two = [t for t in two if t["name"] != "token_embd.weight"]
    params = sum(t["shape"][0] * t["shape"][1] for t in two)
    check(tests[0]["body_params"] + tests[0]["head_params"] == params, params, tests[0])
    check(tests[0]["weight_bytes"] == sum(t["bytes"] for t in two), tests[0])

    r = good("bench", "-m", f"{model},{f32}", "-p", 4, "-n", 0, *quick, "--no-warmup", "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(r.out)))
    check([row["bound"] for row in rows] in (["int8", "fma"], ["tile_bf16", "tile_bf16"]), r)
    check([row["model_filename"] for row in rows] == [model, f32], r)
    check(all(k in rows[0] for k in FIELDS + OWN) and rows[0]["achieved_gbps"] == "", rows[0])

    r = good("bench", "-m", model, "-m", f32, "-p", 4, "-n", 2, "-r", 1, "-t", "1,2", "--isa", "ref")
    lines = r.out.splitlines()
    check(len(lines) == 2 + 8 + 2 and lines[-1].startswith("build: "), r)
    check(len({len(line) for line in lines[:10]}) == 1, "columns don't line up", r)
    check(re.match(r"\| model +\| +size \| +params \| backend +\| threads \| +test \| +t/s \|",
                   lines[0]), lines[0])
    check(re.search(r"\| CPU ref +\| +1 \| +pp4 \| +[\d.]+ ± 0.00 \| +[\d.]+ TFLOPS \| +\d+ % of "
                    r"[\d.]+ TOPS int8 \|$", lines[2]), lines[2])
    check(re.search(r"\| +2 \| +tg2 \| .* GB/s \| +\d+ % of [\d.]+ GB/s read \|$", lines[5]), lines[5])
    # what was done in the repetitions, without the warm-up
    r = good("bench", "-m", model, "-p", 8, "-n", 3, *quick, "--stats", "-o", "json")
    check(r.err == "", r)
    for t in json.loads(r.out):
        matrix = [w for w in t["stats"]["work"] if w["matrix"]]
        evals = 2 * (t["n_gen"] or 1)
        flops = 2 * evals * (t["body_params"] * (t["n_prompt"] or 1) + t["head_params"])
        # behind the last layer's attention only the last token goes on
        check(0.5 * flops < t["stats"]["matrix_flops"] <= flops, flops, t["stats"])
        check(all(w["calls"] == evals * w["weights"] for w in matrix), evals, matrix)
    check(tests[0]["stats"] is None, tests[0])
    check(all(t["tokens_per_step"] == 1 and 0 < t["load_seconds"] < 60 for t in tests), tests)
    several(model, quick)
    r = good("bench", "-m", model, "-p", 8, "-n", 0, *quick, "--stats")
    check("matrix FLOPs on tiles" in r.err and r.err.startswith("\npp8, 2 repetitions\nwork "), r)
    # a model that isn't there ends the run, but what was printed is well-formed
    r = run("bench", "-m", model + ",missing.gguf", "-p", 1, "-n", 0, "-r", 1, "-t", 1, "-o", "json")
    check(r.rc == 1 and len(json.loads(r.out)) == 1 and "missing.gguf" in r.err, r)


def several(model, quick):
    """Several tokens a step: fewer evals, logits for each token."""
    r = good("bench", "-m", model, "-p", 4, "-n", 6, "-pg", "4,2", "--tokens-per-step", "1,4,16", *quick,
             "--stats", "-o", "json")
    tests = json.loads(r.out)
    check([(t["n_prompt"], t["n_gen"], t["tokens_per_step"]) for t in tests] ==
          [(4, 0, 1), (0, 6, 1), (0, 6, 4), (0, 6, 16), (4, 2, 1)], r)
    for t, evals in zip(tests, [1, 6, 2, 1, 3]):
        check_numbers(t)
        matrix = [w for w in t["stats"]["work"] if w["matrix"]]
        check(all(w["calls"] == 2 * evals * w["weights"] for w in matrix), evals, matrix)
        if not t["n_prompt"]: # every token goes through every matrix
            flops = 2 * 2 * 6 * (t["body_params"] + t["head_params"])
            check(t["stats"]["matrix_flops"] == flops, flops, t["stats"])
    r = good("bench", "-m", model, "-p", 0, "-n", 4, "-d", 3, "--tokens-per-step", 2, *quick)
    check("| tg4 m2 @ d3 |" in re.sub(" +", " ", r.out), r)
    bad(["bench", "-m", model, "-n", 12, "--tokens-per-step", 9, "-ub", 8], "--tokens-per-step 9 is more than the 8")
    bad(["bench", "-m", model, "--tokens-per-step", 0], "--tokens-per-step must be from 1")


# --- perplexity ----------------------------------------------------------------


def records(path, n_vocab):
    """The records of a file of logits: (log p of the next token, best token, log p of all)."""
    with open(path, "rb") as f:
        data = f.read()
    size = 16 + (2 * n_vocab + 3) // 4 * 4
    for at in range(32, len(data), size):
        top, step, following, best = struct.unpack_from("<fffi", data, at)
        q = struct.unpack_from(f"<{n_vocab}H", data, at + 16)
        yield following, best, [top - step * v for v in q]


def estimates(r):
    return [float(x) for x in re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)\n",
                                        r.out).groups()]


def figure(r, name):
    return [float(x) for x in re.search(rf"^{name}: +([\d.eE+-]+) \+/- ([\d.]+)", r.out,
                                        re.M).groups()]


def oracle(f32):
    """llama-perplexity -m f32.gguf -f alice.txt -c 64 -b 64 --chunks 3 says 17185.2624. (This model adds
    BOS: with the text's own tokens in its place it would be far off.)"""
    ppl, _ = estimates(good("perplexity", "-m", f32, "-f", TEXT, "-c", 64, "--chunks", 3, "--no-amx"))
    check(abs(ppl / 17185.2624 - 1) < 1e-3, ppl)


def perplexity(folder, model, other, foreign):
    args = ["perplexity", "-f", TEXT, "-c", 32, "--chunks", 3]
    r = good(*args, "-m", model)
    chunks = [float(x) for x in re.findall(r"\[\d\]([\d.]+),", r.out)]
    ppl, error = estimates(r)
    check(len(chunks) == 3 and chunks[-1] == ppl and 0 < error < ppl, r)
    same = [good(*args, "-m", model, "--no-amx", *ub).out for ub in ((), ("-ub", 7))] # tiles have many tokens only
    check(same[0] == same[1], "micro-batches show")
    counts = folder.name("stats.json")
    r2 = good(*args, "-m", model, "--stats", "--stats-json", counts)
    check(r2.out == r.out and "matrix FLOPs on tiles" in r2.err, r2)
    with open(counts) as f:
        check(json.load(f)["matrix_flops"] > 0)
    with open(TEXT, "rb") as f:
        piped = good("perplexity", "-f", "-", "-c", 32, "--chunks", 3, "-m", model, stdin=f.read())
    check(piped.out == r.out, piped)

    # saved: the printed figures follow from the file
    saved, saved2 = folder.name("a.logits"), folder.name("b.logits")
    check(good(*args, "-m", model, "--save-logits", saved).out == r.out)
    good(*args, "-m", other, "--save-logits", saved2)
    with open(saved, "rb") as f:
        head = f.read(32)
    magic, version, n_vocab, n_ctx, n_chunks = struct.unpack_from("<8sIIII", head)
    check((magic, version, n_ctx, n_chunks) == (b"TSLOGITS", 1, 32, 3), head)
    a, b = list(records(saved, n_vocab)), list(records(saved2, n_vocab))
    check(len(a) == 3 * 15 and all(abs(sum(map(math.exp, p)) - 1) < 1e-3 for _, _, p in a))
    nll = [-x for x, _, _ in a]
    mean = sum(nll) / len(nll)
    check(abs(math.exp(mean) / ppl - 1) < 1e-4, math.exp(mean), ppl)
    sd = math.sqrt(sum((x - mean) ** 2 for x in nll) / len(nll) / (len(nll) - 1))
    check(abs(sd * ppl / error - 1) < 1e-3, sd * ppl, error)

    r = good(*args, "-m", model, "--kl", saved)
    check(figure(r, "Mean KL divergence")[0] < 1e-5 and figure(r, "PPL ratio") == [1, 0], r)
    check(figure(r, "Same top token") == [100, 0] and estimates(r) == [ppl, error], r)
    r = good("perplexity", "-m", other, "-f", TEXT, "--kl", saved) # -c and chunks as in the file
    kl = [sum(math.exp(x) * (x - y) for x, y in zip(p, q)) for (_, _, p), (_, _, q) in zip(a, b)]
    kl_mean = sum(kl) / len(kl)
    check(abs(figure(r, "Mean KL divergence")[0] - kl_mean) < 1e-3 * kl_mean + 2e-6, r, kl_mean)
    same = sum(x[1] == y[1] for x, y in zip(a, b)) / len(a)
    check(abs(figure(r, "Same top token")[0] - 100 * same) < 1e-3, r, same)
    ratio = math.exp(sum(x[0] - y[0] for x, y in zip(a, b)) / len(a))
    check(abs(figure(r, "PPL ratio")[0] - ratio) < 1e-4 * ratio, r, ratio)
    check(abs(figure(r, "Base PPL")[0] - ppl) < 1e-3, r)

    wrong_files(folder, model, foreign, saved)


def wrong_files(folder, model, foreign, saved):
    kl = ["perplexity", "-m", model, "-f", TEXT, "--kl"]
    with open(saved, "rb") as f:
        data = f.read()
    changed = lambda name, d: folder.file(name, d)
    bad([*kl, changed("short.logits", data[:-5])], "bytes long, but its header asks for")
    bad([*kl, changed("long.logits", data + b"x")], "bytes long, but its header asks for")
    bad([*kl, changed("header.logits", data[:20])], "not a file of logits")
    bad([*kl, changed("empty.logits", b"")], "not a file of logits")
    bad([*kl, model], "not a file of logits")
    bad([*kl, changed("v.logits", data[:8] + b"\2\0\0\0" + data[12:])], "version 2")
    for at, value in [(12, 0), (12, 0xffffffff), (16, 0), (16, 0xffffffff), (20, 0), (20, 0xffffffff)]:
        bad([*kl, changed("n.logits", data[:at] + struct.pack("<I", value) + data[at + 4:])],
            "n.logits")
    bad([*kl, changed("hash.logits", data[:24] + bytes(8) + data[32:])], "another text")
    bad([*kl, folder.path], folder.path)
    bad([*kl, os.path.join(folder.path, "nofile")], "No such file")
    bad([*kl, saved, "-c", 64], "made with -c 32, not 64")
    bad([*kl, saved, "--save-logits", saved], "exclude each other")
    bad(["perplexity", "-m", foreign, "-f", TEXT, "--kl", saved], "vocabulary of")
    prose = folder.file("prose.txt", "Quite another text, but long enough for this. " * 100)
    bad(["perplexity", "-m", model, "-f", prose, "--kl", saved], "another text")
    bad(["perplexity", "-m", model, "-f", prose, "-c", 4000], "needs at least 8000")
    bad(["perplexity", "-m", model, "-f", TEXT, "--chunks", 0], "--chunks")
    bad(["perplexity", "-m", model, "-f", TEXT, "-c", 7], "-c must be from 8")
    bad(["perplexity", "-m", model, "-f", folder.file("empty.txt", "")], " tokens; a context of 512 needs")
    # writing: a folder that isn't there, a full disk; no half file stays (Folder looks)
    save = ["perplexity", "-m", model, "-f", TEXT, "-c", 32, "--chunks", 3, "--save-logits"]
    bad([*save, os.path.join(folder.path, "no", "x.logits")], "x.logits", "No such file")
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    r = run(*save, os.path.join(folder.path, "large.logits"), preexec_fn=small)
    check(r.rc == 1 and "large.logits: cannot be written: File too large" in r.err, r)
    r = run(*save, "/dev/full")
    check(r.rc == 1 and "/dev/full: cannot be written" in r.err, r)
    r = run(*save, "/dev/null")
    check(r.rc == 0 and not os.path.isfile("/dev/null"), r)


def ended(folder, model):
    """A signal while the file is written: status 128 + its number, no half file (Folder looks)."""
    path = os.path.join(folder.path, "ended.logits")
    text = folder.file("ended.txt", "Some words, and no end of them. " * 20000)
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = subprocess.Popen([TESSERA, "perplexity", "-m", model, "-f", text, "-c", "512",
                              "--save-logits", path], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, env=ENV)
        while p.poll() is None and not os.path.exists(path + ".part"):
            time.sleep(0.01)
        p.send_signal(signo)
        err = p.communicate(timeout=60)[1]
        check(p.returncode == 128 + signo, signo, "->", p.returncode, err)


info()
with Folder() as f:
    tiny = f.model("tiny.gguf")
    plan(tiny)
    f32 = f.model("f32.gguf", type="F32")
    bench(tiny, f32)
    oracle(f32)
    ended(f, tiny)
    perplexity(f, tiny, f.model("other.gguf", seed=2), f.model("gemma3.gguf", arch="gemma3"))
done("cli_measure")
