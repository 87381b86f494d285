#!/usr/bin/env python3
"""The options for GPUs, with the library whose GPU is a stand-in (src/cuda/standin.h): which layers go
where, the same text at every split, and a sentence for everything that can't be."""
import json
import os
import re
import sys

from cli_tool import Folder, bad, check, done, good, run

LIBRARY = os.path.join(os.environ.get("TS_BUILD_DIR", ""), "tests", "libtessera_cuda_standin.so")
GPU = {"TESSERA_CUDA_LIBRARY": LIBRARY}
NONE = {"TESSERA_CUDA_LIBRARY": ""}
SANITIZED = "TS_SANITIZED" in os.environ


def text(model, *args, env):
    """Without streaming, which by itself is used or not as it is measured, and rounds otherwise."""
    return good("run", "-m", model, "-p", "Hello there", "-n", 6, "--ignore-eos", "--temp", 0, "--isa", "ref",
                "--stream", "off", *args, env=env)


def plan(model, *args, env=GPU):
    isa = [] if "--isa" in args else ["--isa", "ref"]
    stream = [] if "--stream" in args else ["--stream", "off"]
    return json.loads(good("plan", "-m", model, "--json", *isa, *stream, *args, env=env).out)


def layers(p):
    """On which device the attention output weight of each block is."""
    return [w["device"] for w in p["weights"] if "attn_output" in w["name"]]


def splits(model):
    want = text(model, env=NONE).out
    for n in ["1", "auto"] if SANITIZED else ["0", "1", "2", "3", "99", "all", "auto"]:
        r = text(model, "-ngl", n, env=GPU)
        check(r.out == want and "no GPU" not in r.err, "-ngl", n, "->", r, "wanted", want)
    for how in ["ffn_=CUDA0", "attn_q=cuda0"]:
        r = text(model, "-ot", how, env=GPU)
        check(r.out == want, how, "->", r, "wanted", want)
    r = text(model, "-ngl", "2", "-ot", "ffn_=CPU", "--stats", env=GPU)
    check(r.out == want and "CUDA0 cuda" in r.err and "copy" in r.err, r)
    # without the library, or anything in it, the CPU does it all, and one line says why
    for env in [NONE, {"TESSERA_CUDA_LIBRARY": "/nonexistent.so"}, {"TESSERA_CUDA_LIBRARY": "libm.so.6"}]:
        r = text(model, "-ngl", "2", env=env)
        check(r.out == want and r.err.count("no GPU is used: ") == 1, env, "->", r)
    # nobody asked for one: not a word
    for args in [[], ["-ngl", 0], ["-dev", "none"], ["-sm", "none"], ["-nkvo"]]:
        check(text(model, *args, env=NONE).err.count("GPU") == 0, args)
    for args in [[], ["-v"]]:
        r = good("run", "-m", model, "-p", "Hello", "-n", 2, *args, env=NONE)
        check(r.err.count("no GPU is used: ") == len(args), args, r)
    # the real library on a machine without a GPU: it loads, and says what is missing
    real = os.path.join(os.environ.get("TS_BUILD_DIR", ""), "libtessera_cuda.so")
    if os.path.exists(real) and not os.path.exists("/dev/nvidiactl"):
        r = text(model, "-ngl", "2", env={"TESSERA_CUDA_LIBRARY": real})
        check(r.out == want and "no GPU is used: there is no" in r.err, r)


