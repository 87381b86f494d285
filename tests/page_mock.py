#!/usr/bin/env python3
"""A server that answers the chat page as `tessera serve` does, from a script: what the tests of the page talk to.

    tests/page_mock.py [PORT]      serves the page and answers by what the message begins with, to look at by hand

It speaks HTTP as the page needs it, with a made-up plan of a model over a CPU and two GPUs."""
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server", "page")
# What the server sends: nothing but the page's own files, and no inline styles or scripts.
CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

SHOWCASE = """# Splitting a model

Weights that are read for **every token** belong where memory is *fastest*; experts, of which a token takes few, may stay in the CPU's memory. See [the plan](https://example.org/plan) or https://example.org/hybrid, and `tessera plan`.

1. Attention and shared weights go to the GPU
   - they are read whole for each token
   - `-ngl 99` asks for all of them
2. Experts stay, ~~all~~ as many as don't fit
   1. first those of the first layers

- [x] measured
- [ ] predicted

| device | reads GB/s | share |
|:-------|-----------:|:-----:|
| CPU    |        307 |  41 % |
| CUDA0  |       3350 |  59 % |

> What is copied between devices is one row of activations,
> some KiB a token.

```python
def share(reads):
    total = sum(reads.values())
    return {name: r / total for name, r in reads.items()}  # a comment that is so long that it does not fit a phone
```

---

That is all.
"""

THOUGHTS = "The question is short. I should answer it shortly.\nFirst the fact, then a reason.\n"


def pieces(text, n=4):
    return [text[i:i + n] for i in range(0, len(text), n)]


def content(text, n=4):
    return [{"content": p} for p in pieces(text, n)]


def long_text(lines):
    out = []
    for i in range(lines):
        if i % 40 == 0:
            out += [f"## Part {i // 40 + 1}", ""]
        out.append(f"Line {i} has *some* text with `code` and a number, {i * 37 % 1000}." if i % 3 else "")
    return "\n".join(out)


def plan():
    """A model of 32 layers with experts: 4 layers whole on CUDA1, the others' attention on CUDA0, experts on the CPU."""
    weights = [{"name": "token_embd.weight", "type": "Q4_0", "shape": [151936, 2048], "device": "CPU",
                "kernel_set": "lookup", "layout": "source", "bytes": 175030272,
                "reason": "rows are looked up in the mapped file"},
               {"name": "output.weight", "type": "Q6_K", "shape": [151936, 2048], "device": "CUDA0",
                "kernel_set": "cuda", "layout": "source", "bytes": 255252480, "reason": "on CUDA0"}]
    for layer in range(32):
        gpu = "CUDA1" if layer >= 28 else "CUDA0"
        for name, rows, cols, size in (("attn_q", 4096, 2048, 4718592), ("attn_k", 512, 2048, 589824),
                                       ("attn_v", 512, 2048, 589824), ("attn_output", 2048, 4096, 4718592),
                                       ("ffn_gate_inp", 128, 2048, 1048576)):
            weights.append({"name": f"blk.{layer}.{name}.weight", "type": "F32" if "inp" in name else "Q4_0",
                            "shape": [rows, cols], "device": gpu, "kernel_set": "cuda", "layout": "source",
                            "bytes": size, "reason": f"on {gpu}"})
        for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
            on_gpu = layer >= 20
            weights.append({"name": f"blk.{layer}.{name}.weight", "type": "Q4_0", "shape": [768, 2048],
                            "device": gpu if on_gpu else "CPU", "kernel_set": "cuda" if on_gpu else "amx",
                            "layout": "source" if on_gpu else "q4_0.amx", "bytes": 113246208,
                            "reason": f"on {gpu}" if on_gpu else "widest kernel set for Q4_0 here"})
    at = {d: sum(w["bytes"] for w in weights if w["device"] == d) for d in ("CPU", "CUDA0", "CUDA1")}
    gpu_facts = {"room_bytes": 8 << 30, "read_gbs": 3000.0, "link_gbs": 50.0, "tflops": 900.0}
    segments = [{"device": "CPU", "first": 0, "steps": 1, "copy": None, "from": None, "bytes": 0}]
    step = 1
    for layer in range(28):
        for device, other, copy in (("CUDA0", "CPU", True), ("CUDA0", "CPU", False), ("CPU", "CUDA0", True),
                                    ("CPU", "CUDA0", False)):
            segments.append({"device": device, "first": step, "steps": 1 if copy else 9,
                             "copy": "x" if copy else None, "from": other if copy else None,
                             "bytes": 8192 if copy else 11665408})
            step += segments[-1]["steps"]
    return {"weights": weights, "buffers": {"packed_bytes": at["CPU"], "source_bytes": 0, "session_bytes": 28 << 20,
                                            "list": []},
            "devices": [{"name": "CPU", "blocks": 0, "layers": 0, "weight_bytes": at["CPU"], "kv_bytes": 0,
                         "buffer_bytes": 28 << 20, "stream_bytes": 0, "step_bytes": 424673280},
                        {"name": "CUDA0", "blocks": 28, "layers": 28, "weight_bytes": at["CUDA0"],
                         "kv_bytes": 234881024, "buffer_bytes": 120 << 20, "stream_bytes": 700 << 20,
                         "step_bytes": 640 << 20, **gpu_facts},
                        {"name": "CUDA1", "blocks": 4, "layers": 4, "weight_bytes": at["CUDA1"],
                         "kv_bytes": 33554432, "buffer_bytes": 118 << 20, "stream_bytes": 0,
                         "step_bytes": 120 << 20, **gpu_facts, "read_gbs": 300.0}],
            "segments": segments, "streamed": None, "n_gpu_layers": 33,
            "kv": {"type": "F16", "n_ctx": 8192, "bytes": 0}, "n_threads": 56, "n_ubatch": 512, "isa": "amx",
            "steps": step, "predicted": {"prefill_tps": 2310.4, "decode_tps": 61.27},
            "measured": {"read_gbs": 307.4, "int8_gops": 20000.0, "fma_gflops": 6000.0,
                         "tile_int8_gops": 90000.0, "tile_bf16_gflops": 45000.0}}


