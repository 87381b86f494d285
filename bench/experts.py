#!/usr/bin/env python3
"""experts.py - mixtures of experts beside llama.cpp and ik_llama.cpp, in turns: on the CPU alone, with the experts on the
CPU and the rest on a GPU, and all on the GPU. Two tables as Markdown: medians, and ratios to the best other engine; and what
the plan predicts, made just before each of Tessera's runs.

    experts.py [--rounds N] [--type TYPE] [--arch ARCH] [--preset PRESET] [--model FILE] [-o FILE]

Without --model a model of random weights is made by `tessera synth` in /dev/shm, or in TMPDIR: Qwen3-30B-A3B's shape in Q4_0.

    TESSERA      default: build/release/tessera
    LLAMA_BENCH  llama-bench with CUDA and AMX; LLAMA_CPU_BENCH: with AMX alone; IK_BENCH: ik_llama.cpp's llama-bench.
                 What is unset is left out
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESSERA = os.environ.get("TESSERA", os.path.join(ROOT, "build", "release", "tessera"))
BEGIN = time.monotonic()
CPUS = str(len(os.sched_getaffinity(0)))

# name, prompts, tokens to decode; options of Tessera, and of the others by the variable that names them
CASES = [
    ("CPU alone", "512", 64, ["-ngl", "0"],
     {"LLAMA_CPU_BENCH": ["-ngl", "0", "-t", CPUS], "IK_BENCH": ["-ngl", "0", "-t", CPUS, "-rtr", "1", "-fmoe", "1"]}),
    ("experts on the CPU, the rest on the GPU", "512,4096", 64, ["-ngl", "99", "-cmoe"],
     {"LLAMA_BENCH": ["-ngl", "99", "-ncmoe", "999", "-lm", "none"]}),
    ("the same, -ub 2048", "4096", 0, ["-ngl", "99", "-cmoe", "-ub", "2048"],
     {"LLAMA_BENCH": ["-ngl", "99", "-ncmoe", "999", "-lm", "none", "-ub", "2048"]}),
    ("all on the GPU", "512,4096", 64, ["-ngl", "99"], {"LLAMA_BENCH": ["-ngl", "99", "-lm", "none"]}),
]


def run(program, options):
    """{test: tokens a second}"""
    r = subprocess.run([*program, *options, "-o", "json"], capture_output=True, text=True)
    if r.returncode:
        print("failed:", *program, *options, r.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return {}
    rows = json.loads(r.stdout[r.stdout.index("["):])
    return {f"pp{x['n_prompt']}" if x["n_prompt"] else f"tg{x['n_gen']}": x["avg_ts"] for x in rows}


def predict(model, own):
    """{test: tokens a second} as the plan has it"""
    r = subprocess.run([TESSERA, "plan", "-m", model, *own, "--json"], capture_output=True, text=True)
    if r.returncode:
        print("failed: plan", *own, r.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return {}
    p = json.loads(r.stdout)["predicted"]
    return {"pp512": p["prefill_tps"], "tg64": p["decode_tps"]}


def measure(model, rounds):
    out = {}
    for i in range(rounds):
        for name, prompts, gen, own, others in CASES:
            tests = ["-m", model, "-p", prompts, "-n", str(gen), "-r", "2"]
            todo = [("tessera", [TESSERA, "bench"], own)]
            todo += [(v, [os.environ[v]], o) for v, o in others.items() if os.environ.get(v)]
            for label, program, options in todo:
                print(f"== {time.monotonic() - BEGIN:4.0f} s  round {i + 1}", name, label, file=sys.stderr, flush=True)
                said = predict(model, own) if label == "tessera" else {}
                for test, tps in run(program, tests + options).items():
                    by = out.setdefault(f"{name}|{test}", {})
                    by.setdefault(label, []).append(tps)
                    if test in said and "-ub" not in own:
                        by.setdefault("predicted", []).append(said[test])
    return out


def table(data):
    names = {"LLAMA_BENCH": "llama.cpp", "LLAMA_CPU_BENCH": "llama.cpp", "IK_BENCH": "ik_llama.cpp"}
    print("| | test | Tessera | others | ratio to the best |\n|---|---|---|---|---|")
    for key, programs in data.items():
        where, test = key.split("|")
        own = programs.get("tessera", [])
        if not own:
            continue
        spread = f"{statistics.median(own):.0f} ({min(own):.0f} to {max(own):.0f})"
        others = {names[k]: statistics.median(v) for k, v in programs.items() if k in names}
        text = ", ".join(f"{k} {v:.0f}" for k, v in others.items())
        ratio = f"{statistics.median(own) / max(others.values()):.2f}" if others else ""
        print(f"| {where} | {test} | {spread} | {text} | {ratio} |")
    print("\n| | test | measured | predicted |\n|---|---|---|---|")
    for key, programs in data.items():
        if programs.get("predicted") and programs.get("tessera"):
            got, said = (statistics.median(programs[k]) for k in ("tessera", "predicted"))
            print(f"| {' | '.join(key.split('|'))} | {got:.0f} | {said:.0f} ({100 * (said / got - 1):+.0f} %) |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--type", default="Q4_0")
    p.add_argument("--arch", default="qwen3moe")
    p.add_argument("--preset", default="30b-a3b")
    p.add_argument("--model")
    p.add_argument("-o", "--output")
    args = p.parse_args()
    folder = os.environ.get("TMPDIR") or ("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())
    model = args.model or os.path.join(folder, f"{args.arch}-{args.preset}-{args.type}.gguf")
    made = not args.model and not os.path.exists(model)
    if made:
        subprocess.run([TESSERA, "synth", "--arch", args.arch, "--preset", args.preset, "--type", args.type, "-o", model],
                       check=True, stdout=subprocess.DEVNULL)
    try:
        data = measure(model, args.rounds)
    finally:
        if made:
            os.unlink(model)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as f:
            json.dump(data, f, indent=1)
    table(data)


main()
