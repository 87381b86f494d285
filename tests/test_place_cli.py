#!/usr/bin/env python3
"""What `tessera plan` puts where by itself: models in real shapes, GPUs and memory that aren't there. Sizes, not
speeds, so that it is the same on every machine."""
import json
import os
import sys

from cli_tool import Folder, bad, check, done, good

GIB = 1 << 30
SHAPES = {"l8": ("8b", "llama", "Q4_0"), "q30": ("30b-a3b", "qwen3moe", "Q4_K_M"),
          "v3": ("deepseek-v3", "deepseek2", "Q4_K_M"), "oss": ("gpt-oss-120b", "gpt-oss", "MXFP4")}


class Plan:
    def __init__(self, model, gpus, *args):
        gpus = [x for g in gpus.split() for x in ("--gpu", f"{g},1000GB/s,25GB/s,150TFLOPS")]
        self.r = good("plan", "-m", model, "--json", "--memory", "900G", *gpus, *args)
        p = json.loads(self.r.out)
        self.n, self.streamed = p["n_gpu_layers"], p["streamed"]["layers"]
        self.gpu = p["devices"][1:]
        self.blocks = [d["blocks"] for d in self.gpu]
        self.held = [sum(d[k] for k in ("weight_bytes", "kv_bytes", "buffer_bytes", "stream_bytes")) for d in self.gpu]
        self.cpu_experts = sum(w["device"] == "CPU" and "ffn_down_exps" in w["name"] for w in p["weights"])
        self.stream_device = p["streamed"]["device"]
        at = {w["name"]: w["device"] for w in p["weights"]}
        self.output = at.get("output.weight", at["token_embd.weight"])
        for d, held in zip(self.gpu, self.held):
            check(held <= d["room_bytes"], d["name"], "has to hold", held, "of", d["room_bytes"])

    def __str__(self):
        return f"{self.n} layers, {self.blocks}, {[round(h / GIB, 2) for h in self.held]} GiB, experts of {self.cpu_experts} on the CPU, {self.streamed} streamed, {self.r}"


def idle(l8):
    """A GPU that is full is no reason not to use the others; nothing is put where nothing is computed."""
    for gpus, which in (("a,24G b,300M", 0), ("b,300M a,24G", 1)):
        for args in ((), ("-ngl", "33")):
            p = Plan(l8, gpus, *args)
            check(p.n == 33 and p.blocks[which] == 32 and p.held[1 - which] == 0, gpus, args, p)
    p = Plan(l8, "b,300M a,24G", "-ngl", 33, "-ts", "0,1")
    check(p.n == 33 and p.held[0] == 0, p)
    p = Plan(l8, "a,24G b,24G", "-ngl", 16, "-ts", "0,1")
    check(p.blocks == [0, 16] and p.held[0] == 0 and p.stream_device == "CUDA1", p)
    out = good("plan", "-m", l8, "-ngl", 33, "-ts", "1,0", "--gpu", "a,24G,1000GB/s,25GB/s", "--gpu", "b,24G,1000GB/s,25GB/s").out
    check("\nCUDA1 " in out and "not used" in out, out[-1500:])


def several(l8, q30):
    """Layers where there is room for them, the output matrix too; a second GPU is never a loss."""
    p = Plan(l8, "a,24G b,1G")
    check(p.n == 33, p)
    p = Plan(l8, "a,5G b,2G")
    check(p.n == 33, p)
    for args in ((), ("-ngl", "99")):
        p = Plan(l8, "a,24G b,24G", "--vram-limit", "2700M", *args)
        check(p.n == 33 and max(p.blocks) < 20, args, p)
    check(Plan(l8, "a,24G b,24G").blocks == [16, 16])
    for gpus in ("a,5G b,800M", "a,5G b,1G"):
        check(Plan(l8, gpus).n >= Plan(l8, "a,5G").n, gpus, Plan(l8, gpus))
    alone, both = Plan(q30, "a,16G"), Plan(q30, "a,16G b,1G")
    check(both.n == 49 and both.cpu_experts <= alone.cpu_experts, alone, both)
    p = Plan(q30, "a,9G b,9G")
    check(p.n == 49 and min(p.held) > 0.93 * 8.4 * GIB, p)


