#!/usr/bin/env python3
"""tessera serve and the world: what strangers send, keys, crowds, who is slow or goes away, signals, logs, options."""
import json
import os
import re
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli_tool import SOURCE, Folder, bad, check, done, good  # noqa: E402
from serve_tool import MESSAGES, Server, head_of, read_all  # noqa: E402

LONG = {"n": 128, "max_tokens": 1900, "ignore_eos": True}  # minutes, with --isa ref
SLOW = ("--isa", "ref", "-t", 1)
TAKES_A_WHILE = 200 if "TS_SANITIZED" in os.environ else 1800  # tokens


def text_of(r):
    return r.json["choices"][0]["message"]["content"]


# --- what strangers send ------------------------------------------------------------------------------------------

def paths(s):
    for path in ("/nope", "/v1", "/v1/models/", "/../etc/passwd", "/..%2f..%2fetc%2fpasswd",
                 "/%2e%2e/%2e%2e/etc/passwd", "/page/../../x", "/page/..%2f..%2fCMakeLists.txt", "/page/", "/page",
                 "//etc/passwd", "/index.html/../../x", "/page.c", "/%00", "/" + "a" * 2000):
        r = s.get(path)
        check(r.status == 404 and r.error.get("code") == "not_found", path, r)
        check(b"root:" not in r.body, path, "gives a file")
    for method, path in (("GET", "/v1/chat/completions"), ("PUT", "/v1/chat/completions"), ("DELETE", "/health"),
                         ("POST", "/health"), ("POST", "/v1/models"), ("PATCH", "/metrics")):
        r = s.request(method, path)
        check(r.status == 405 and r.error and "allow" in r.headers, method, path, r, r.headers)