def plans(model):
    for n, want in [("0", "CC"), ("1", "CG"), ("2", "GG"), ("3", "GG"), ("auto", "GG")]:
        p = plan(model, "-ngl", n)
        got = "".join("G" if d == "CUDA0" else "C" for d in layers(p))
        check(got == want, "-ngl", n, got)
        head = [w for w in p["weights"] if w["name"] == "output.weight"]
        check(head and (head[0]["device"] == "CUDA0") == (n in ("3", "auto")), n, head)
        cuda = [d for d in p["devices"] if d["name"] == "CUDA0"]
        check(len(cuda) == (n != "0"), n, p["devices"])
        on_gpu = [w for w in p["weights"] if w["device"] == "CUDA0"]
        check(all(w["kernel_set"] == "cuda" and w["layout"] == "source" for w in on_gpu))
        if cuda:
            check(cuda[0]["layers"] == want.count("G"))
            size = sum((w["bytes"] + 255) // 256 * 256 for w in on_gpu)
            check(cuda[0]["weight_bytes"] == size, cuda, size)
            # nothing is predicted for products of the ref kernel sets
            check((p["predicted"]["decode_tps"] > 0) == (n in ("3", "auto")), n, p["predicted"])
            check(p["n_gpu_layers"] == (3 if n == "auto" else int(n)), p["n_gpu_layers"])
            check([s["copy"] for s in p["segments"] if s["copy"]] == ["x", "logits" if n in ("3", "auto") else "x"], p["segments"])
            check(sum(s["steps"] for s in p["segments"]) == p["steps"], p["segments"])
    p = plan(model, "-ngl", "2", "-ot", "ffn_(gate|up)=CPU", "-ot", "blk.1.ffn_up=CUDA0")
    for w in p["weights"]:
        cpu = "ffn_gate" in w["name"] or w["name"] == "blk.0.ffn_up.weight" or not w["name"].startswith("blk.")
        check((w["device"] == "CPU") == cpu, w)
    out = good("plan", "-m", model, "-ngl", 1, env=GPU).out
    check("CUDA0" in out and "KV cache, 2" in out and "2 copies between devices" in out, out)


def bench(model):
    """Every -ngl of the list, each with what was decided; a split is compared with no peak of the CPU."""
    quick = ["bench", "-m", model, "-p", 12, "-n", 2, "-r", 1, "-t", 1, "--isa", "ref"]
    tests = json.loads(good(*quick, "-ngl", "0,1,all", "-o", "json", env=GPU).out)
    check([t["n_gpu_layers"] for t in tests] == [0, 0, 1, 1, 3, 3], tests)
    for t in tests:
        split = t["n_gpu_layers"] > 0
        check(t["gpu_info"] == ("CUDA0 stand-in" if split else ""), t)
        check(t["backends"] == ("CPU,CUDA" if split else "CPU"), t)
        check((t["bound"] is None) == (t["share"] is None) == split, t)
        check((t["achieved_gbps"] if t["n_gen"] else t["achieved_tflops"]) > 0, t)
    out = good(*quick, "-ngl", 1, "-ot", "ffn_up=CPU", env=GPU).out.splitlines()
    ngl = [c.strip() for c in out[0].split("|")].index("ngl")
    rows = [[c.strip() for c in l.split("|")] for l in out[2:4]]
    check(all(r[ngl] == "1" and "CPU ref, CUDA" in r for r in rows), out)
    check("ngl" not in good(*quick, "-n", 0, env=NONE).out)
    check("n_gpu_layers" in good(*quick, "-n", 0, "-o", "csv", env=NONE).out)
    bad([*quick, "-ngl", "1,x"], "-ngl wants a number of layers", env=GPU)
    bad([*quick, "-ngl", "3", "--vram-limit", "1K"], "CUDA0 would have to hold", env=GPU)


def automatic(model):
    """Without an option what fits goes to the GPU, but for the oracle's kernel sets."""
    check(plan(model, "--isa", "avx2")["n_gpu_layers"] == 3)
    check(plan(model)["n_gpu_layers"] == 0)
    check(plan(model, "--isa", "avx2", "-dev", "none")["n_gpu_layers"] == 0)
    check(plan(model, "--isa", "avx2", "--vram-limit", "1K")["n_gpu_layers"] == 0)
    r = good("run", "-m", model, "-p", "Hello", "-n", 4, "-v", env=GPU)
    check("CUDA0, stand-in: 2 of 2 layers" in r.err, r)


def lines(model):
    """Command lines as they are written for a machine with more CPUs."""
    base = ["run", "-m", model, "-t", 64, "-n", 100, "-p", "test"]
    tests = [[]] + [["-ngl", n] for n in (1, 10, 20, 30)] + [["-ngl", 20, "-b", 1024, "-c", 1024]]
    for args in tests:
        r = good(*base, *args, env=GPU)
        check(os.cpu_count() >= 64 or r.err.count("64 threads asked for, ") == 1, r)
        check(r.out.startswith("test") and "decode" in r.err, r)
        amx = run("run", "-m", model, "--amx", *base[3:], *args, env=GPU)
        check(amx.rc == 0 or (amx.rc == 1 and "amx" in amx.err and amx.out == ""), amx)


def choices(model):
    """-dev, -sm, -mg, -ts, -nkvo: what they do with one GPU, and what they can't."""
    want = text(model, env=NONE).out
    for args in [["-dev", "cuda0"], ["-sm", "none"], ["-sm", "none", "-mg", 0], ["-mg", 0], ["-ts", 1], ["-nkvo"],
                 ["-nkvo", "-ot", "attn_q=CPU"], ["-dev", "none"], ["-ncmoe", 0]]:
        r = text(model, "-ngl", 2, *args, env=GPU)
        check(r.out == want and ("no GPU is used" in r.err) == ("none" in args and "-dev" in args), args, "->", r)
    p = plan(model, "-ngl", 99, "-nkvo")
    check([d["kv_bytes"] > 0 for d in p["devices"]] == [True, False], p["devices"])
    check([d["layers"] for d in p["devices"]] == [2, 0] and [d["blocks"] for d in p["devices"]] == [0, 2], p["devices"])
    i = json.loads(good("info", "--json", env=GPU).out)
    check(i["gpus"] == [{"name": "CUDA0", "description": "stand-in", "total_bytes": 1 << 32, "free_bytes": 1 << 32}]
          and i["gpus_why_not"] is None, i["gpus"])
    i = json.loads(good("info", "--json", env=NONE).out)
    check(i["gpus"] == [] and "no GPU can be used: " in i["gpus_why_not"], i)
    out = good("info", env=GPU).out
    check("  CUDA0        stand-in, 4.00 GiB, 4.00 GiB free\n" in out, out)
    out = good("plan", "--list-devices", env=GPU).out
    check(re.fullmatch(r"CPU: .+\nCUDA0: stand-in, 4.00 GiB, 4.00 GiB free\n", out), out)
    for c in ["run", "bench", "perplexity"]:
        check(good(c, "--list-devices", env=GPU).out == out, c)
    r = good("run", "--list-devices", env=NONE)
    check(r.out.count("\n") == 1 and "no GPU can be used: " in r.err, r)
    for args, says in [
            (["-dev", "CUDA1"], ["there is no device 'CUDA1' to be used", "there are CUDA0"]),
            (["-dev", "CUDA0,cuda0"], ["the device CUDA0 is named twice"]),
            (["-dev", "CUDA0,"], ["there is no device ''"]),
            (["-mg", 1], ["the main GPU is number 1; 1 are to be used"]),
            (["-ts", "1,1"], ["shares are given for 2 GPUs; 1 are to be used"]),
            (["-ts", "0"], ["all shares of the GPUs are 0"]),
            (["-ts", "x"], ["-ts wants numbers"]),
            (["-ts", "nan"], ["-ts wants numbers"]),
            (["-ts=-1"], ["the share of CUDA0 is -1"]),
            (["-sm", "none", "-ts", "1"], ["exclude each other"]),
            (["-sm", "row"], ["-sm is one of layer|none"]),
            (["-cmoe"], ["the model has no experts"]),
            (["-ncmoe", 1], ["the model has no experts"]),
            (["-cmoe", "-ncmoe", 1], ["exclude each other"])]:
        bad(["plan", "-m", model, "-ngl", 2, *args], *says, env=GPU)
    bad(["plan", "-m", model, "-dev", "CUDA0"], "there is no device 'CUDA0' to be used; no GPU can be used: ", env=NONE)
    bad(["run", "-m", model, "-p", "x", "-cmoe"], "the model has no experts", env=NONE)


def full(model):
    """Two GPUs, the first of them or both too full to be used: who was left out is said, and the other one works."""
    want = text(model, env=NONE).out
    env = {**GPU, "TS_STANDIN_GPUS": "2", "TS_STANDIN_FULL": "1"}
    says = "not every GPU can be used: GPU 0: told to fail"
    r = text(model, "-ngl", 2, "-v", env=env)
    check(r.out == want and r.err.count(says) == 1 and "CUDA1, stand-in: 2 of 2 layers" in r.err, r)
    check(says in good("run", "-m", model, "-p", "Hello", "-n", 4, env=env).err)
    for args in [["-ngl", 0], ["-ngl", 2, "-dev", "CUDA1"]]:
        r = text(model, *args, env=env)
        check(r.out == want and "GPU" not in r.err, args, "->", r)
    bad(["plan", "-m", model, "-dev", "CUDA0"], "there is no device 'CUDA0' to be used; there are CUDA1; GPU 0: told to fail",
        env=env)
    check("CUDA1: stand-in" in good("plan", "--list-devices", env=env).out)
    env["TS_STANDIN_FULL"] = "2"
    r = text(model, "-ngl", 2, env=env)
    check(r.out == want and r.err.count("no GPU is used: GPU 0: told to fail, GPU 1: told to fail") == 1, r)
    env["TS_STANDIN_FULL"] = "0"
    r = text(model, "-ngl", 2, "-v", env=env)
    check(r.out == want and "GPU can" not in r.err and "CUDA0, stand-in: 1 of 2 layers" in r.err, r)


def planned(model):
    """GPUs that aren't there."""
    h100 = "H100,78G,3000GB/s,50GB/s,900TFLOPS"

    def with_gpus(*gpus, args=()):
        out = good("plan", "-m", model, "--json", "--isa", "avx2", *args, *[f"--gpu={g}" for g in gpus], env=NONE).out
        return json.loads(out)

    p = with_gpus(h100)
    gpu = p["devices"][1]
    check(p["n_gpu_layers"] == 3 and gpu["name"] == "CUDA0", p)
    check((gpu["read_gbs"], gpu["link_gbs"], gpu["tflops"]) == (3000, 50, 900), gpu)
    check(gpu["room_bytes"] == (78 << 30) - (78 << 30) // 16, gpu)
    check(p["predicted"]["decode_tps"] > 0 and p["predicted"]["prefill_tps"] > 0, p)
    slow = with_gpus("slow,78G,3GB/s,0.05GB/s,0.9TFLOPS")["predicted"]
    check(all(slow[k] < p["predicted"][k] for k in slow), slow, p["predicted"])
    check(with_gpus("a,4G,100GB/s,10GB/s")["devices"][1]["tflops"] > 0)
    two = with_gpus(h100, "L4, 24G,300GB/s,25GB/s".replace(" ", ""), args=["-ts", "1,1"])
    check([d["blocks"] for d in two["devices"]] == [0, 1, 1], two["devices"])
    two = with_gpus(h100, h100, args=["-dev", "CUDA1", "-ngl", "1"])
    check([d["name"] for d in two["devices"]] == ["CPU", "CUDA1"], two["devices"])
    two = with_gpus(h100, h100, args=["-ts", "1,1", "-mg", "0"])
    check([w["device"] for w in two["weights"] if w["name"] == "output.weight"] == ["CUDA0"], two["weights"])
    bad(["plan", "-m", model, "--gpu", "H100,1M,3TB/s,50GB/s", "-ngl", 2], "CUDA0 would have to hold", env=NONE)
    for spec, says in [("H100", "'H100' describes no GPU"), ("", "describes no GPU"), (",1G,1GB/s,1GB/s", "describes no"),
                       (h100 + ",1", "describes no GPU"), ("x,1Q,1GB/s,1GB/s", "'1Q' in 'x,1Q,1GB/s,1GB/s' is no memory"),
                       ("x,1G,1,1GB/s", "'1' in 'x,1G,1,1GB/s' is no bandwidth"),
                       ("x,1G,1GB/s,-1GB/s", "is no speed of its link"), ("x,1G,1GB/s,0GB/s", "is no speed of its link"),
                       ("x,1G,1GB/s,1GB/s,1", "is no peak"), ("x,1G,1GB/s,infGB/s", "is no speed of its link"),
                       ("x,1G,1GB/s,1GB/s,", "'' in"), ("x,,1GB/s,1GB/s", "'' in")]:
        bad(["plan", "-m", model, f"--gpu={spec}"], says, env=NONE)
    bad(["plan", "-m", model, *["--gpu=" + h100] * 9], "9 GPUs to plan for; at most 8", env=NONE)
    out = good("plan", "-m", model, "--gpu", h100, "-ngl", 1, env=NONE).out
    check("copy of x from CPU" in out and " output\n" in out and "blocks 0" not in out and "block 0\n" in out and "3000 GB/s read, 50.0 GB/s link, 900 TFLOPS" in out, out)


def limits(model):
    need = [d for d in plan(model, "-ngl", "99")["devices"] if d["name"] == "CUDA0"][0]
    size = need["weight_bytes"] + need["kv_bytes"] + need["buffer_bytes"]
    check(layers(plan(model, "-ngl", "auto", "--vram-limit", str(size))) == ["CUDA0"] * 2)
    check(layers(plan(model, "-ngl", "auto", "--vram-limit", str(size - 1)))[0:2] != ["CUDA0"] * 2 or
          plan(model, "-ngl", "auto", "--vram-limit", str(size - 1))["devices"][1]["weight_bytes"] <
          need["weight_bytes"])
    check(layers(plan(model, "-ngl", "auto", "--vram-limit", "1K")) == ["CPU"] * 2)
    bad(["plan", "-m", model, "-ngl", 2, "--vram-limit", "1M"], "CUDA0 would have to hold", "has room for", env=GPU)


def taken_meanwhile(model):
    """The GPU's memory is another's when it is wanted: less goes there, one warning, the same text."""
    want = text(model, env=NONE).out
    sizes = {d["name"]: d for d in plan(model, "-ngl", 1)["devices"]}["CUDA0"]
    one = sum(sizes[k] for k in ("weight_bytes", "kv_bytes", "buffer_bytes"))
    blas = 64 << 20  # is planned for, and never taken by a stand-in
    for free, layers in [(one, 1), (one - 1, 0), (sizes["weight_bytes"], 0), (0, 0)]:
        # a plan leaves a margin of 256 MiB
        env = {**GPU, "TS_STANDIN_ROOM": str(max(free - blas + 4096, 0)), "TS_STANDIN_FREE": str(free + (256 << 20))}
        for n in ["2", "all", "auto"]:
            r = text(model, "-ngl", n, env=env)
            check(r.out == want, n, free, r)
            check(r.err.count("warning: ") == 1 and f"; {layers} of 2 layers are on GPUs instead of 2" in r.err, n, free, r)


def streams(folder, model):
    """A long prompt's products: all on the GPU with --stream on, a part without."""
    flops, said = {}, {}
    for mode in ["on", "off", "auto"]:
        file = os.path.join(folder.path, mode + ".json")
        r = good("run", "-m", model, "-p", "Hello there, " * 20, "-n", 2, "--temp", 0, "--ignore-eos", "-ngl", 1, "-v",
                 "--stream", mode, "--stats-json", file, env=GPU)
        work = json.load(open(file))["work"]
        flops[mode] = {w["device"]: w["flops"] for w in work if w["name"] == "cuda" or w["device"] == "CPU" and w.get("flops")}
        said[mode] = r.err
        os.remove(file)
    check(flops["on"]["CUDA0"] > 1.8 * flops["off"]["CUDA0"], flops)
    check("ms on the CPU" in said["auto"] and "ms on the CPU" not in said["off"], said["auto"])
    on = plan(model, "-ngl", 1, "--stream", "on")
    check(on["streamed"]["device"] == "CUDA0" and on["streamed"]["layers"] == 1 and on["streamed"]["under_way_bytes"] > 0, on)
    none = plan(model, "-ngl", 0, "--stream", "on")  # no layer is there, all of them can be brought
    check(none["streamed"]["layers"] == 2 and none["n_gpu_layers"] == 0, none)
    check(plan(model, "-ngl", 0, "--stream", "auto")["streamed"]["layers"] == 0)
    off = plan(model, "-ngl", 1)
    check(off["streamed"]["device"] is None and off["streamed"]["layers"] == 0, off)
    check("1 layers can be streamed to CUDA0" in good("plan", "-m", model, "-ngl", 1, env=GPU).out)
    bad(["run", "-m", model, "--stream", "maybe"], "--stream", env=GPU)
    r = good("bench", "-m", model, "-ngl", 1, "--calibrate", "-p", "16,40", "-r", 1, env=GPU).out
    for mode in ["off", "on", "auto"]:
        check(r.count(f"| {mode:6} |") == 2, mode, r)
    check("of the better" in r and re.search(r"^\| 16 \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|$", r, re.M), r)
    bad(["bench", "-m", model, "-ngl", "1,2", "--calibrate"], "--calibrate is for one model", env=GPU)


def refusals(model):
    for n in ["-1", "x", "1x", "", "99999999999999999999"]:
        bad(["run", "-m", model, f"-ngl={n}"], "-ngl wants a number of layers", env=GPU)
    for size in ["x", "6Q", "0", "-1G", "1GG"]:
        bad(["plan", "-m", model, "-ngl", 1, f"--vram-limit={size}"], "--vram-limit wants a size", env=GPU)
    bad(["plan", "-m", model, "-ot", "ffn_"], "is not of the form PATTERN=DEVICE", env=GPU)
    bad(["plan", "-m", model, "-ot", "ffn_=CUDA7"], "there is no device 'CUDA7'", env=GPU)
    bad(["plan", "-m", model, "-ot", "ffn_=CUDA0"], "there is no device 'CUDA0'", env=NONE)
    bad(["plan", "-m", model, "-ot", "no_such=CPU"], "no weight has a name in which the pattern 'no_such'", env=GPU)
    bad(["plan", "-m", model, "-ot", "(=CPU"], "is no regular expression", env=GPU)


if not os.path.exists(LIBRARY):
    print("no stand-in for a GPU was built: it takes a C++ compiler")
    sys.exit(77)
with Folder() as folder:
    model = folder.model("m.gguf", type="Q4_K_M")
    splits(model)
    plans(model)
    bench(model)
    automatic(model)
    if not SANITIZED:  # 100 tokens each on a GPU that is none
        lines(model)
        taken_meanwhile(model)
    choices(model)
    full(model)
    planned(model)
    limits(model)
    streams(folder, model)
    refusals(model)
done("gpu_cli")
