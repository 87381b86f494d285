#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/: two small vocabularies and the ids llama.cpp gives the strings of
tok_corpus.py on them and on real models.

    python3 tests/golden/make_tokenizer.py [DIRECTORY OF MODELS]

Needs the packages gguf and llama-cpp-python. Models that aren't there keep their files.

A file NAME.ids holds a line `model FILE`, a line `pre NAME` where tokenizer.ggml.pre is replaced, a
line `h HASH` for every 100 strings (CRC-32 of the ids as 32-bit little-endian numbers, each string's
closed by ffffffff) and lines `f INDEX IDS` with all ids of some strings. String i is encoded with the
flags i % 4: 1 adds BOS and EOS, 2 parses special tokens.
"""
import collections
import ctypes
import os
import struct
import sys
import tempfile
import threading
import zlib

import gguf
import llama_cpp

import tok_corpus

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")
REAL = {
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma-3-270m-q4_k_m.gguf",
    "qwen2": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}
PRES = ["gpt-2", "smollm", "default", "falcon", "llama-bpe", "dbrx", "qwen2", "qwen35", "tekken",
        "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3", "glm4"]
STRINGS = list(tok_corpus.corpus())
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


# --- small vocabularies -------------------------------------------------------


def train(words, n_merges):
    """Byte pair encoding: the pairs merged, most frequent first. words: symbols -> count."""
    merges = []
    words = dict(words)
    for _ in range(n_merges):
        pairs = collections.Counter()
        for w, count in words.items():
            for pair in zip(w, w[1:]):
                pairs[pair] += count
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        changed = {}
        for w, count in words.items():
            if best[0] in w:
                out, i = [], 0
                while i < len(w):
                    if w[i:i + 2] == best:
                        out.append(w[i] + w[i + 1])
                        i += 2
                    else:
                        out.append(w[i])
                        i += 1
                w = tuple(out)
            changed[w] = changed.get(w, 0) + count
        words = changed
    return merges


def byte_char(b):
    if 0x21 <= b <= 0x7E or (0xA1 <= b <= 0xFF and b != 0xAD):
        return chr(b)
    return chr(256 + [x for x in range(256)
                      if not (0x21 <= x <= 0x7E or (0xA1 <= x <= 0xFF and x != 0xAD))].index(b))


def training_text():
    return [b.decode(errors="ignore") for b in STRINGS[:1000]]


def write_vocab(path, model, tokens, merges=None, pre=None, **more):
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model(model)
    if pre:
        w.add_tokenizer_pre(pre)
    w.add_token_list([t[0] for t in tokens])
    w.add_token_types([t[1] for t in tokens])
    if model == "llama":
        w.add_token_scores([float(t[2]) for t in tokens])
    if merges:
        w.add_token_merges(merges)
    for key, value in more.items():
        getattr(w, "add_" + key)(value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def make_bpe(path):
    words = collections.Counter()
    for text in training_text():
        for i, part in enumerate(text.split(" ")):
            coded = "".join(byte_char(b) for b in ((" " if i else "") + part).encode())
            if 1 < len(coded) < 60:
                words[tuple(coded)] += 1
    merges = train(words, 500)
    merges += [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ċ", "Ċ"), ("0", "0"), ("00", "0"), ("a", "a"),
               ("aa", "aa"), ("aaaa", "aaaa")]
    tokens = [("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL),
              ("<unk>", UNKNOWN), ("<fim_prefix>", USER), ("<|", USER), ("    ", USER),
              ("   ", USER), ("\n\n\n", USER), ("<table>", USER), ("[PAD]", UNUSED)]
    known = set(t for t, _ in tokens)
    for t in [byte_char(b) for b in range(256)] + [a + b for a, b in merges]:
        if t not in known:
            known.add(t)
            tokens.append((t, NORMAL))
    pairs = list(dict.fromkeys(f"{a} {b}" for a, b in merges))
    write_vocab(path, "gpt2", tokens, pairs, "gpt-2", bos_token_id=0, eos_token_id=2,
                add_bos_token=True, add_eos_token=True)


def make_spm(path):
    words, chars = collections.Counter(), collections.Counter()
    for text in training_text():
        chars.update(text.replace(" ", "▁"))
        for part in text.split(" "):
            if 0 < len(part) < 40:
                words[tuple("▁" + part)] += 1
    # some characters are left out: their bytes must serve
    # (and NUL: llama.cpp reads texts as C strings)
    keep = [c for c, n in chars.most_common(420) if c != "\0"]
    words = {w: n for w, n in words.items() if all(c in keep for c in w)}
    merges = train(words, 400)
    tokens = [("<unk>", UNKNOWN, 0), ("<s>", CONTROL, 0), ("</s>", CONTROL, 0)]
    tokens += [(f"<0x{b:02X}>", BYTE, 0) for b in range(256)]
    tokens += [("<start_of_turn>", CONTROL, 0), ("<end_of_turn>", CONTROL, 0),
               ("<table>", USER, 0), ("</table>", USER, 0), ("\n\n\n", USER, 0),
               ("<unused0>", UNUSED, 0)]
    known = set(t[0] for t in tokens)
    for i, t in enumerate([a + b for a, b in merges] + ["▁▁", "▁▁▁▁", "aa", "aaaa", "s▁b"] + keep):
        if t not in known:
            known.add(t)
            tokens.append((t, NORMAL, -i))
    write_vocab(path, "llama", tokens, bos_token_id=1, eos_token_id=2, unk_token_id=0)


# --- ids -------------------------------------------------------------------


def replace_pre(source, target, pre):
    with open(source, "rb") as f:
        b = f.read()
    key = struct.pack("<Q", 18) + b"tokenizer.ggml.pre" + struct.pack("<I", 8)
    at = b.index(key) + len(key)
    n = struct.unpack("<Q", b[at:at + 8])[0]
    with open(target, "wb") as f:
        f.write(b[:at] + struct.pack("<Q", len(pre)) + pre.encode() + b[at + 8 + n:])


def write_ids(name, file, path, pre=None, every=1024):
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    buf = (ctypes.c_int32 * 100000)()
    full, hashes, h, total = [], [], 0, 0
    for i, b in enumerate(STRINGS):
        n = llama_cpp.llama_tokenize(vocab, b, len(b), buf, len(buf), bool(i & 1), bool(i & 2))
        assert n >= 0
        ids = buf[:n]
        total += n
        h = zlib.crc32(struct.pack(f"<{n + 1}I", *ids, 0xFFFFFFFF), h)
        if i % 100 == 99 or i == len(STRINGS) - 1:
            hashes.append(h)
            h = 0
        if i % every == every - 1 and n <= 100:
            full.append(f"f {i} " + " ".join(map(str, ids)))
    llama_cpp.llama_model_free(model)
    with open(os.path.join(HERE, name + ".ids"), "w") as f:
        f.write(f"model {file}\n" + (f"pre {pre}\n" if pre else ""))
        f.writelines(f"h {h:08x}\n" for h in hashes)
        f.writelines(line + "\n" for line in full)
    print(f"{name}: {total} ids", flush=True)


def main():
    os.makedirs(HERE, exist_ok=True)
    bpe, spm = os.path.join(HERE, "bpe.vocab"), os.path.join(HERE, "spm.vocab")
    make_bpe(bpe)
    make_spm(spm)
    write_ids("spm", "spm.vocab", spm)
    for pre in PRES:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            replace_pre(bpe, f.name, pre)
            write_ids("bpe-" + pre, "bpe.vocab", f.name, pre)
    for name, file in REAL.items():
        path = os.path.join(sys.argv[1] if len(sys.argv) > 1 else ".", file)
        if os.path.exists(path):
            write_ids(name, file, path, every=64 if name == "smollm2" else 1024)


@llama_cpp.llama_log_callback
def silent(level, text, user):
    pass


if __name__ == "__main__":
    llama_cpp.llama_log_set(silent, None)
    llama_cpp.llama_backend_init()
    # llama.cpp's regular expressions recurse once for every character
    threading.stack_size(1 << 30)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
