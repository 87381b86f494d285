#!/usr/bin/env python3
"""soak.py - a server under strangers for a long time: many clients at once, answers that are given up half-way, one request
in ten malformed. Status 1 if a well-formed request isn't answered, a malformed one isn't refused, a slot stays taken, the
server ends, or its memory grows after the first sixth of the time.

    soak.py [--minutes N] [--clients N] [--model FILE] [TESSERA]

    --minutes N  default 30
    --clients N  default 32
    --model FILE default: a tiny model of random weights, made by `tessera synth`
    TESSERA      the program, default build/release/tessera
"""
import argparse
import collections
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
WORDS = "a long time ago in the north there was a river and nobody knew where it began or how it would end".split()
counts, faults, lock = collections.Counter(), [], threading.Lock()


def count(what):
    with lock:
        counts[what] += 1


def fault(*text):
    with lock:
        faults.append(" ".join(str(t) for t in text))
        if len(faults) <= 20:
            print("FAULT:", faults[-1], flush=True)


def words(r, n):
    return " ".join(r.choice(WORDS) for _ in range(n))


def messages(r):
    common = "You answer in short sentences. " * 12 if r.random() < 0.5 else words(r, 5)
    m = [{"role": "system", "content": common}]
    for _ in range(r.randint(0, 2)):
        m += [{"role": "user", "content": words(r, r.randint(1, 30))}, {"role": "assistant", "content": words(r, 8)}]
    return m + [{"role": "user", "content": words(r, r.randint(1, 60))}]


def good(r):
    """path, body of a request that must be answered"""
    kind = r.random()
    body = {"max_tokens": r.randint(1, 40), "stream": r.random() < 0.5, "temperature": r.choice([0, 0.7, 1.5]),
            "seed": r.randint(0, 1 << 31)}
    if r.random() < 0.2:
        body["stop"] = r.choice(["e", ["th", "\n\n", "river"]])
    if r.random() < 0.2:
        body["logit_bias"] = {str(r.randint(0, 200)): r.randint(-100, 100)}
    if kind < 0.6:
        body["messages"] = messages(r)
        if r.random() < 0.2:
            body.update(logprobs=True, top_logprobs=r.randint(0, 20))
        if r.random() < 0.1:
            body["response_format"] = {"type": "json_object"}
        if r.random() < 0.1:
            body["n"] = r.randint(2, 4)
        return "/v1/chat/completions", body
    if kind < 0.85:
        body["prompt"] = r.choice([words(r, r.randint(1, 100)), [words(r, 3), words(r, 4)],
                                   [r.randint(3, 250) for _ in range(r.randint(1, 200))]])
        return "/v1/completions", body
    if kind < 0.95:
        return "/v1/embeddings", {"input": [words(r, 5), words(r, 20)]}
    return "/tokenize", {"content": words(r, 50)}


def bad(r):
    """path, bytes of a body that must be refused"""
    path, body = good(r)
    text = json.dumps(body).encode()
    how = r.randint(0, 8)
    if how == 0:
        return path, text[: r.randint(1, len(text) - 1)]
    if how == 1:
        return path, b"[" * r.randint(100, 60000)
    if how == 2:
        return path, text.replace(b" ", b" \xff\xfe\xed\xa0\x80", 1)[:-1]
    if how == 3:
        return "/v1/chat/completions", b'{"messages":[]}'
    if how == 4:
        return "/v1/chat/completions", b'{"messages":[{"role":"user","content":"a"}],"max_tokens":-5}'
    if how == 5:
        return "/v1/completions", b'{"prompt":[1,2,99999999999999999999]}'
    if how == 6:
        return "/v1/completions", json.dumps({"prompt": words(r, 3000)}).encode()
    if how == 7:
        return "/v1/nothing", text
    return "/v1/chat/completions", b'{"messages":[{"role":"user","content":"a"}],"temperature":"warm","model":7}'


def whole(path, body, data):
    """is this the whole answer?"""
    if body.get("stream") and path.startswith("/v1/c"):
        return data.rstrip().endswith(b"data: [DONE]") and b'"error"' not in data
    try:
        answer = json.loads(data)
    except ValueError:
        return False
    if path.startswith("/v1/c"):
        return all(c["finish_reason"] in ("stop", "length") for c in answer["choices"])
    return "error" not in answer


