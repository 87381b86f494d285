#!/usr/bin/env python3
"""xeon_table.py - what bench/xeon.sh measured, as one JSON file and as tables.

    xeon_table.py collect DIR      DIR/meta.tsv, runs.tsv and the outputs named there -> JSON on stdout
    xeon_table.py table FILE       that JSON -> Markdown on stdout

The JSON has `meta`, `runs` (each command with what it printed) and `rows`: the floors, each a figure, what it is held
against, and their quotient. A share is of a peak that the same process measured; a ratio is of medians over rounds that
took turns.
"""
import json
import os
import re
import statistics
import sys

PEERS = ["llama.cpp", "ik_llama.cpp", "ik_llama.cpp-rtr"]


def collect(folder):
    def lines(name):
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            return [line.rstrip("\n").split("\t") for line in f]

    meta = dict(lines("meta.tsv"))
    runs = []
    for part, model, who, number, rc, seconds, file, command in lines("runs.tsv"):
        with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as f:
            text = f.read()
        runs.append({"part": part, "model": model, "who": who, "round": int(number), "rc": int(rc),
                     "seconds": float(seconds), "command": re.sub(r"(?<!\S)[^\s-]\S*/", "", command),
                     "output": parse(text) if rc == "0" else None})
    return {"meta": meta, "runs": runs, "rows": rows(runs)}


def parse(text):
    """JSON, behind whatever else a program wrote to stdout before it; None if there is none."""
    for m in re.finditer(r"^[\[{]", text, re.M):
        try:
            return json.JSONDecoder().raw_decode(text, m.start())[0]
        except ValueError:
            pass
    return None


# --- picking figures out -------------------------------------------------------


def some(runs, part, **keys):
    return [r for r in runs if r["part"] == part and r["output"] and
            all(r[k] == v for k, v in keys.items())]


def unique(items):
    return list(dict.fromkeys(items))


def kernel_share(k):
    if k["m"] == 1:
        return k["gbs"] / k["read_gbs"]
    return k["gflops"] / (k["tile_bf16_gflops"] or k["peak_gflops"])


