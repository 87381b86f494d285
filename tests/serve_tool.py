"""What the tests of tessera serve share: a server that runs, requests, raw sockets."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cli_tool import ENV, TESSERA, check  # noqa: E402


MESSAGES = [{"role": "user", "content": "Hello"}]
# A chat template with tools, for vocabularies as that of tessera synth.
HERMES = """{%- if tools %}<|start_header_id|>system
# Tools
<tools>{% for t in tools %}
{{ t | tojson }}{% endfor %}
</tools>
For each call return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|eot_id|>{% endif %}
{%- for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>
{{ m.content }}{% for c in m.tool_calls or [] %}
<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|eot_id|>{% endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>
{% endif %}"""


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def error(self):
        """The error object, if it has the shape of OpenAI's; {} if not."""
        e = self.json.get("error") if isinstance(self.json, dict) else None
        good = isinstance(e, dict) and set(e) == {"message", "type", "param", "code"}
        return e if good and isinstance(e["message"], str) and e["message"] and isinstance(e["type"], str) else {}

    def __str__(self):
        return f"{self.status} {self.body[:500]!r}"


class Server:
    """tessera serve on a free port, until `with` ends; its exit status must be 0 then."""

    def __init__(self, model, *args, status=0, env=None):
        self.p = subprocess.Popen([TESSERA, "serve", "-m", model, "--port", "0", *map(str, args)],
                                  stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**ENV, **(env or {})})
        self.status, self.lines, self.port = status, [], None
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.ready.wait(120)
        if not self.port:
            raise SystemExit(f"tessera serve doesn't listen: {self.lines}")

    def read(self):
        for line in self.p.stderr:
            line = line.decode("utf-8", "replace").rstrip("\n")
            self.lines.append(line)
            m = re.match(r"listening at http://(\[.*\]|[^:]*):(\d+)$", line)
            if m:
                self.port = int(m.group(2))
                self.ready.set()
        self.ready.set()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self, seconds=60):
        try:
            self.p.wait(seconds)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            check(False, "the server doesn't end:", self.lines[-3:])
        self.reader.join(5)
        check(self.p.returncode == self.status, "the server's exit status:", self.p.returncode, self.lines[-3:])

    def request(self, method, path, body=None, headers=None, timeout=60):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            c.request(method, path, body.encode() if isinstance(body, str) else body, headers or {})
            r = c.getresponse()
            return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
        finally:
            c.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def chat(self, text="Hello", **fields):
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    def stream(self, path, body):
        """The events of a stream, each read as JSON but for [DONE]."""
        r = self.post(path, {**body, "stream": True})
        check(r.status == 200 and r.headers["content-type"].startswith("text/event-stream"), r)
        events = r.body.decode().split("\n\n")
        check(events.pop() == "" and all(e.startswith("data: ") for e in events), "events:", r)
        events = [e[6:] for e in events]
        check(events and events[-1] == "[DONE]", "a stream's end:", r.body[-200:])
        return [json.loads(e) for e in events[:-1]]

    def metric(self, name):
        """A number of /metrics; name with its labels."""
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith("tessera_" + name + " "):
                return float(line.split()[-1])
        return None

    def until(self, name, value, seconds=20):
        """Waits until a metric has a value."""
        end = time.time() + seconds
        while time.time() < end:
            if self.metric(name) == value:
                return True
            time.sleep(0.02)
        check(False, name, "is", self.metric(name), "and never", value)
        return False

    def socket(self, timeout=30):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data, seconds=30):
        """What comes back for these bytes, until the server closes."""
        with self.socket(seconds) as s:
            try:
                s.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has had enough
            return read_all(s)


def read_all(s):
    got = b""
    try:
        while True:
            more = s.recv(65536)
            if not more:
                return got
            got += more
    except (ConnectionResetError, TimeoutError):
        return got


def head_of(path, body=b"", *lines):
    return b"\r\n".join([b"POST " + path.encode() + b" HTTP/1.1", b"Host: localhost",
                         b"Content-Type: application/json", b"Content-Length: %d" % len(body),
                         *lines, b"", b""]) + body
