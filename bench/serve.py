#!/usr/bin/env python3
"""serve.py - a server with many users: tokens a second of 1, 4, 8 and 16 who decode, what serving costs one of them, and how
long a user waits for the first token of a prompt whose beginning somebody had before. Beside llama-server, in turns.

    serve.py [--rounds N] [--users N,N] [--tokens N] [--type TYPE] [--preset PRESET] [--model FILE] [-o FILE] [-- OPTIONS]

Without --model a model of random weights is made by `tessera synth` in /dev/shm, or in TMPDIR: 8B, Q4_0. OPTIONS go to
`tessera serve`, `tessera bench` and llama-server alike: -ngl 0.

    TESSERA       default: build/release/tessera
    LLAMA_SERVER  llama-server; unset: left out
"""
import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESSERA = os.environ.get("TESSERA", os.path.join(ROOT, "build", "release", "tessera"))
LLAMA = os.environ.get("LLAMA_SERVER")
PREFIX = 2000  # tokens that prompts have in common
OWN = 16       # and of their own
BEGIN = time.monotonic()


def say(*text):
    print(f"== {time.monotonic() - BEGIN:4.0f} s ", *text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, command, port):
        self.port = port
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                c.request("GET", "/health")
                if c.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        self.close()
        self.log.seek(0)
        sys.exit(f"{command[0]} didn't begin: {self.log.read()[-400:]}")

    def complete(self, prompt, tokens):
        """times at which pieces of the answer came, since the request, and how many tokens it has"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        body = {"prompt": prompt, "max_tokens": tokens, "n_predict": tokens, "temperature": 0, "ignore_eos": True,
                "stream": True, "cache_prompt": True, "stream_options": {"include_usage": True}}
        begin = time.monotonic()
        c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            sys.exit(f"status {r.status}: {r.read()[:400]}")
        times, made = [], 0
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                made = chunk["usage"]["completion_tokens"]
            if chunk.get("choices"):
                times.append(time.monotonic() - begin)
        c.close()
        if made and made != tokens:
            sys.exit(f"{made} tokens came, not {tokens}")
        return times

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def tessera(model, slots, options):
    port = free_port()
    return Server([TESSERA, "serve", "-m", model, "--port", str(port), "-np", str(slots), "-c", str(slots * 512 + 4096),
                   "--no-log", *options], port)


def llama(model, slots, options):
    port = free_port()
    return Server([LLAMA, "-m", model, "--port", str(port), "-np", str(slots), "-c", str(slots * 512 + 4096), "-kvu",
                   *options], port)


def ids(seed, n):
    return [3 + (seed * 7919 + i * i * 31 + i * 17) % 200 for i in range(n)]


def users(server, n, tokens, seed):
    """tokens a second of n users together: what each gets between its first and its last token, all of them"""
    answers, threads = [None] * n, []

    def one(i):
        answers[i] = server.complete(ids(seed * 100 + i, OWN), tokens)

    for i in range(n):
        threads.append(threading.Thread(target=one, args=(i,)))
        threads[-1].start()
    for t in threads:
        t.join()
    return sum((tokens - 1) / (a[-1] - a[0]) for a in answers)


def measure(model, counts, tokens, rounds, options):
    data = {}

    def add(test, who, value):
        say(test, who, f"{value:.3f}")
        data.setdefault(test, {}).setdefault(who, []).append(value)

    for r in range(rounds):
        out = subprocess.run([TESSERA, "bench", "-m", model, "-p", "0", "-n", str(tokens), "-r", "2", "-o", "json", *options],
                             capture_output=True, text=True, check=True).stdout
        add("alone", "run", json.loads(out[out.index("["):])[0]["avg_ts"])
        for who, start in (("tessera", tessera), ("llama-server", llama)):
            if who == "llama-server" and not LLAMA:
                continue
            server = start(model, max(counts), options)
            server.complete(ids(1, OWN), 4)
            for n in counts:
                add(f"{n} users", who, users(server, n, tokens, 10 * r + n))
            for i in range(8):
                wait = server.complete(ids(900 + r, PREFIX) + ids(50 + i, OWN), 2)[0]
                add("first token, first user" if i == 0 else "first token, second user on", who, wait)
            server.close()
    return data


def table(data):
    def median(test, who):
        return statistics.median(data[test][who]) if who in data.get(test, {}) else None

    print("| | Tessera | times one user | llama-server | ratio |\n|---|---|---|---|---|")
    one = median("1 users", "tessera")
    for test in data:
        own, other = median(test, "tessera"), median(test, "llama-server")
        if own is None:
            continue
        if "token" in test:
            print(f"| {test}, {PREFIX} tokens of the prompt in common | {own * 1000:.0f} ms | |"
                  f" {f'{other * 1000:.0f} ms' if other else ''} | {f'{other / own:.2f}' if other else ''} |")
        else:
            print(f"| {test.replace('1 users', 'one user')}, tokens a second | {own:.1f} | {own / one:.2f} |"
                  f" {f'{other:.1f}' if other else ''} | {f'{own / other:.2f}' if other else ''} |")
    alone = median("alone", "run")
    print(f"\none user beside `tessera bench`: {one:.2f} and {alone:.2f} tokens a second, {100 * (alone / one - 1):.1f} % slower")
    first, second = (median(f"first token, {x}", "tessera") for x in ("first user", "second user on"))
    print(f"second user's first token: {second / first:.3f} of the first's")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--users", default="1,4,8,16")
    p.add_argument("--tokens", type=int, default=96)
    p.add_argument("--type", default="Q4_0")
    p.add_argument("--preset", default="8b")
    p.add_argument("--model")
    p.add_argument("-o", "--output")
    p.add_argument("options", nargs="*")
    a = p.parse_args()
    model = a.model
    if not model:
        where = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
        model = os.path.join(where, f"serve-{a.preset}-{a.type}.gguf")
        subprocess.run([TESSERA, "synth", "--arch", "llama", "--preset", a.preset, "--type", a.type, "-o", model], check=True)
    try:
        data = measure(model, [int(n) for n in a.users.split(",")], a.tokens, a.rounds, a.options)
    finally:
        if not a.model:
            os.unlink(model)
    if a.output:
        with open(a.output, "w") as f:
            json.dump(data, f)
    table(data)


if __name__ == "__main__":
    main()
