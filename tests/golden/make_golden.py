"""make_golden.py - golden values of one real model, from llama.cpp: NAME.golden.

    python make_golden.py MODEL.gguf NAME [WINDOWS]

What the file holds (README.md gives its grammar): the ids of a few prompts, 64 greedy tokens after each
with the distance of the two best logits, logits at chosen positions of alice.txt, and
its perplexity over so many windows of 512, or all (both with the weights as F32).
"""
import os
import sys
import tempfile

import numpy as np

from oracle import Oracle, dequantised, sha256

HERE = os.path.dirname(os.path.abspath(__file__))
N_GREEDY = 64
ROWS = [0, 63, 287, 599]  # past 512: a sliding window has slid by then
TOP = 10
PPL_CTX = 512

N_PROMPTS = 5

# With int8 activations rounding alone moves a logit by a tenth: llama.cpp's own two ways (a batch, token by token)
# differ by that much. A continuation says something about another program only if it doesn't hang on
# such a step. So of these the prompts are taken where llama.cpp with the same weights as F32 makes the same 64
# tokens, those first that have the fewest steps whose two best logits are this close.
TIE, UNSURE = 0.05, 0.5
CHAT = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"
CANDIDATES = [
    CHAT % "What is the capital of France, and what is it known for?",
    "Once upon a time, in a village at the edge of a dark forest, there lived",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "The three laws of thermodynamics are:\n\n1.",
    "Le soleil se l\u00e8ve \u00e0 l'est et se couche \u00e0 l'ouest. \u6771\u4eac\u306f\u65e5\u672c\u306e",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,",
    "7 x 1 = 7\n7 x 2 = 14\n7 x 3 = 21\n7 x 4 = 28\n",
    "{\"id\": 1, \"name\": \"item 1\"}\n{\"id\": 2, \"name\": \"item 2\"}\n{\"id\": 3,",
    "red, green, blue; red, green, blue; red, green, blue;",
    "if (x == 1) return \"one\";\nif (x == 2) return \"two\";\nif (x == 3) return \"three\";\n",
    "Row, row, row your boat, gently down the stream. Row, row, row your boat,",
    "2001, 2002, 2003, 2004, 2005, 2006,",
    "January, February, March, April,",
    "A B C D E F G H I J",
    "<html>\n<head>\n<title>",
    "We hold these truths to be self-evident, that all men are created equal,",
    "To be, or not to be, that is the question:",
    "Our Father, who art in heaven,",
    "Question: 2 + 2 = 4\nQuestion: 3 + 3 = 6\nQuestion: 4 + 4 = 8\nQuestion: 5 + 5 =",
    "#include <stdio.h>\n\nint main(void)\n{\n    printf(\"Hello, world",
    CHAT % "Count from one to twenty in words.",
    CHAT % "Repeat this sentence five times: The quick brown fox jumps over the lazy dog.",
    "\U0001f600 \U0001f601 \U0001f602 \U0001f600 \U0001f601 \U0001f602 \U0001f600",
    "\u041c\u043e\u0441\u043a\u0432\u0430 \u2014 \u0441\u0442\u043e\u043b\u0438\u0446\u0430 \u0420\u043e\u0441\u0441\u0438\u0438. \u041f\u0430\u0440\u0438\u0436 \u2014 \u0441\u0442\u043e\u043b\u0438\u0446\u0430",
]


def quote(s):
    out = []
    for b in s.encode():
        c = chr(b)
        if c in "\\\"":
            out.append("\\" + c)
        elif 32 <= b < 127:
            out.append(c)
        else:
            out.append(f"\\x{b:02x}")
    return '"' + "".join(out) + '"'


def put(f, key, values, form="%d", per_line=16):
    """key COUNT, then the values, wrapped."""
    f.write(key + " ")
    put_values(f, values, form, per_line)


def put_values(f, values, form="%d", per_line=16):
    f.write(f"{len(values)}\n")
    for i in range(0, len(values), per_line):
        f.write(" ".join(form % v for v in values[i:i + per_line]) + "\n")


def put_logits(f, pos, row, stride):
    f.write(f"row {pos} {stride}\n")
    put(f, "logits", row[::stride], "%.5g")
    top = np.argsort(-row, kind="stable")[:TOP]
    put(f, "top", top)
    put(f, "toplogits", row[top], "%.6g")


def same_tokens(exact, prompt, out, gaps):
    """Whether the exact model takes the same token wherever the two best differ by more than a tie."""
    exact.clear()
    n = len(prompt)
    best = exact.eval(prompt + out[:-1], list(range(n - 1, n - 1 + len(out)))).argmax(axis=1)
    return all(b == t or g < TIE for b, t, g in zip(best, out, gaps))


def put_prompts(f, o, exact):
    tried = []
    for p in CANDIDATES:
        prompt = o.tokenize(p)
        out, gaps = o.greedy(prompt, N_GREEDY)
        if same_tokens(exact, prompt, out, gaps):
            tried.append((sum(TIE <= g < UNSURE for g in gaps), p, prompt, out, gaps))
    for unsure, p, prompt, out, gaps in sorted(tried, key=lambda t: t[0])[:N_PROMPTS]:
        f.write(f"prompt {quote(p)}\n")
        put(f, "ids", prompt)
        put(f, "greedy", out)
        put(f, "gap", gaps, "%.4f")
        print(repr(p), "->", repr(b"".join(map(o.piece, out)).decode(errors="replace")), unsure, "unsure,",
              sum(g < TIE for g in gaps), "ties", flush=True)


def main():
    path, name = sys.argv[1:3]
    max_windows = int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 30
    with open(os.path.join(HERE, "alice.txt"), encoding="utf-8") as f:
        text = f.read()
    o = Oracle(path)
    ids = o.tokenize(text, special=False)
    with open(os.path.join(HERE, name + ".golden"), "w", encoding="ascii") as f:
        f.write("tessera-golden 1\n")
        f.write(f"file {os.path.basename(path)}\nsha256 {sha256(path)}\nvocab {o.n_vocab}\n")
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or ".") as folder:
            plain = os.path.join(folder, "f32.gguf")
            dequantised(path, plain)
            exact = Oracle(plain)
            put_prompts(f, o, exact)
            piece = ids[:ROWS[-1] + 1]
            put(f, "text", piece)
            stride = 16 * max(1, o.n_vocab // 49152)  # some 3,000 of them
            exact.clear()
            for pos, row in zip(ROWS, exact.eval(piece, ROWS)):
                put_logits(f, pos, row, stride)
            ppl = exact.perplexity(ids, PPL_CTX, max_windows)
            exact.close()
        f.write(f"perplexity {PPL_CTX} {len(ids)} ")
        put_values(f, ppl, "%.5f")
        print("perplexity", ppl[-1:], "over", len(ppl), "windows")
    o.close()


if __name__ == "__main__":
    main()