def large(s):
    """More than the 100 KiB that this server takes."""
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * (100 << 20) + b'"}]}'
    r = s.post("/v1/chat/completions", body)
    check(r.status == 413 and r.error.get("code") == "body_too_large", r)
    r = s.raw(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" +
              b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n")
    check(r.startswith(b"HTTP/1.1 413 "), "chunked:", r[:300])
    r = s.raw(head_of("/tokenize", b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 999999999"))
    check(r.startswith(b"HTTP/1.1 413 "), "it asked before it sent:", r[:300])
    check(s.metric("http_too_large_total") == 3, "counted:", s.metric("http_too_large_total"))
    # headers
    few = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    check(s.raw(few + b"\r\n").startswith(b"HTTP/1.1 200 "), "few headers")
    r = s.raw(few + b"".join(b"X-%d: y\r\n" % i for i in range(300)) + b"\r\n")
    check(r.startswith(b"HTTP/1.1 431 ") and b'"header_too_large"' in r, "many headers:", r[:300])
    r = s.raw(few + b"X-Long: " + b"y" * 60000 + b"\r\n\r\n")
    check(r.startswith(b"HTTP/1.1 431 "), "a long header:", r[:300])
    r = s.raw(few + b"X-Long: " + b"y" * 10000000 + b"\r\n\r\n")
    check(r == b"" or re.match(rb"HTTP/1\.1 4\d\d ", r), "a very long header:", r[:300])
    for junk in (b"\0" * 1000, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                 b"GET / HTTP/9.9\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                 b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
        with s.socket() as c:
            c.sendall(junk)
            c.shutdown(socket.SHUT_WR)
            r = read_all(c)
        check(b" 200 " not in r, junk, "->", r[:200])
    check(s.get("/health").status == 200, "alive after junk")


def page(s):
    folder = os.path.join(SOURCE, "server", "page")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for name in names:
        r = s.get("/page/" + name)
        with open(os.path.join(folder, name), "rb") as f:
            check(r.status == 200 and r.body == f.read(), "/page/" + name, r.status)
        policy = r.headers.get("content-security-policy", "")
        check("default-src 'none'" in policy and "unsafe" not in policy and r.headers["x-content-type-options"] ==
              "nosniff", name, r.headers)
    r = s.get("/")
    check(r.status == (200 if names else 404), "/", r.status)
    if names:
        check(r.headers["content-type"] == "text/html; charset=utf-8" and r.body == s.get("/page/index.html").body, r)


def long_texts(s):
    """Bodies that are read by another thread than the one that answers others."""
    r = s.post("/tokenize", {"content": "a " * 500000})
    check(r.status == 200 and len(r.json["tokens"]) > 400000, r.status)
    r = s.chat("a " * 1000000)
    check(r.status == 400 and r.error.get("code") == "context_length_exceeded" and "100" in r.error["message"], r)
    r = s.post("/v1/chat/completions", "[" * 3000000)
    check(r.status == 400 and r.error, r)
    r = s.post("/v1/completions", {"prompt": "a", "max_tokens": 2, "ignore_eos": True, "junk": [[]] * 500000})
    check(r.status == 200 and r.json["usage"]["completion_tokens"] == 2, r)
    events = s.stream("/v1/completions", {"prompt": "a", "max_tokens": 2, "ignore_eos": True, "junk": "x" * 2000000})
    check(events[-1]["choices"][0]["finish_reason"] == "length", events)


# --- keys, pages of others ----------------------------------------------------------------------------------------

def keys(folder, tiny):
    file = folder.file("keys", "# comment\n\nthird-key\r\n")
    with Server(tiny, "--api-key", "first-key", "--api-key", "second,key", "--api-key-file", file, "--no-log") as s:
        for path in ("/v1/models", "/metrics", "/props", "/plan", "/nope"):
            r = s.get(path)
            check(r.status == 401 and r.error.get("code") == "invalid_api_key" and
                  r.headers["www-authenticate"].startswith("Bearer"), path, r, r.headers)
        check(s.get("/health").status == 200, "/health is open")
        check(s.request("OPTIONS", "/v1/models").status == 204, "OPTIONS")
        for key in ("first-key", "second,key", "third-key"):
            check(s.get("/v1/models", headers={"Authorization": "Bearer " + key}).status == 200, key)
        check(s.get("/v1/models", headers={"X-Api-Key": "first-key"}).status == 200, "X-Api-Key")
        for wrong in ("first-ke", "first-key1", "first-kez", "", "FIRST-KEY", "second", "first-keyfirst-key"):
            r = s.get("/v1/models", headers={"Authorization": "Bearer " + wrong})
            check(r.status == 401 and r.error, wrong, r)
        check(s.get("/v1/models", headers={"Authorization": "Basic first-key"}).status == 401, "Basic")
        r = s.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1})
        check(r.status == 401, r)
        r = s.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1},
                   headers={"Authorization": "Bearer first-key"})
        check(r.status == 200, r)