class Mock:
    """`next` holds what the next requests get instead of an answer by their text: a list of deltas, or
    ("error", status, message, headers), ("cut", deltas), ("said", deltas, message)."""

    def __init__(self, port=0):
        self.key = None         # the API key it wants
        self.delay = 0.001      # seconds between two deltas
        self.next = []
        self.requests = []      # bodies of /v1/chat/completions
        self.cancelled = 0      # answers that the page went away from
        self.has_plan = True
        self.paths = []
        mock = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                mock.get(self)

            def do_POST(self):
                mock.post(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):  # a connection that the browser closed
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def send(self, h, status, body, kind="application/json", headers=()):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        h.send_response(status)
        h.send_header("Content-Type", kind)
        h.send_header("Content-Length", str(len(body)))
        h.send_header("Content-Security-Policy", CSP)
        h.send_header("X-Content-Type-Options", "nosniff")
        for k, v in dict(headers).items():
            h.send_header(k, str(v))
        h.end_headers()
        h.wfile.write(body)

    def error(self, h, status, message, headers=(), **more):
        self.send(h, status, {"error": {"message": message, "type": "invalid_request_error", "param": None,
                                        "code": None, **more}}, headers=headers)

    def refused(self, h):
        if not self.key or h.headers.get("Authorization") == f"Bearer {self.key}":
            return False
        self.error(h, 401, "The API key is missing or wrong", code="invalid_api_key")
        return True

    def get(self, h):
        path = h.path.split("?")[0]
        self.paths.append(path)
        name = "index.html" if path == "/" else path[len("/page/"):] if path.startswith("/page/") else ""
        if name and "/" not in name and os.path.isfile(os.path.join(PAGE, name)):
            with open(os.path.join(PAGE, name), "rb") as f:
                self.send(h, 200, f.read(), TYPES[os.path.splitext(name)[1]])
        elif path == "/health":
            self.send(h, 200, {"status": "ok"})
        elif self.refused(h):
            pass
        elif path == "/v1/models":
            self.send(h, 200, {"object": "list", "data": [{"id": "mock-30b-a3b-q4_0", "object": "model"}]})
        elif path == "/props":
            self.send(h, 200, {"total_slots": 4, "default_generation_settings": {
                "n_ctx": 8192, "params": {"temperature": 0.800000011920929, "top_k": 40, "top_p": 0.95,
                                          "min_p": 0.05}}})
        elif path == "/plan" and self.has_plan:
            self.send(h, 200, plan())
        else:
            self.error(h, 404, f"There is no {path} here")

    def post(self, h):
        body = json.loads(h.rfile.read(int(h.headers.get("Content-Length", 0))))
        self.paths.append(h.path)
        if h.path != "/v1/chat/completions":
            self.error(h, 404, f"There is no {h.path} here")
            return
        if self.refused(h):
            return
        self.requests.append(body)
        what = self.next.pop(0) if self.next else self.answer(body)
        if isinstance(what, tuple) and what[0] == "error":
            self.error(h, what[1], what[2], *what[3:])
            return
        h.send_response(200)
        h.send_header("Content-Type", "text/event-stream")
        h.send_header("Cache-Control", "no-store")
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        try:
            self.stream(h, body, what)
        except OSError:
            self.cancelled += 1

    def stream(self, h, body, what):
        kind, deltas = (what[0], what[1]) if isinstance(what, tuple) else ("all", what)

        def event(data):
            text = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
            h.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            h.wfile.flush()

        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
        began = time.time()
        event({**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        calls = False
        for d in deltas:
            event({**base, "choices": [{"index": 0, "delta": d, "finish_reason": None}]})
            calls = calls or "tool_calls" in d
            if self.delay:
                time.sleep(self.delay)
        if kind == "cut":  # the connection breaks: no end of the chunks, either
            time.sleep(0.2)  # a browser drops what it hasn't handed on yet
            h.close_connection = True
            return
        if kind == "said":
            event({"error": {"message": what[2], "type": "server_error"}})
            h.wfile.write(b"0\r\n\r\n")
            return
        limit = body.get("max_tokens")
        finish = "tool_calls" if calls else "length" if limit and len(deltas) >= limit else "stop"
        event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        n = sum(len(m.get("content") or "") for m in body["messages"]) // 4 + 8
        ms = max(1.0, 1000 * (time.time() - began))
        event({**base, "choices": [], "usage": {"prompt_tokens": n, "completion_tokens": len(deltas),
                                                "total_tokens": n + len(deltas)},
               "timings": {"prompt_n": n, "prompt_ms": n / 2.0, "predicted_n": len(deltas), "predicted_ms": ms,
                           "predicted_per_second": 1000 * len(deltas) / ms}})
        event("[DONE]")
        h.wfile.write(b"0\r\n\r\n")

    def answer(self, body):
        said = body["messages"][-1].get("content") or ""
        word, _, rest = said.partition(" ")
        deltas = None
        if word == "markdown":
            deltas = content(SHOWCASE)
        elif word == "echo":
            deltas = content(rest)
        elif word == "think":
            deltas = [{"reasoning_content": p} for p in pieces(THOUGHTS)] + content("It is so.")
        elif word == "call":
            deltas = [{"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                                       "function": {"name": "get_weather", "arguments": ""}}]}]
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]}
                       for p in pieces('{"city": "Bern", "unit": "°C"}')]
        elif word == "slow":
            deltas = [{"content": f"{i} "} for i in range(100000)]
        elif word == "long":
            deltas = content(long_text(int(rest or 1000)), 40)
        elif word == "busy":
            return ("error", 429, "All 4 slots and 16 places of the queue are taken", {"Retry-After": 3})
        elif word == "context":
            return ("error", 400, "The prompt has 9001 tokens, the context 8192")
        elif word == "cut":
            return ("cut", content("This answer never gets to its"))
        elif word == "fail":
            return ("said", content("Half of "), "The GPU is out of memory")
        else:
            deltas = content(f"You said: {said}")
        limit = body.get("max_tokens")
        return deltas[:limit] if limit else deltas


if __name__ == "__main__":
    m = Mock(int(sys.argv[1]) if len(sys.argv) > 1 else 8099)
    m.delay = 0.02
    print(m.url)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        m.close()
