#!/usr/bin/env python3
"""hybrid.py - a model split between CPU and GPU: measured beside llama.cpp, against the plan's prediction, at every -ngl.

    hybrid.py [--only PART[,PART]] [--rounds N] [--model FILE] [-o FILE]     measures; FILE is JSON, default hybrid.json
    hybrid.py --table FILE                                                    its tables as Markdown
    hybrid.py --plot FILE > hybrid.svg                                        decode and prefill against -ngl

Parts: peers (all layers on the GPU and half of them, prompts of several lengths, in turns with llama.cpp), sweep (every
fourth -ngl, with the plan's prediction), limits (--vram-limit 2G, 4G and none: automatic against by hand). Without --model a
Llama of 8B parameters in Q4_0 is made by `tessera synth` in /dev/shm, or in TMPDIR.

    TESSERA      default: build/release/tessera
    LLAMA_BENCH  llama-bench with CUDA and AMX; left out when unset
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESSERA = os.environ.get("TESSERA", os.path.join(ROOT, "build", "release", "tessera"))
LLAMA = os.environ.get("LLAMA_BENCH")
BEGIN = time.monotonic()

# what is measured beside the peer: -ngl, its name, prompts, tokens to decode, more options
PEERS = [
    ("99", "all on the GPU", "512,4096", 64, []),
    ("16", "16 of 32 layers on the GPU", "16,64,512,4096", 32, []),
    ("16", "16 of 32 layers on the GPU, -ub 2048", "4096", 0, ["-ub", "2048"]),
]
SWEEP = ["0", "4", "8", "12", "16", "20", "24", "28", "32", "33"]


def say(*words):
    print(f"== {time.monotonic() - BEGIN:4.0f} s ", *words, file=sys.stderr, flush=True)


def call(command):
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        say("failed:", " ".join(command), "->", r.stderr.strip().splitlines()[-1:] or r.returncode)
        return None
    return json.loads(r.stdout[r.stdout.index("[" if r.stdout.lstrip().startswith("[") else "{"):])


def bench(program, model, ngl, prompts, gen, more=(), repeat=2):
    """[{name, ngl, tps}]; one call, all tests."""
    rows = call(([program, "bench"] if program == TESSERA else [program]) +
                ["-m", model, "-ngl", ngl, "-p", prompts or "0", "-n", str(gen),
                 "-r", str(repeat), "-o", "json", *more])
    out = []
    for r in rows or []:
        name = f"pp{r['n_prompt']}" if r["n_prompt"] else f"tg{r['n_gen']}"
        out.append({"test": name, "ngl": r["n_gpu_layers"], "tps": r["avg_ts"], "gpu": r.get("gpu_info", ""),
                    "cpu": r.get("cpu_info", "")})
    return out


def measure_peers(model, rounds):
    out = []
    for n in range(rounds):
        for ngl, what, prompts, gen, more in PEERS:
            for name, program in [("tessera", TESSERA), ("llama.cpp", LLAMA)]:
                if program:
                    say("round", n + 1, what, name)
                    # the peer's weights are pinned, and so quicker on their way, when the file isn't mapped
                    own = [] if name == "tessera" else ["-lm", "none"]
                    out += [{**r, "round": n, "what": what, "program": name}
                            for r in bench(program, model, ngl, prompts, gen, more + own)]
    return out


def measure_sweep(model):
    say("sweep", ",".join(SWEEP))
    out = bench(TESSERA, model, ",".join(SWEEP), "512", 32)
    for ngl in SWEEP:
        say("prediction", ngl)
        p = call([TESSERA, "plan", "-m", model, "-ngl", ngl, "--json"])
        if p:
            out += [{"test": t, "ngl": int(ngl), "predicted": p["predicted"][k]}
                    for t, k in [("pp512", "prefill_tps"), ("tg32", "decode_tps")]]
    return out


def measure_limits(model):
    out = []
    for limit in ["2G", "4G", "none"]:
        how, more = ["auto"], [] if limit == "none" else ["--vram-limit", limit]
        while how:
            ngl = how.pop(0)
            say("limit", limit, "-ngl", ngl)
            rows = bench(TESSERA, model, ngl, "512", 32, more)
            if ngl == "auto" and rows and not any(r["limit"] == limit for r in out):
                n = rows[0]["ngl"]  # and by hand what is near: more than fits is refused
                how = [str(i) for i in range(max(1, n - 2), n + 2)] + ["auto"]
            out += [{**r, "limit": limit, "how": ngl} for r in rows]
    return out


def measure(args):
    model, made = args.model, None
    if not model:
        made = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        model = os.path.join(made, "8b-q4_0.gguf")
        subprocess.run([TESSERA, "synth", "--preset", "8b", "--type", "Q4_0", "-o", model], check=True, stdout=2)
    data = {"date": datetime.date.today().isoformat(), "command": " ".join(sys.argv)}
    try:
        if "peers" in args.only:
            data["peers"] = measure_peers(model, args.rounds)
        if "sweep" in args.only:
            data["sweep"] = measure_sweep(model)
        if "limits" in args.only:
            data["limits"] = measure_limits(model)
    finally:
        if made:
            os.remove(model)
            os.rmdir(made)
    with open(args.output, "w") as f:
        json.dump(data, f, indent=1)
    table(data)


# --- tables ------------------------------------------------------------------


def median(rows, **like):
    v = [r["tps"] for r in rows if "tps" in r and all(r.get(k) == w for k, w in like.items())]
    return statistics.median(v) if v else None


def table(data):
    peers, sweep, limits = (data.get(k, []) for k in ("peers", "sweep", "limits"))
    if peers:
        print("| | test | tessera | llama.cpp | ratio |\n|---|---|---|---|---|")
        for what in dict.fromkeys(r["what"] for r in peers):
            for test in dict.fromkeys(r["test"] for r in peers if r["what"] == what):
                t, o = (median(peers, what=what, test=test, program=p) for p in ("tessera", "llama.cpp"))
                print(f"| {what} | {test} | {t or 0:.0f} | {'' if o is None else f'{o:.0f}'} |"
                      f" {'' if not (t and o) else f'{t / o:.2f}'} |")
    if sweep:
        print("\n| -ngl | decode | predicted | pp512 | predicted |\n|---|---|---|---|---|")
        for ngl in dict.fromkeys(r["ngl"] for r in sweep):
            cells = []
            for test in ("tg32", "pp512"):
                t = median(sweep, ngl=ngl, test=test)
                p = next((r["predicted"] for r in sweep if r["ngl"] == ngl and r["test"] == test and "predicted" in r), 0)
                cells += [f"{t or 0:.1f}", f"{p:.1f} ({100 * (p / t - 1):+.0f} %)" if t else ""]
            print(f"| {ngl} | {' | '.join(cells)} |")
    if limits:
        print("\n| limit | -ngl | decode | pp512 |\n|---|---|---|---|")
        for limit, how in dict.fromkeys((r["limit"], r["how"]) for r in limits):
            t, p = (median(limits, limit=limit, how=how, test=x) or 0 for x in ("tg32", "pp512"))
            n = next(r["ngl"] for r in limits if r["limit"] == limit and r["how"] == how)
            print(f"| {limit} | {how}{f' ({n})' if how == 'auto' else ''} | {t:.1f} | {p:.0f} |")


# --- plot ----------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, DOWN = 860, 420, 70, 50, 60


def plot(data):
    """Two charts side by side; both axes linear, measured as a line, predicted as circles."""
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
           'font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for i, (test, title) in enumerate([("tg32", "decode, tokens/s"), ("pp512", "prefill of 512, tokens/s")]):
        rows = [r for r in data["sweep"] if r["test"] == test]
        got = sorted((r["ngl"], r["tps"]) for r in rows if "tps" in r)
        want = sorted((r["ngl"], r["predicted"]) for r in rows if "predicted" in r)
        x0, w, h = LEFT + i * WIDTH // 2, WIDTH // 2 - LEFT - 30, HEIGHT - TOP - DOWN
        top = max(v for _, v in got + want) * 1.05
        most = max(n for n, _ in got)

        def at(n, v):
            return x0 + w * n / most, TOP + h - h * v / top

        out.append(f'<text x="{x0}" y="{TOP - 20}" font-size="14">{title}</text>')
        for j in range(6):
            y = TOP + h - h * j / 5
            out.append(f'<line x1="{x0}" y1="{y:.1f}" x2="{x0 + w}" y2="{y:.1f}" stroke="#ddd"/>'
                       f'<text x="{x0 - 8}" y="{y + 4:.1f}" text-anchor="end">{top * j / 5:.0f}</text>')
        for n, _ in got:
            if (n % 8 == 0 and most - n > 3) or n == most:
                out.append(f'<text x="{at(n, 0)[0]:.1f}" y="{TOP + h + 18}" text-anchor="middle">{n}</text>')
        out.append(f'<text x="{x0 + w / 2}" y="{TOP + h + 40}" text-anchor="middle">-ngl</text>')
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in got))
        out.append(f'<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="2"/>')
        for n, v in want:
            x, y = at(n, v)
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#c2410c" stroke-width="1.5"/>')
    out.append(f'<text x="{WIDTH - 30}" y="20" text-anchor="end">line: measured, circles: predicted by the plan</text></svg>')
    print("\n".join(out))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="peers,sweep,limits")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--model")
    p.add_argument("-o", "--output", default="hybrid.json")
    p.add_argument("--table", metavar="FILE")
    p.add_argument("--plot", metavar="FILE")
    args = p.parse_args()
    if args.table or args.plot:
        with open(args.table or args.plot) as f:
            data = json.load(f)
        (table if args.table else plot)(data)
        return
    args.only = args.only.split(",")
    measure(args)


if __name__ == "__main__":
    main()