def origins(tiny):
    here = {"Origin": "https://a.example"}
    with Server(tiny, "--cors-origin", "https://a.example", "--cors-origin", "https://b.example", "--no-log") as s:
        r = s.get("/health", headers=here)
        check(r.headers.get("access-control-allow-origin") == "https://a.example" and r.headers["vary"] == "Origin",
              r.headers)
        r = s.get("/health", headers={"Origin": "https://c.example"})
        check("access-control-allow-origin" not in r.headers, r.headers)
        r = s.request("OPTIONS", "/v1/chat/completions", headers={
            **here, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"})
        check(r.status == 204 and "POST" in r.headers["access-control-allow-methods"] and
              "Authorization" in r.headers["access-control-allow-headers"], r.headers)
        r = s.post("/v1/chat/completions", "{", headers=here)
        check(r.status == 400 and r.headers.get("access-control-allow-origin") == "https://a.example", r.headers)
    with Server(tiny, "--cors-origin", "*", "--no-log") as s:
        check(s.get("/health", headers=here).headers.get("access-control-allow-origin") == "*", "*")
    with Server(tiny, "--no-log", "--no-page") as s:
        r = s.get("/health", headers=here)
        check(not any(h.startswith("access-control") for h in r.headers), "CORS unasked for:", r.headers)
        check(s.get("/").status == 404 and s.get("/page/app.js").status == 404, "--no-page")
        # a page elsewhere whose name points here
        for host, status in (("evil.example", 421), ("evil.example:80", 421), ("localhost:1", 200), ("127.0.0.1", 200),
                             ("[::1]:80", 200), ("local", 421), ("l", 421)):
            r = s.get("/health", headers={"Host": host})
            check(r.status == status and (status == 200 or r.error), host, r)
        # one that has answers made without reading them; the page of this server, and whoever is no page
        own = f"127.0.0.1:{s.port}"
        for origin, status in (("https://evil.example", 403), ("null", 403), (f"https://{own}", 403),
                               (f"http://{own}", 200), (None, 200)):
            headers = {"Host": own, **({"Origin": origin} if origin else {})}
            r = s.post("/tokenize", {"content": "a"}, headers=headers)
            check(r.status == status and (status == 200 or r.error["code"] == "strange_origin"), origin, r)


# --- crowds, and those who are slow or go away --------------------------------------------------------------------

def background(f, *args, **kw):
    got = []
    t = threading.Thread(target=lambda: got.append(f(*args, **kw)))
    t.start()
    return t, got


def send_long(s, stream=False, **fields):
    c = s.socket()
    c.sendall(head_of("/v1/chat/completions", json.dumps({"messages": MESSAGES, "stream": stream, **LONG,
                                                          **fields}).encode()))
    return c


def crowds(tiny):
    with Server(tiny, *SLOW, "-np", 1, "--queue", 1, "--no-log") as s:
        a = send_long(s)
        s.until("slots_busy", 1)
        t, got = background(s.chat, max_tokens=2)
        s.until("queue_length", 1)
        r = s.chat(max_tokens=2)
        check(r.status == 429 and r.error.get("code") == "queue_full" and r.headers["retry-after"] == "1", r, r.headers)
        check(s.metric("http_queue_full_total") == 1, "counted")
        # who goes away, without a stream, gives its slot to the next
        start = time.time()
        a.close()
        t.join(20)
        check(got and got[0].status == 200 and time.time() - start < 5, "the one that waited:", got and str(got[0]))
        s.until("slots_busy", 0)
        s.until("http_requests_in_flight", 1)  # the one that asks
        # the same with a stream, after its first words
        a = send_long(s, stream=True)
        check(b"200 OK" in a.recv(2000), "a stream begins")
        s.until("slots_busy", 1)
        start = time.time()
        a.close()
        check(s.chat(max_tokens=2).status == 200 and time.time() - start < 5, "the next one's turn")
        # and one that goes away while it waits
        a = send_long(s)
        s.until("slots_busy", 1)
        b = send_long(s)
        s.until("queue_length", 1)
        b.close()
        s.until("queue_length", 0)
        a.close()
        s.until("slots_busy", 0)
        check(s.metric("generations_cancelled_total") == 4, s.metric("generations_cancelled_total"))


def many(tiny):
    with Server(tiny, "--no-log") as s:
        want = text_of(s.chat(max_tokens=30, temperature=0, ignore_eos=True))
        got = []

        def ask(i):
            for _ in range(4):
                if i % 2:
                    events = s.stream("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 30, "temperature": 0,
                                                               "ignore_eos": True})
                    got.append("".join(e["choices"][0]["delta"].get("content", "") for e in events))
                else:
                    got.append(text_of(s.chat(max_tokens=30, temperature=0, ignore_eos=True)))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(len(got) == 48 and all(len(g) > 5 for g in got), "answers of a crowd:", len(got), set(got), want)


def connections(tiny):
    """More of them than there may be: those that say nothing are ended, and the next ones served."""
    with Server(tiny, "--max-connections", 8, "--timeout-read", 1, "--no-log") as s:
        idle = [s.socket() for _ in range(40)]
        start = time.time()
        check(s.get("/health").status == 200 and time.time() - start < 20, "behind idle ones:", time.time() - start)
        for c in idle:
            c.close()


def slow_senders(tiny):
    with Server(tiny, "--timeout-read", 1, "--no-log") as s:
        def drip(data, step):
            """Seconds until the server has had enough of one byte every now and then."""
            with s.socket() as c:
                start, said = time.time(), b""
                try:
                    for i in range(0, len(data), 1):
                        c.sendall(data[i:i + 1])
                        time.sleep(step)
                        c.setblocking(False)
                        try:
                            said += c.recv(4096) or b"\0"
                        except BlockingIOError:
                            pass
                        c.setblocking(True)
                        if said:
                            break
                except OSError:
                    pass
                return time.time() - start, said

        whole = head_of("/tokenize", b'{"content": "hello"}')
        took, said = drip(whole, 0.05)
        check(0.9 < took < 3 and b"408" in said and b'"request_timeout"' in said, "a slow head:", took, said)
        with s.socket() as c:  # a fast head, a slow body
            c.sendall(head_of("/tokenize", b"x" * 100)[:-100])
            start, said = time.time(), b""
            while not said and time.time() - start < 10:
                try:
                    c.sendall(b"x")
                    c.settimeout(0.1)
                    said = c.recv(4096) or b"\0"
                except TimeoutError:
                    pass
                except OSError:
                    break
            check(0.9 < time.time() - start < 3 and b"408" in said, "a slow body:", time.time() - start, said)
        with s.socket() as c:  # nothing at all
            start = time.time()
            read_all(c)
            check(time.time() - start < 3, "a connection that says nothing")
        with s.socket() as c:  # a second request that drips
            c.sendall(whole)
            check(b"200 OK" in c.recv(4096), "the first")
            time.sleep(0.3)
            start, said = time.time(), b""
            try:
                for i in range(60):
                    c.sendall(whole[i:i + 1])
                    time.sleep(0.05)
            except OSError:
                pass
            said = read_all(c)
            check(time.time() - start < 5, "a slow second request:", time.time() - start, said)
        with s.socket() as c:  # two in a row, with a rest between them, are no crime
            for _ in range(3):
                c.sendall(whole)
                check(b"200 OK" in c.recv(4096), "in a row")
                time.sleep(0.5)
        check(s.metric("http_slow_senders_total") >= 3, s.metric("http_slow_senders_total"))
        check(s.get("/health").status == 200, "alive")


def slow_readers(tiny):
    with Server(tiny, "--timeout-write", 1, "-np", 2, "-c", 4096, "--no-log") as s:
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.settimeout(60)
        c.connect(("127.0.0.1", s.port))
        body = json.dumps({"messages": MESSAGES, "stream": True, "logprobs": True, "top_logprobs": 20, **LONG})
        c.sendall(head_of("/v1/chat/completions", body.encode()))
        s.until("slots_busy", 2)
        start = time.time()
        s.until("slots_busy", 0, 30)
        s.until("http_slow_readers_total", 1)
        took = time.time() - start
        check(took < 20, "a reader that reads nothing held its slots for", took)
        c.close()
        # a slow model is no slow reader: nothing waits to be read
        check(s.chat(max_tokens=3).status == 200, "alive")


# --- signals, logs, the cache -------------------------------------------------------------------------------------

def drains(tiny):
    with Server(tiny, *SLOW, "-np", 2, "--drain", 300, "--no-log") as s:
        t, got = background(s.stream, "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": TAKES_A_WHILE,
                                                               "ignore_eos": True, "n": 6})
        s.until("slots_busy", 2)
        s.p.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        r = s.chat(max_tokens=1)
        check(r.status == 503 and r.error.get("code") == "shutting_down" and "retry-after" in r.headers, r)
        check(s.get("/health").status == 503, "/health")
        t.join()
        check(got and [e["choices"][0]["finish_reason"] for e in got[0]].count("length") == 6, "what ran is answered")
        s.wait()
        check(any("shutting down" in l for l in s.lines), s.lines)
    with Server(tiny, *SLOW, "--drain", 0.5, "--no-log") as s:  # not for ever
        stream = background(read_all, send_long(s, stream=True))
        s.until("slots_busy", 4)
        whole = background(s.chat, **LONG)
        s.until("queue_length", 4)
        start = time.time()
        s.p.send_signal(signal.SIGINT)
        s.wait()
        check(time.time() - start < 10, "a drain takes", time.time() - start)
        whole[0].join()
        check(whole[1] and whole[1][0].status == 503 and whole[1][0].error, "cut off:", whole[1] and str(whole[1][0]))
        stream[0].join()
        check(b'data: {"error":' in stream[1][0][-300:], "a stream that is cut off says so:", stream[1][0][-300:])
    with Server(tiny, *SLOW, "--no-log", status=143) as s:  # a second one doesn't wait
        c = send_long(s)
        s.until("slots_busy", 4)
        s.p.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        check(s.p.poll() is None, "it drains")
        start = time.time()
        s.p.send_signal(signal.SIGTERM)
        s.wait()
        check(time.time() - start < 3, "a second signal takes", time.time() - start)
        c.close()


