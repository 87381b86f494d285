"""make_tiny.py - golden values of tiny synth models, from llama.cpp: tiny-*.golden.

    python make_tiny.py path/to/tessera [NAME...]

A tiny model has random weights, so its tokens are random ids and its continuation means nothing: what
counts is that every number of every architecture's forward pass agrees.
"""
import hashlib
import os
import random
import subprocess
import sys
import tempfile

from make_golden import HERE, put, put_logits
from oracle import Oracle, dequantised

SEED = 1
N_GREEDY = 32
ROWS = [0, 30, 127, 449]

# name: architecture, type, pure, RoPE scaling, preset if it isn't "tiny"
MODELS = {
    "tiny-llama-f32": ("llama", "F32", True, "default"),
    "tiny-llama3-f32": ("llama", "F32", True, "llama3"),
    "tiny-llama-linear-f32": ("llama", "F32", True, "linear"),
    "tiny-llama-yarn-f32": ("llama", "F32", True, "yarn"),
    "tiny-qwen2-f32": ("qwen2", "F32", True, "default"),
    "tiny-qwen3-f32": ("qwen3", "F32", True, "default"),
    "tiny-gemma3-f32": ("gemma3", "F32", True, "default"),
    "tiny-llama-q4_0": ("llama", "Q4_0", False, "default"),
    "tiny-llama-q8_0": ("llama", "Q8_0", False, "default"),
    "tiny-qwen2-q4_k_m": ("qwen2", "Q4_K_M", False, "default"),
    "tiny-qwen3-q5_1": ("qwen3", "Q5_1", False, "default"),
    "tiny-gemma3-q6_k": ("gemma3", "Q6_K", False, "default"),
    "tiny-qwen3moe-f32": ("qwen3moe", "F32", True, "default"),
    "tiny-qwen3moe-q4_k_m": ("qwen3moe", "Q4_K_M", False, "default"),
    "tiny-glm4moe-f32": ("glm4moe", "F32", True, "default"),
    "tiny-glm4moe-q4_k_m": ("glm4moe", "Q4_K_M", False, "default"),
    "tiny-gpt-oss-f32": ("gpt-oss", "F32", True, "default"),
    "tiny-gpt-oss-mxfp4": ("gpt-oss", "MXFP4", False, "default"),
    "tiny-qwen2moe-f32": ("qwen2moe", "F32", True, "default"),
    "tiny-qwen2moe-q4_k_m": ("qwen2moe", "Q4_K_M", False, "default"),
    "tiny-deepseek2-f32": ("deepseek2", "F32", True, "default"),
    "tiny-deepseek2-none-f32": ("deepseek2", "F32", True, "none"),
    "tiny-deepseek2-q4_k_m": ("deepseek2", "Q4_K_M", False, "default"),
    "tiny-deepseek2-v3-f32": ("deepseek2", "F32", True, "default", "tiny-v3"),
    "tiny-deepseek2-v3-q8_0": ("deepseek2", "Q8_0", False, "default", "tiny-v3"),
    "tiny-olmo2-f32": ("olmo2", "F32", True, "default"),
    "tiny-olmo2-yarn-f32": ("olmo2", "F32", True, "yarn"),
    "tiny-phi3-f32": ("phi3", "F32", True, "default"),
    "tiny-phi3-q4_k_m": ("phi3", "Q4_K_M", False, "default"),
    "tiny-phi3-plain-q4_0": ("phi3", "Q4_0", False, "none"),
    "tiny-command-r-f32": ("command-r", "F32", True, "default"),
    "tiny-command-r-q8_0": ("command-r", "Q8_0", False, "default"),
    "tiny-command-r-plus-q8_0": ("command-r", "Q8_0", False, "default", "tiny-deep"),
    "tiny-gemma2-f32": ("gemma2", "F32", True, "default"),
    "tiny-gemma2-q6_k": ("gemma2", "Q6_K", False, "default"),
    "tiny-granite-f32": ("granite", "F32", True, "default"),
    "tiny-granite-iq4_xs": ("granite", "IQ4_XS", False, "default"),
    "tiny-olmo2-q5_k_m": ("olmo2", "Q5_K_M", False, "default"),
}


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def make(tessera, folder, name, arch, kind, pure, rope, preset="tiny"):
    path = os.path.join(folder, name + ".gguf")
    command = [tessera, "synth", "--preset", preset, "--arch", arch, "--type", kind, "--seed", str(SEED),
               "-o", path]
    if pure:
        command.append("--pure")
    if rope != "default":
        command += ["--rope-scaling", rope]
    subprocess.run(command, check=True)
    with open(path, "rb") as f:
        data = f.read()
    plain = os.path.join(folder, "f32.gguf")
    dequantised(path, plain)
    o = Oracle(plain)
    rng = random.Random(name)
    with open(os.path.join(HERE, name + ".golden"), "w", encoding="ascii") as f:
        f.write("tessera-golden 1\n")
        f.write(f"synth {arch} {kind} {int(pure)} {rope} {SEED} {preset}\n")
        f.write(f"sha256 {hashlib.sha256(data).hexdigest()}\nfnv {fnv1a(data):016x}\nvocab {o.n_vocab}\n")
        close = 0
        for _ in range(3):
            ids = [rng.randrange(o.n_vocab) for _ in range(rng.randrange(5, 40))]
            out, gaps = o.greedy(ids, N_GREEDY)
            close += sum(g < 0.05 for g in gaps)
            put(f, "ids", ids)
            put(f, "greedy", out)
            put(f, "gap", gaps, "%.4f")
        text = [rng.randrange(o.n_vocab) for _ in range(ROWS[-1] + 1)]
        put(f, "text", text)
        o.clear()
        rows = o.eval(text, ROWS)
        for pos, row in zip(ROWS, rows):
            put_logits(f, pos, row, max(1, o.n_vocab // 512))
    print(f"{name}: {len(data)} bytes, {o.n_vocab} tokens, {close} close calls, logits "
          f"{rows.min():.2f} .. {rows.max():.2f}, deviation {rows.std():.2f}")
    o.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, options in MODELS.items():
            if sys.argv[2:] and name not in sys.argv[2:]:
                continue
            make(os.path.abspath(sys.argv[1]), folder, name, *options)


main()
