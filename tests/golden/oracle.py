"""oracle.py - llama.cpp as the golden scripts need it: one model, one context, ids in, logits out.

Uses the ctypes declarations of the package llama-cpp-python and nothing above them. README.md says
how to set it up. Every context is made alike: CPU only, K and V in F16, flash attention off.
"""
import ctypes
import hashlib
import re

import gguf
import numpy as np
from llama_cpp import llama_cpp as lc

THREADS = 1  # the values don't depend on it


@lc.llama_log_callback
def _quiet(level, text, user):
    del level, text, user


lc.llama_log_set(_quiet, ctypes.c_void_p(0))
lc.llama_backend_init()


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            h.update(block)
    return h.hexdigest()


def dequantised(path, out):
    """Writes the model with the same weights as F32, experts of a tensor each as stacks. With quantised weights llama.cpp rounds activations to
    int8, which moves logits by an NMSE of 1e-3; with these it computes in floats."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith("GGUF."):
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub)
    tensors = {}
    for t in reader.tensors:
        values = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        part = re.fullmatch(r"(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.weight", t.name)
        if part:  # llama.cpp wants a stack
            tensors.setdefault(part[1] + "_exps.weight", []).append(values)
        else:
            tensors[t.name] = values.reshape([int(n) for n in t.shape[::-1]])
    tensors = {name: np.stack(v) if isinstance(v, list) else v for name, v in tensors.items()}
    for name, values in tensors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in tensors.values():
        writer.write_tensor_data(values)
    writer.close()


class Oracle:
    def __init__(self, path, n_ctx=1024, n_ubatch=512):
        mp = lc.llama_model_default_params()
        mp.n_gpu_layers = 0
        self.model = lc.llama_model_load_from_file(path.encode(), mp)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp can't load it")
        cp = lc.llama_context_default_params()
        cp.n_ctx = n_ctx
        cp.n_batch = n_ctx
        cp.n_ubatch = n_ubatch
        cp.n_threads = cp.n_threads_batch = THREADS
        cp.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.n_ctx = n_ctx
        self.ctx = lc.llama_init_from_model(self.model, cp)
        if not self.ctx:
            raise SystemExit(f"{path}: llama.cpp makes no context")
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.n_vocab = lc.llama_vocab_n_tokens(self.vocab)
        self.pos = 0

    def close(self):
        lc.llama_free(self.ctx)
        lc.llama_model_free(self.model)

    def bos(self):
        """The id that opens a text, or None where the model asks for none."""
        return lc.llama_vocab_bos(self.vocab) if lc.llama_vocab_get_add_bos(self.vocab) else None

    def tokenize(self, text, special=True):
        raw = text.encode()
        out = (lc.llama_token * (len(raw) + 16))()
        n = lc.llama_tokenize(self.vocab, raw, len(raw), out, len(out), True, special)
        assert n >= 0
        return list(out[:n])

    def piece(self, token):
        buf = ctypes.create_string_buffer(256)
        n = lc.llama_token_to_piece(self.vocab, token, buf, 256, 0, True)
        return buf.raw[:n]

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.ctx), True)
        self.pos = 0

    def eval(self, ids, rows):
        """Appends ids; the logits [len(rows)][n_vocab] of the given indices into ids."""
        batch = lc.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        wanted = set(rows)
        for i, t in enumerate(ids):
            batch.token[i] = t
            batch.pos[i] = self.pos + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i in wanted
        rc = lc.llama_decode(self.ctx, batch)
        lc.llama_batch_free(batch)
        if rc:
            raise SystemExit(f"llama_decode gives {rc}")
        self.pos += len(ids)
        out = np.empty((len(rows), self.n_vocab), np.float32)
        for j, i in enumerate(rows):
            p = lc.llama_get_logits_ith(self.ctx, i)
            out[j] = np.ctypeslib.as_array(p, (self.n_vocab,))
        return out

    def greedy(self, ids, n):
        """n ids by argmax after ids, and the distance of the two best logits at each."""
        self.clear()
        row = self.eval(ids, [len(ids) - 1])[0]
        out, gaps = [], []
        for _ in range(n):
            best = int(row.argmax())
            two = np.partition(row, -2)[-2:]
            out.append(best)
            gaps.append(float(two[1] - two[0]))
            row = self.eval([best], [0])[0]
        return out, gaps

    def perplexity(self, ids, n_ctx, max_windows):
        """Perplexity over the windows up to each: windows of n_ctx, the second half of each scored, BOS
        put first where the model wants one: what llama-perplexity does."""
        first = n_ctx // 2
        nll, count, out = 0.0, 0, []
        for c in range(min(len(ids) // n_ctx, max_windows)):
            window = list(ids[c * n_ctx:(c + 1) * n_ctx])
            fed = list(window)
            if self.bos() is not None:
                fed[0] = self.bos()
            self.clear()
            for row, want in zip(self.eval(fed, list(range(first, n_ctx - 1))), window[first + 1:]):
                top = row.max()
                nll += float(top - row[want]) + float(np.log(np.exp(row - top).sum(dtype=np.float64)))
                count += 1
            out.append(float(np.exp(nll / count)))
        return out