def logs(folder, tiny):
    path, moved = folder.name("access.log"), folder.name("access.log.1")
    secret = "a secret question"
    with Server(tiny, "--log-file", path, "--api-key", "the-key") as s:
        auth = {"Authorization": "Bearer the-key"}
        s.post("/v1/chat/completions", {"messages": [{"role": "user", "content": secret}], "max_tokens": 3,
                                        "ignore_eos": True}, headers=auth)
        s.get("/nope?key=the-key")
        time.sleep(0.3)  # a line is written behind the answer
        os.rename(path, moved)
        s.get("/health")
        time.sleep(0.3)
        s.p.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        s.get("/v1/health")
        check(s.p.poll() is None, "SIGHUP ends it")
    with open(moved) as f:
        order = ["/v1/chat/completions", "/nope", "/health"]
        old = sorted(map(json.loads, f), key=lambda l: order.index(l["path"]))
    with open(path) as f:
        new = [json.loads(l) for l in f]
    check([l["path"] for l in old] == order, old)
    check([l["path"] for l in new] == ["/v1/health"], new)
    a = old[0]
    check(a["status"] == 200 and a["method"] == "POST" and a["key"] == 1 and a["client"] == "127.0.0.1" and
          a["prompt_tokens"] > 3 and a["completion_tokens"] == 3 and a["end"] == "length" and a["ms"] > 0, a)
    check(old[1]["status"] == 401 and old[1]["code"] == "invalid_api_key", old[1])
    with open(moved) as f:
        text = f.read()
    check(secret not in text and "the-key" not in text, "a prompt or a key in the log:", text)
    check(not any(secret in l for l in s.lines), "a prompt on stderr")
    check(os.stat(path).st_mode & 0o007 == 0, "the log can be read by all")
    with Server(tiny, "--log-prompts") as s:
        s.chat(secret, max_tokens=1)
    lines = [json.loads(l) for l in s.lines if l.startswith("{")]
    check(len(lines) == 1 and secret in lines[0]["prompt"], s.lines)