def kernel_rows(runs):
    """Of a size that was measured several times, the one with the median share."""
    all_rows = [k for r in some(runs, "kernels") for k in r["output"]]
    out = []
    for key in unique((k["type"], k["n"], k["k"], k["m"]) for k in all_rows):
        same = sorted((k for k in all_rows if (k["type"], k["n"], k["k"], k["m"]) == key), key=kernel_share)
        out.append(same[(len(same) - 1) // 2])
    return out


def tests(runs, part, model, who, prompt):
    """The tests with (or without) a prompt, one or more a round."""
    return [t for r in some(runs, part, model=model, who=who) for t in r["output"]
            if bool(t["n_prompt"]) == prompt]


def median_of(results, field):
    return statistics.median(t[field] for t in results)


def failed(runs):
    return [r for r in runs if not r["output"]]


# --- the floors ----------------------------------------------------------------


def row(what, value, unit, against, base, quotient):
    return {"what": what, "value": value, "unit": unit, "against": against, "base": base,
            "quotient": quotient}


def kernel_floors(runs):
    out, kernels = [], kernel_rows(runs)
    for m, what in (512, "prefill"), (1, "decode"):
        for k in kernels:
            if k["m"] != m:
                continue
            name = f"kernel {what}, {k['type']} {k['n']}x{k['k']}, m={m}"
            if m == 1:
                out.append(row(name, k["gbs"], "GB/s", "read", k["read_gbs"], k["gbs"] / k["read_gbs"]))
            else:
                kind = "tile_bf16" if k["tile_bf16_gflops"] else k["peak"]
                peak = k["tile_bf16_gflops"] or k["peak_gflops"]
                out.append(row(name, k["gflops"] / 1e3, "TFLOPS", kind, peak / 1e3, k["gflops"] / peak))
    return out


BOUNDS = {"read": "peak_read_gbps", "fma": "peak_fma_tflops", "int8": "peak_int8_tops",
          "tile_bf16": "peak_tile_bf16_tflops", "tile_int8": "peak_tile_int8_tops"}


def e2e_floors(runs):
    out = []
    for prompt in True, False:
        for model in unique(r["model"] for r in some(runs, "e2e")):
            ours = tests(runs, "e2e", model, "tessera", prompt)
            if not ours:
                continue
            name = f"{test_name(ours[0])}, {model}"
            field, unit = ("achieved_tflops", "TFLOPS") if prompt else ("achieved_gbps", "GB/s")
            out.append(row(name, median_of(ours, field), unit, ours[0]["bound"],
                           median_of(ours, BOUNDS[ours[0]["bound"]]), median_of(ours, "share")))
            speed = median_of(ours, "avg_ts")
            theirs = {who: median_of(t, "avg_ts") for who in PEERS
                      if (t := tests(runs, "e2e", model, who, prompt))}
            if theirs:
                best = max(theirs, key=theirs.get)
                for who in unique(["llama.cpp"] * ("llama.cpp" in theirs) + [best]):
                    against = who + " (the best peer)" * (who == best)
                    out.append(row(name, speed, "tok/s", against, theirs[who], speed / theirs[who]))
            if prompt and (int8 := tests(runs, "e2e", model, "tessera-int8", True)):
                name = f"{test_name(int8[0])} --prefill int8, {model}"
                bound = int8[0]["bound"]
                out.append(row(name, median_of(int8, "achieved_tflops"), "TFLOPS", bound,
                               median_of(int8, BOUNDS[bound]), median_of(int8, "share")))
                fast = median_of(int8, "avg_ts")
                for who, base in [("exact prefill", speed)] + [(w, theirs[w]) for w in theirs if w == "llama.cpp"]:
                    out.append(row(name, fast, "tok/s", who, base, fast / base))
    return out


def test_name(t):
    name = f"pp{t['n_prompt']}" * bool(t["n_prompt"]) + f"tg{t['n_gen']}" * bool(t["n_gen"])
    return name + (f" m{t['tokens_per_step']}" if t.get("tokens_per_step", 1) > 1 else "")


def step_floors(runs):
    """Several tokens a step: medians over the rounds, each ratio within one process."""
    out = []
    for model in unique(r["model"] for r in some(runs, "steps")):
        rounds = [{t["tokens_per_step"]: t for t in r["output"]} for r in some(runs, "steps", model=model)]
        for n in sorted(set.intersection(*(set(r) for r in rounds)) - {1}):
            out.append(row(f"{test_name(rounds[0][n])}, {model}", statistics.median(r[n]["avg_ts"] for r in rounds),
                           "tok/s", test_name(rounds[0][1]), statistics.median(r[1]["avg_ts"] for r in rounds),
                           statistics.median(r[n]["avg_ts"] / r[1]["avg_ts"] for r in rounds)))
    for r in some(runs, "long"):
        # the first of two short ones was the warm-up
        short = [t for t in r["output"] if t["n_prompt"] == 512][-1]
        for t in r["output"]:
            if t["n_prompt"] > 512:
                out.append(row(f"{test_name(t)}, {r['model']}", t["avg_ts"], "tok/s", test_name(short),
                               short["avg_ts"], t["avg_ts"] / short["avg_ts"]))
    return out


def load_floors(runs):
    out = []
    for k in kernel_rows(runs):
        if k["m"] == 512 and k["pack_gbs"]:
            out.append(row(f"pack, {k['type']} {k['n']}x{k['k']}", k["pack_gbs"], "GB/s", "read",
                           k["read_gbs"], k["pack_gbs"] / k["read_gbs"]))
    for model in unique(r["model"] for r in some(runs, "load")):
        plain = [t for part, who in (("load", "plain"), ("e2e", "tessera"))
                 for r in some(runs, part, model=model, who=who) for t in r["output"][:1]]
        base = None
        for who, loads in [("packing", plain)] + [
                (name, [t for r in some(runs, "load", model=model, who=key) for t in r["output"]])
                for name, key in (("writing the pack cache", "cache-write"), ("from the pack cache", "cache-read"))]:
            if not loads:
                continue
            seconds = median_of(loads, "load_seconds")
            speed = loads[0]["model_size"] / seconds / 1e9
            out.append(row(f"load, {model}, {who}", seconds, "s", "GB/s of the file's tensors", speed,
                           base / seconds if base else None))
            base = base or seconds
    return out


def rows(runs):
    return kernel_floors(runs) + e2e_floors(runs) + step_floors(runs) + load_floors(runs)


# --- Markdown ------------------------------------------------------------------


def table(head, body):
    if not body:
        return []
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(line) + " |" for line in body), ""]


def number(x):
    if x is None:
        return "–"
    return f"{x:.3f}" if abs(x) < 10 else f"{x:.1f}"


def limits(runs):
    infos = some(runs, "info")
    names = [("read", "read_gbs", "GB/s", 1), ("float FMA", "fma_gflops", "TFLOPS", 1e3),
             ("int8 VNNI", "int8_gops", "TOPS", 1e3), ("tile int8", "tile_int8_gops", "TOPS", 1e3),
             ("tile bf16", "tile_bf16_gflops", "TFLOPS", 1e3)]
    body = [[name, *(number(i["output"]["measured"][key] / div) if i["output"]["measured"][key] else "–"
                     for i in infos), unit] for name, key, unit, div in names]
    return table(["limit", "before", "after", "unit"] if len(infos) == 2 else
                 ["limit", *("" for _ in infos), "unit"], body)


