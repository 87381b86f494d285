#!/usr/bin/env python3
"""A server under load for a while: clients that stream, wait, go away at random and send nonsense.

    bench/soak.py MODEL [--minutes N] [--clients N] [-- options of tessera serve]

Fails (1) where a well-formed request isn't answered, an answer has the wrong shape, a slot stays taken, the server
ends, or its memory grows after the first sixth of the time by more than 5 % and 16 MiB.
"""
import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

TESSERA = os.environ.get("TESSERA") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "build", "release", "tessera")
BAD = (b"", b"{", b"[" * 60000, b"\xff\xfe", b'{"messages": []}', b'{"messages": 5}', b'{"prompt": [-1]}',
       b'{"messages": [{"role": "user", "content": "x"}], "n": -1}',
       b'{"messages": [{"role": "user", "content": "\xc3"}]}',
       b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": '
       b'{"schema": {"$ref": "#"}}}}', b"x" * 100000)
WORDS = "the a tree house river of and to stone light over under was is green old".split()


class Soak:
    def __init__(self, port, seconds):
        self.port, self.end = port, time.time() + seconds
        self.lock, self.counts, self.wrong = threading.Lock(), {}, []

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def complain(self, *what):
        with self.lock:
            self.wrong.append(" ".join(map(str, what))[:500])

    def body(self, r):
        shared = " ".join(WORDS * 20) if r.random() < 0.5 else ""
        text = shared + " ".join(r.choice(WORDS) for _ in range(r.randrange(1, 200)))
        b = {"messages": [{"role": "user", "content": text}], "max_tokens": r.randrange(1, 60),
             "stream": r.random() < 0.6}
        if r.random() < 0.2:
            b["n"] = 2
        if r.random() < 0.2:
            b.update(logprobs=True, top_logprobs=5)
        if r.random() < 0.1:
            b["response_format"] = {"type": "json_object"}
        if r.random() < 0.1:
            b["stop"] = ["a", "the"]
        return b

    def one(self, r):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            if r.random() < 0.1:
                c.request("POST", r.choice(("/v1/chat/completions", "/v1/completions")), r.choice(BAD))
                a = c.getresponse()
                data = json.loads(a.read())
                if a.status != 400 or "message" not in data["error"]:
                    self.complain("nonsense was answered with", a.status, data)
                self.count("malformed")
                return
            b = self.body(r)
            c.request("POST", "/v1/chat/completions", json.dumps(b))
            if r.random() < 0.2:  # goes away, before or after the first words
                if r.random() < 0.5 and b["stream"]:
                    c.getresponse().read(100)
                else:
                    time.sleep(r.random() * 0.2)
                self.count("left")
                return
            a = c.getresponse()
            data = a.read()
            if a.status == 429 and a.getheader("Retry-After"):
                self.count("queue full")
                time.sleep(0.2)
            elif a.status != 200:
                self.complain("status", a.status, data)
            elif b["stream"] and not data.endswith(b"data: [DONE]\n\n"):
                self.complain("a stream ends with", data[-200:])
            elif not b["stream"] and len(json.loads(data)["choices"]) != b.get("n", 1):
                self.complain("choices:", data)
            else:
                self.count("answered")
        except Exception as e:  # noqa: BLE001: whatever it is, it is a finding
            self.complain("no answer:", repr(e))
        finally:
            c.close()

    def client(self, seed):
        r = random.Random(seed)
        while time.time() < self.end:
            self.one(r)

    def metric(self, name):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("GET", "/metrics")
        text = c.getresponse().read().decode()
        c.close()
        return float(re.search(rf"^tessera_{name} (\S+)$", text, re.M).group(1))


def resident(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def watch(p, soak, seconds):
    """Memory, twelve times; what it was at a sixth of the time and the most after it."""
    early, late = 0, 0
    for i in range(12):
        time.sleep(seconds / 12)
        if p.poll() is not None:
            soak.complain("the server ended with", p.returncode)
            return early, late
        now = resident(p.pid)
        early, late = (now, now) if i < 2 else (early, max(late, now))
        print(f"{(i + 1) * seconds / 12:6.0f} s  {now / 2**20:8.1f} MiB  {soak.counts}", flush=True)
    return early, late


def serve(args):
    p = subprocess.Popen([TESSERA, "serve", "-m", args.model, "--port", "0", "--no-log", *args.options],
                         stderr=subprocess.PIPE)
    for line in p.stderr:
        m = re.search(rb"listening at http://.*:(\d+)$", line.strip())
        if m:
            threading.Thread(target=p.stderr.read, daemon=True).start()
            return p, int(m.group(1))
    sys.exit("the server doesn't start")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model")
    a.add_argument("--minutes", type=float, default=30)
    a.add_argument("--clients", type=int, default=32)
    a.add_argument("--seed", type=int, default=1)
    mine = sys.argv[1:sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    args = a.parse_args(mine)
    args.options = sys.argv[len(mine) + 2:]
    p, port = serve(args)
    soak = Soak(port, 60 * args.minutes)
    threads = [threading.Thread(target=soak.client, args=(args.seed * 1000 + i,)) for i in range(args.clients)]
    for t in threads:
        t.start()
    early, late = watch(p, soak, 60 * args.minutes)
    for t in threads:
        t.join()
    if p.poll() is None:
        time.sleep(2)
        for name in ("slots_busy", "queue_length"):
            if soak.metric(name) != 0:
                soak.complain(name, "is", soak.metric(name))
        p.send_signal(signal.SIGTERM)
        if p.wait(60) != 0:
            soak.complain("the server's status is", p.returncode)
    if late > 1.05 * early + (16 << 20):
        soak.complain("memory grew from", early, "to", late)
    for w in soak.wrong[:20]:
        print("wrong:", w)
    print(f"{soak.counts}, {len(soak.wrong)} wrong")
    sys.exit(1 if soak.wrong else 0)


main()