def kept(folder, tiny):
    d = folder.name("kv")
    prompt = {"prompt": "word " * 300, "max_tokens": 1, "temperature": 0, "logprobs": 5}
    with Server(tiny, "--kv-save", d, "--no-log") as s:
        a = s.post("/v1/completions", prompt).json
        check(a["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, a["usage"])
        b = s.post("/v1/completions", prompt).json
        check(b["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64, b["usage"])
    check(any(l.startswith("saved ") for l in s.lines), s.lines)
    names = os.listdir(d)
    check(len(names) == 1 and names[0].endswith(".kv"), names)
    check(os.stat(d).st_mode & 0o077 == 0, "others may look into", d)
    with Server(tiny, "--kv-save", d, "--no-log") as s:
        check(any(l.startswith("restored ") for l in s.lines), s.lines)
        c = s.post("/v1/completions", prompt).json
        check(c["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64 and
              c["choices"][0]["logprobs"]["tokens"] == a["choices"][0]["logprobs"]["tokens"], c["usage"])
    path = os.path.join(d, names[0])
    with open(path, "r+b") as f:
        f.seek(os.path.getsize(path) // 2)
        f.write(b"\x55" * 64)
    with Server(tiny, "--kv-save", d, "--no-log") as s:
        check(any(l.startswith("warning: ") and "begins empty" in l for l in s.lines), s.lines)
        c = s.post("/v1/completions", prompt).json
        check(c["usage"]["prompt_tokens_details"]["cached_tokens"] == 0 and
              c["choices"][0]["text"] == a["choices"][0]["text"], c["usage"])


def usage(folder, tiny):
    r = good("serve", "--help")
    for word in ("--api-key", "--parallel", "--queue", "--cors-origin", "--kv-save", "--timeout-read"):
        check(word in r.out, "--help should name", word)
    bad(("serve",), "serve needs -m FILE")
    bad(("serve", "-m", tiny, "--host", "0.0.0.0"), "--host 0.0.0.0", "--api-key", "--no-auth")
    bad(("serve", "-m", tiny, "--host", "no.such.host.invalid"), "no such address")
    bad(("serve", "-m", tiny, "--no-auth", "--api-key", "x"), "exclude each other")
    bad(("serve", "-m", tiny, "--api-key", ""), "empty")
    bad(("serve", "-m", tiny, "--api-key-file", "/nonexistent"), "/nonexistent")
    bad(("serve", "-m", tiny, "--api-key-file", folder.file("none", "# nothing\n")), "holds no key")
    bad(("serve", "-m", tiny, "--log-file", "/nonexistent/x"), "/nonexistent/x")
    bad(("serve", "-m", tiny, "--chat-template", "{{ x", "--port", 0, "--no-log"), "the chat template, line 1")
    bad(("serve", "-m", tiny, "--kv-save", "/nonexistent/x/y"), "--kv-save")
    bad(("serve", "-m", "/nonexistent"), "/nonexistent")
    with Server(tiny, "--host", "0.0.0.0", "--no-auth", "--no-log") as s:
        check(s.get("/health").status == 200, "--no-auth")
        bad(("serve", "-m", tiny, "--port", s.port), "cannot be listened at")
    with open(tiny, "rb") as f:
        bare = folder.file("bare.gguf", f.read().replace(b"tokenizer.chat_template", b"tokenizer.chat_templat0"))
    with Server(bare, "--no-log") as s:
        r = s.chat()
        check(r.status == 400 and r.error.get("code") == "no_chat_template" and "template" in r.error["message"], r)
        check(s.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).status == 200, "a completion without one")
        check(s.get("/v1/models").json["data"][0]["id"] == "Random weights in the shape of tiny Llama", "its own name")
    shows = "{% for m in messages %}{{ m.content }}{% endfor %}{{ mood|d('') }}{{ reasoning_effort|d('') }}"
    with Server(tiny, "--chat-template", shows, "--no-log") as s:
        n = [s.chat(max_tokens=1, **f).json["usage"]["prompt_tokens"]
             for f in ({}, {"chat_template_kwargs": {"mood": "gay and merry"}}, {"reasoning_effort": "high"},
                       {"chat_template_kwargs": {"messages": []}})]
        check(n[1] > n[0] and n[2] > n[0] and n[3] == n[0], "variables of the template:", n)
    refuses = "{{ raise_exception('Not today.') }}"
    with Server(tiny, "--chat-template", refuses, "--no-log") as s:
        r = s.chat()
        check(r.status == 400 and "Not today." in r.error.get("message", ""), r)


with Folder() as f:
    small = f.model("tiny.gguf")
    usage(f, small)
    with Server(small, "--no-log") as server:
        paths(server)
        page(server)
        long_texts(server)
    with Server(small, "--max-body", 100 << 10, "--timeout-read", 5, "--no-log") as server:
        large(server)
    keys(f, small)
    origins(small)
    crowds(small)
    many(small)
    connections(small)
    slow_senders(small)
    slow_readers(small)
    drains(small)
    logs(f, small)
    kept(f, small)
done("serve_strangers")