def floors(all_rows):
    body = []
    for r in all_rows:
        share = "–" if r["quotient"] is None else (
            f"{100 * r['quotient']:.1f} %" if r["against"] in BOUNDS else f"{r['quotient']:.2f} x")
        body.append([r["what"], f"{number(r['value'])} {r['unit']}", r["against"], number(r["base"]), share])
    return table(["what", "measured", "against", "that is", "share or ratio"], body)


def sizes(runs):
    """Every kernel at every m: GB/s and share of read up to 4 tokens, TFLOPS and share of the peak from there."""
    kernels = kernel_rows(runs)
    ms = sorted({k["m"] for k in kernels})
    body = []
    for key in unique((k["type"], k["n"], k["k"]) for k in kernels):
        cells = {k["m"]: k for k in kernels if (k["type"], k["n"], k["k"]) == key}
        body.append([key[0], f"{key[1]}x{key[2]}"] + [cell(cells.get(m)) for m in ms])
    return table(["type", "n x k", *(f"m={m}" for m in ms)], body)


def cell(k):
    if not k:
        return ""
    if k["m"] <= 4:
        return f"{k['gbs']:.0f} GB/s {100 * k['gbs'] / k['read_gbs']:.0f} %"
    peak = k["tile_bf16_gflops"] or k["peak_gflops"]
    return f"{k['gflops'] / 1e3:.2f} TF {100 * k['gflops'] / peak:.0f} %"


def compared(runs):
    body = []
    for model in unique(r["model"] for r in some(runs, "e2e")):
        for who in ["tessera", "tessera-int8", *PEERS]:
            line = [model, who]
            for prompt in True, False:
                t = [x["avg_ts"] for x in tests(runs, "e2e", model, who, prompt)]
                line.append(f"{statistics.median(t):.2f} ({min(t):.2f}–{max(t):.2f})" if t else "–")
            if line[2:] != ["–", "–"]:
                body.append(line)
    return table(["model", "program", "prefill tok/s", "decode tok/s"], body)


def tiles(runs):
    body = []
    for r in some(runs, "e2e", who="tessera", round=1):
        for t in r["output"]:
            if t.get("stats"):
                work = sorted(t["stats"]["work"], key=lambda w: -w["seconds"])[:6]
                total = sum(w["seconds"] for w in t["stats"]["work"]) or 1
                body.append([f"{test_name(t)}, {r['model']}", f"{100 * t['stats']['tile_share']:.1f} %",
                             ", ".join(f"{w['name']} {100 * w['seconds'] / total:.0f} %" for w in work)])
    return table(["test", "matrix FLOPs on tiles", "where the time goes"], body)


def who_ran(meta, runs):
    out = []
    for who in ["tessera", *PEERS]:
        tested = [t for r in runs if r["who"] == who and r["part"] in ("load", "e2e", "steps") and r["output"]
                  for t in r["output"]]
        builds = unique([t["build_commit"] + (f" ({t['build_number']})" if "build_number" in t else "")
                         for t in tested])
        if tested and who in meta: # the program's own file says more
            builds = [meta[who]]
        if builds:
            out.append(f"{who} {', '.join(builds)}")
    return "; ".join(out)


def commands(runs):
    out = []
    for r in runs:
        c = re.sub(r"\S+\.gguf", "MODEL", r["command"])
        c = re.sub(r"--type \S+", "--type T", re.sub(r"--shape \S+", "--shape NxK", c))
        out.append("    " + re.sub(r"--pack-cache \S+", "--pack-cache DIR", c))
    return unique(out)


def markdown(data):
    meta, runs = data["meta"], data["runs"]
    cpu = next((r["output"]["cpu"]["brand"] for r in some(runs, "info")), "?")
    n_rounds = max((r["round"] for r in some(runs, "e2e")), default=0)
    out = [f"{meta['date']}, {cpu}, {meta['threads']} threads, kernel sets up to {meta['isa']}, "
           f"{meta.get('seconds', '?')} s. {who_ran(meta, runs)}.", ""]
    if n_rounds:
        out += [f"End to end: medians of {n_rounds} alternating round{'s' * (n_rounds > 1)} (lowest–highest).", ""]
    for title, lines in [("Limits of this machine", limits(runs)), ("Floors", floors(data["rows"])),
                         ("Kernels", sizes(runs)), ("End to end", compared(runs)), ("Where", tiles(runs)),
                         ("Commands", commands(runs) + [""])]:
        if lines:
            out += [f"### {title}", "", *lines]
    if failed(runs):
        out += ["### Failed", "", *(f"- exit status {r['rc']}: `{r['command']}`" for r in failed(runs)), ""]
    return "\n".join(out)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("collect", "table"):
        sys.exit("usage: xeon_table.py collect DIR | table FILE")
    if sys.argv[1] == "collect":
        json.dump(collect(sys.argv[2]), sys.stdout, indent=1)
        print()
        return
    with open(sys.argv[2], encoding="utf-8") as f:
        print(markdown(json.load(f)))


if __name__ == "__main__":
    main()
