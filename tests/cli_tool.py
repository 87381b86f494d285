"""What the tests of the command line share: running the program, checks, a folder that is removed."""
import os
import shutil
import subprocess
import sys
import tempfile

TESSERA = os.environ.get("TESSERA") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "build", "tessera")
SOURCE = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
# No GPU of this machine, unless a test says so: the same everywhere.
ENV = {**{k: v for k, v in os.environ.items() if k != "TESSERA_ISA"}, "TESSERA_CUDA_LIBRARY": ""}

passed = 0
failures = []


def check(ok, *what):
    global passed
    if ok:
        passed += 1
        return
    text = " ".join(str(w) for w in what)
    failures.append(text)
    print("failed:", text[:2000], file=sys.stderr)


class Result:
    def __init__(self, p):
        self.rc = p.returncode
        self.bytes = p.stdout
        self.out = p.stdout.decode("utf-8", "replace")
        self.err = p.stderr.decode("utf-8", "replace")

    def __str__(self):
        return f"status {self.rc}, stdout {self.out[-600:]!r}, stderr {self.err[-600:]!r}"


def run(*args, stdin=b"", env=None, timeout=120, **kw):
    return Result(subprocess.run([TESSERA, *map(str, args)], input=stdin, capture_output=True,
                                 timeout=timeout, env={**ENV, **(env or {})}, **kw))


def good(*args, **kw):
    r = run(*args, **kw)
    check(r.rc == 0, args, "->", r)
    return r


def bad(args, *sentence, **kw):
    """One sentence on stderr that holds each of `sentence`, nothing on stdout, exit status 1."""
    r = run(*args, **kw)
    lines = [l for l in r.err.splitlines() if not l.startswith("warning: ")]
    check(r.rc == 1 and r.out == "" and len(lines) == 1 and lines[0].startswith("tessera: "),
          args, "->", r)
    for s in sentence:
        check(s in r.err, args, "should say", repr(s), "->", r)
    return r


class Folder:
    """A folder of its own for a test; `expect` at the end finds what was left behind in it."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="tessera-test-")
        self.known = set()
        return self

    def __exit__(self, *exc):
        left = set(os.listdir(self.path)) - self.known
        check(exc[0] is not None or not left, "left behind:", left)
        shutil.rmtree(self.path)

    def name(self, name):
        self.known.add(name)
        return os.path.join(self.path, name)

    def file(self, name, data):
        path = self.name(name)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path

    def model(self, name, **options):
        path = self.name(name)
        args = []
        for k, v in {"preset": "tiny", "type": "Q8_0", **options}.items():
            args += ["--" + k.replace("_", "-"), v]
        good("synth", *args, "-o", path)
        return path


def done(name):
    print(f"{name}: {passed} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)