def streaming(v3, oss, l8):
    """What a small GPU needs to stream through isn't taken from layers that gain more."""
    p = Plan(v3, "a,6G")
    check(p.n > 20 and p.streamed == 0, p)
    p = Plan(v3, "a,24G")
    check(p.n == 62 and p.streamed == 58, p)
    p = Plan(oss, "a,2G")
    check(p.n >= 36, p)
    p = Plan(l8, "a,4G")
    check(p.n > 20 and p.streamed > 0, p)
    p = Plan(l8, "a,24G", "-ngl", 16, "-nkvo", "--stream", "on")
    check(p.streamed == 0 and "with K and V kept in main memory" in p.r.err, p)
    for say, args in (("streamed weights ", ("--stream", "on")), ("buffers 0.30)", ("--stream", "off"))):
        bad(["plan", "-m", l8, "-ngl", 30, "--gpu", "a,24G,1000GB/s,25GB/s", "--vram-limit", "3840M", *args],
            "CUDA0 would have to hold ", say)


def experts(q30, v3):
    """-ncmoe keeps experts, and leaves the others to be placed; all of them if they fit."""
    p, q = Plan(q30, "a,24G", "--vram-limit", "8G"), Plan(q30, "a,24G", "--vram-limit", "8G", "-ncmoe", 1)
    check(p.n == q.n == 49 and 0 < p.cpu_experts == q.cpu_experts < 48, p, q)
    check(Plan(v3, "a,78G", "-ncmoe", 1).n == 62)  # a layer without experts
    p = Plan(q30, "a,78G", "-ngl", "all")
    check(p.cpu_experts == 0)
    need = p.held[0]
    check(Plan(q30, "a,78G", "--vram-limit", need).cpu_experts == 0, "all fits exactly")
    check(Plan(q30, "a,78G", "--vram-limit", need - 1).cpu_experts > 0)


def names(folder):
    """Files of the first Mixtral models have a tensor for each expert: options name the stack."""
    parts = folder.model("parts.gguf", preset="tiny-moe-parts")
    for args in (("-cmoe",), ("-ot", "_exps=CPU"), ("-ncmoe", 1)):
        p = Plan(parts, "a,24G", "-ngl", 99, *args)
        check(p.cpu_experts > 0 and sum(p.blocks) > 0, args, p)


def patterns(l8):
    p = Plan(l8, "a,24G", "-ngl", 0, "-ot", "token_embd=CUDA0")
    check("token_embd.weight stays on CPU, though a pattern has it on CUDA0: its rows are looked up" in p.r.err, p)
    check("stays" not in Plan(l8, "a,24G", "-ngl", 0, "-ot", "^output=CUDA0").r.err)


def work(folder):
    """The bytes of weights that bench counts for a token are those of the plan, which packs them."""
    for preset, arch in (("tiny", "llama"), ("tiny-moe-parts", "llama"), ("tiny-moe", "llama"), ("tiny", "glm4moe"),
                         ("tiny", "deepseek2"), ("tiny", "qwen2moe")):
        model = folder.model("model.gguf", preset=preset, arch=arch)
        step = json.loads(good("plan", "-m", model, "--json", "-dev", "none").out)["devices"][0]["step_bytes"]
        counted = json.loads(good("bench", "-m", model, "-p", 0, "-n", 1, "-r", 1, "-dev", "none", "-o", "json").out)[0]["weight_bytes"]
        check(0.94 < counted / step < 1.02, preset, arch, counted, step)


def main():
    with Folder() as folder:
        m = {}
        for name, (preset, arch, kind) in SHAPES.items():
            m[name] = folder.name(name + ".gguf")
            good("synth", "--arch", arch, "--preset", preset, "--type", kind, "--sparse", "-o", m[name])
        idle(m["l8"])
        patterns(m["l8"])
        if "TS_SANITIZED" not in os.environ:  # the same code, once more
            several(m["l8"], m["q30"])
            streaming(m["v3"], m["oss"], m["l8"])
            experts(m["q30"], m["v3"])
        names(folder)
        work(folder)
    done("place_cli")


if __name__ == "__main__":
    sys.exit(main())