def one(r, port):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    try:
        if r.random() < 0.1:
            path, data = bad(r)
            c.request("POST", path, data, {"Content-Type": "application/json"})
            a = c.getresponse()
            text = a.read()
            if a.status == 429:
                count("queue full")
            elif not 400 <= a.status < 500 or b'"error"' not in text:
                fault("malformed", path, data[:80], "got", a.status, text[:200])
            else:
                count("refused")
            return
        path, body = good(r)
        given_up = r.random() < 0.2
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        if given_up and r.random() < 0.5:
            time.sleep(r.random() * 0.3)
            count("given up")
            return
        a = c.getresponse()
        if given_up:
            a.read(r.randint(1, 400))
            count("given up")
            return
        data = a.read()
        if a.status == 429:
            if not a.headers.get("Retry-After"):
                fault("429 without Retry-After")
            count("queue full")
            time.sleep(0.2)
        elif a.status != 200 or not whole(path, body, data):
            fault("well-formed", path, json.dumps(body)[:200], "got", a.status, data[-300:])
        else:
            count("answered")
    except (OSError, http.client.HTTPException) as e:
        fault("a connection failed:", repr(e))
    finally:
        c.close()


def client(seed, port, end):
    r = random.Random(seed)
    while time.monotonic() < end and len(faults) < 20:
        one(r, port)


def rss(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def get(port, path):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    c.request("GET", path)
    text = c.getresponse().read().decode()
    c.close()
    return text


def metric(port, name):
    return next(float(line.split()[-1]) for line in get(port, "/metrics").splitlines() if line.startswith(name))


def run(program, model, minutes, n_clients, folder):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    template = os.path.join(folder, "chatml.jinja")
    with open(template, "w", encoding="utf-8") as f:
        f.write(CHATML)
    log = open(os.path.join(folder, "log"), "wb")
    server = subprocess.Popen([program, "serve", "-m", model, "--port", str(port), "-np", "8", "-c", "2048", "--queue", "16",
                               "--chat-template-file", template, "--kv-save", folder,
                               "--log-file", os.path.join(folder, "access")], stdout=log, stderr=log)
    for _ in range(600):
        try:
            get(port, "/health")
            break
        except OSError:
            time.sleep(0.1)
    begin, end = time.monotonic(), time.monotonic() + 60 * minutes
    threads = [threading.Thread(target=client, args=(i, port, end)) for i in range(n_clients)]
    for t in threads:
        t.start()
    sizes, next_line = [], begin + 60
    while time.monotonic() < end and server.poll() is None and len(faults) < 20:
        time.sleep(min(2, 60 * minutes / 60))
        sizes.append((time.monotonic() - begin, rss(server.pid)))
        if time.monotonic() > next_line:
            next_line += 60
            print(f"{sizes[-1][0] / 60:4.0f} min  {sizes[-1][1]:7.1f} MB ", dict(counts), flush=True)
    for t in threads:
        t.join()
    if server.poll() is not None:
        fault("the server ended with", server.returncode)
    else:
        time.sleep(2)
        for name in ("tessera_slots_busy", "tessera_queue_length", 'tessera_kv_pages{state="held"}'):
            if metric(port, name) != 0:
                fault("at the end", name, "is", metric(port, name))
        server.terminate()
        if server.wait(60) != 0:
            fault("SIGTERM: status", server.returncode)
    later = [m for t, m in sizes if t > 60 * minutes / 6]
    n = max(len(later) // 6, 1)
    early, late = statistics.median(later[:n]), statistics.median(later[-n:])
    print(f"memory: {early:.1f} MB after the first sixth, {late:.1f} MB at the end")
    if late > early * 1.02 + 2:
        fault(f"memory grew from {early:.1f} to {late:.1f} MB")
    print(dict(counts))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--clients", type=int, default=32)
    p.add_argument("--model")
    p.add_argument("program", nargs="?", default=os.path.join(ROOT, "build", "release", "tessera"))
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-soak-") as folder:
        model = a.model
        if not model:
            model = os.path.join(folder, "tiny.gguf")
            subprocess.run([a.program, "synth", "--arch", "llama", "--preset", "tiny", "-o", model], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run(a.program, model, a.minutes, a.clients, folder)
    print(f"{len(faults)} faults" if faults else "no fault")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
