"""The command line: usage, every wrong option, `run` and its streams, signals, terminals."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time

from cli_tool import ENV, SOURCE, TESSERA, Folder, bad, check, done, good, run

COMMANDS = ["run", "tokenize", "grammar", "inspect", "plan", "bench", "perplexity", "info", "synth"]


def usage():
    r = run()
    check(r.rc == 1 and r.out == "" and "Usage: tessera COMMAND" in r.err, r)
    for word in ["--help", "-h", "help"]:
        r = good(word)
        check(r.err == "" and all(f"\n  {c} " in r.out for c in COMMANDS), r)
    with open(os.path.join(SOURCE, "include", "tessera.h")) as f:
        v = re.findall(r"#define TS_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", f.read())
    check(good("--version").out == "tessera " + ".".join(v) + "\n", v)
    for c in COMMANDS:
        for word in ["--help", "-h"]:
            r = good(c, word)
            check(r.err == "" and r.out.startswith(f"tessera {c} - "), r)
            check(f"Usage: tessera {c} " in r.out and "\nExample:\n  " in r.out, r)
            check(all(len(line) <= 100 for line in r.out.splitlines()), c, "has long lines")
    bad(["rnu"], "no command 'rnu'", "'run'")
    bad(["perplexty"], "'perplexity'")
    bad(["--versoin"], "'--versoin'")
    bad(["run", "--modle", "x"], "unknown option '--modle'", "'--model'")
    bad(["tokenize", "--jsno"], "'--json'")
    bad(["inspect", "--jsno"], "'--json'")
    bad(["plan", "--jso"], "'--json'")
    bad(["bench", "--repetition", "3"], "'--repetitions'")
    bad(["perplexity", "--save-logit", "x"], "'--save-logits'")
    bad(["synth", "--pressset", "x"], "'--preset'")


def wrong_values(model):
    for option, values in {
        "-n": ["-2", "abc", "1.5", "", "99999999999999999999", "0x10", "1e3"],
        "-c": ["0", "-1", "abc", "", "99999999999999999999", "2147483648"],
        "-b": ["0", "-1", "x", "99999999999"],
        "-ub": ["0", "-1", "x", "99999999999"],
        "-t": ["0", "-1", "x", "99999999999", "1025"],
        "--temp": ["-1", "hot", "nan", "inf", "1e999", ""],
        "--top-k": ["-1", "x", "1.5"],
        "--top-p": ["-0.1", "1.1", "x"],
        "--min-p": ["-0.1", "1.1", "x"],
        "--repeat-penalty": ["0", "-1", "x"],
        "--repeat-last-n": ["-2", "x"],
        "--frequency-penalty": ["x", "1e9"],
        "--presence-penalty": ["x", "1e9"],
        "--seed": ["-2", "x", "99999999999999999999"],
        "--isa": ["sse", "", "AVX", "avx2,ref"],
    }.items():
        for v in values:
            bad(["run", "-m", model, "-p", "x", option, v], option + " ", f"'{v}'")
    for option in ["-m", "-p", "-f", "-n", "-c", "--temp", "--isa", "--seed"]:
        bad(["run", option], f"{option} needs a value")
    bad(["run", "-m", "-p", "x"], "-m needs a value (FILE), but '-p' follows")
    bad(["run"], "run needs -m FILE")
    bad(["run", "-m", model, "-m", model, "-p", "x"], "-m is given twice")
    bad(["run", "-m", model, "-n", "1", "--predict", "2"], "--predict is given twice")
    bad(["run", "-m", model, "stray"], "no use for the argument 'stray'")
    bad(["run", "-m", model, "--stats=yes"], "--stats takes no value")
    bad(["run", "-m", model, "-p", "x", "-f", "y"], "with -p and with -f")
    bad(["run", "-m", model, "-p", "x", "-e", "--no-escape"], "exclude each other")
    bad(["run", "-m", model, "-p", "x"], "TESSERA_ISA is 'mmx'", env={"TESSERA_ISA": "mmx"})
    for c in [["run", "-p", "x"], ["plan"], ["bench"], ["perplexity", "-f", os.devnull]]:
        c = [c[0], "-m", model, *c[1:]]
        if c[0] != "perplexity": # which reads its text first
            bad([*c, "--amx", "--no-amx"], "--amx and --no-amx exclude each other")
            bad([*c, "--amx", "--isa", "ref"], "--amx and --isa ref exclude each other")
            bad([*c, "--no-amx", "--isa", "amx"], "--no-amx and --isa amx exclude each other")
        check("--amx" in good(c[0], "--help").out and "--no-amx" in good(c[0], "--help").out, c)
    for c in ["plan", "perplexity"]:
        bad([c], f"{c} needs -m FILE")
        bad([c, "-m", model, "-c", "0"], "-c must be from")
    bad(["perplexity", "-m", model], "perplexity needs -f FILE")
    bad(["bench"], "bench needs -m FILE")
    bad(["bench", "-m", model, "-p", "0", "-n", "0"], "nothing to measure")
    bad(["bench", "-m", model, "-pg", "1,2,3"], "pairs")
    bad(["bench", "-m", model, "-p", "1,,2"], "empty element")
    bad(["bench", "-m", model, "-p", "1,-2"], "'-2'")
    bad(["bench", "-m", model, "-r", "0"], "-r must be from 1")
    bad(["bench", "-m", model, "-t", "1,0"], "-t must be from 1")
    bad(["bench", "-m", model, "-o", "xml"], "md|json|csv")


def wrong_models(folder):
    missing = os.path.join(folder.path, "missing.gguf")
    empty = folder.file("empty.gguf", "")
    prose = folder.file("prose.gguf", "This is not a model. " * 50)
    locked = folder.file("locked.gguf", "GGUF")
    os.chmod(locked, 0)
    paths = [missing, empty, prose, folder.path, "/dev/null"]
    if os.geteuid() != 0:
        paths.append(locked)
    for path in paths:
        for c in [["run", "-p", "x"], ["plan"], ["bench", "-p", "1", "-n", "0"],
                  ["perplexity", "-f", prose]]:
            bad([c[0], "-m", path, *c[1:]], path)
    bad(["run", "-m", ""])


def text_of(folder, model, *args, **kw):
    return good("run", "-m", model, "-n", 8, "--temp", 0, "--ignore-eos", *args, **kw).bytes


def happy(folder, model):
    r = good("run", "-m", model, "-p", "Hello there", "-n", "8", "--temp", "0", "--ignore-eos")
    check(r.out.startswith("Hello there") and r.out.endswith("\n"), r)
    check(all(re.search(rf"^{w} +[0-9.]+ s", r.err, re.M) for w in ["load", "prefill", "decode"]), r)
    check(re.search(r"prefill .* tok/s\ndecode .* 7 tokens .* tok/s\n", r.err), r)
    check("loading" not in r.err and "\r" not in r.err, "a bar without a terminal", r)
    text = r.bytes
    same = lambda *args, **kw: check(text_of(folder, model, *args, **kw) == text, args, "differs")
    same("-p", "Hello there", "-t", "1")
    same("-p", "Hello there", "-t", "3")
    same("--prompt=Hello there", "--ctx_size=64")
    same("-p", "Hello there", "-b", "1")
    same("-p", "Hello\\x20there")
    hello = folder.file("hello.txt", "Hello there\n")
    same("-f", hello)
    same("-f", "-", stdin=b"Hello there")
    check(text_of(folder, model, "-p", "Hello there", "--no-display-prompt") == text[11:])
    # escapes: in -p unless --no-escape, in -f only with -e
    tab = folder.file("tab.txt", "a\\tb")
    check(text_of(folder, model, "-p", "a\\tb").startswith(b"a\tb"))
    check(text_of(folder, model, "-p", "a\\tb", "--no-escape").startswith(b"a\\tb"))
    check(text_of(folder, model, "-f", tab).startswith(b"a\\tb"))
    check(text_of(folder, model, "-e", "-f", tab).startswith(b"a\tb"))
    check(text_of(folder, model, "-p", "\\q\\\\\\x4\\x41\\").startswith(b"\\q\\\\x4A\\"))
    # seeds
    warm = ["run", "-m", model, "-p", "Hello", "-n", "12", "--temp", "1.5", "--ignore-eos"]
    one, two = good(*warm, "--seed", "7").bytes, good(*warm, "--seed", "7", "-t", "1").bytes
    check(one == two, "the same seed, another text")
    check(len({good(*warm, "--seed", s).bytes for s in range(5)}) > 1, "seeds don't matter")
    check("seed 7" in good(*warm, "-s", "7").err)
    # what ends the text is never chosen, if asked for
    ends = [t["piece"] for t in json.loads(
        good("tokenize", "-m", model, "--json", "-p",
             "<|end_of_text|><|eot_id|><|eom_id|>").out)["tokens"] if t["eog"]]
    wild = ["run", "-m", model, "-p", "Hello", "-n", 400, "--temp", 50, "--seed", 1, "--top-k", 0,
            "--top-p", 1, "--min-p", 0, "-sp"]
    r = good(*wild, "--ignore-eos")
    check(ends and not any(e in r.out for e in ends), ends, r)
    r = good(*wild)
    check(int(re.search(r"decode .* (\d+) tokens", r.err).group(1)) < 399, "no text ends:", r)
    # nothing to make: the prompt and its newline
    check(good("run", "-m", model, "-p", "Hi", "-n", "0").out == "Hi\n")
    r = good("run", "-m", model, "-p", "Hi", "-n", "4", "--ignore-eos", "--stats")
    check(re.search(r"^work .*seconds", r.err, re.M), r)
    check(re.search(r"^matrix FLOPs on tiles: [\d.]+ %$", r.err, re.M), r)
    counts = folder.name("stats.json")
    r = good("run", "-m", model, "-p", "Hi", "-n", "4", "--ignore-eos", "--stats-json", counts)
    check("matrix FLOPs" not in r.err, r)
    with open(counts) as f:
        j = json.load(f)
    sets = [w for w in j["work"] if w["matrix"]]
    check(sets and j["matrix_flops"] == sum(w["flops"] for w in sets) > 0 and
          j["tile_flops"] == sum(w["tile_flops"] for w in sets) and 0 <= j["tile_share"] <= 1, j)
    check(any(w["name"] == "attend" and w["calls"] > 0 for w in j["work"]), j)
    nowhere = os.path.join(folder.path, "no", "stats.json")
    r = run("run", "-m", model, "-p", "Hi", "-n", "1", "--stats-json", nowhere)
    check(r.rc == 1 and f"{nowhere}: cannot be created: No such file" in r.err, r)
    # each tensor as it is packed
    r = good("run", "-m", model, "-p", "Hi", "-n", "1", "-v")
    weights = json.loads(good("plan", "-m", model, "--json").out)["weights"]
    for w in weights:
        check(re.search(rf"^debug: {re.escape(w['name'])}: .*{re.escape(w['layout'])}, "
                        rf"{w['bytes']} bytes$", r.err, re.M), w, r)
    good("run", "-m", model, "-p", "Hi", "-n", "2", "--isa", "ref")


def kernel_sets(model):
    """Which set serves and why no wider one does; the wider one forced says the same."""
    hello = ["run", "-m", model, "-p", "Hi", "-n", "2", "-v"]
    line = re.search(r"^info: kernel sets up to (\w+) serve(; (\w+) can't run here: .+)?$",
                     good(*hello).err, re.M)
    check(line and (line.group(1) == "amx") == (not line.group(2)), line)
    widest, next_one = line.group(1), line.group(3)
    if next_one:
        why = line.group(2).split(": ", 1)[1]
        bad(["run", "-m", model, "-p", "Hi", "--isa", next_one], f"set {next_one} can't run here", why)
        bad(["run", "-m", model, "-p", "Hi"], "(from TESSERA_ISA) can't run here", why,
            env={"TESSERA_ISA": next_one})
        bad(["run", "-m", model, "-p", "Hi", "--amx"], "set amx can't run here")
    else:
        check("up to amx serve, as asked for" in good(*hello, "--amx").err)
    check("up to amx" not in good(*hello, "--no-amx").err)
    check("up to amx" not in good(*hello, "--no-amx", env={"TESSERA_ISA": "amx"}).err)
    check("up to ref serve, as asked for (from TESSERA_ISA)" in
          good(*hello, env={"TESSERA_ISA": "ref"}).err)
    p = json.loads(good("plan", "-m", model, "--json", "--isa", widest).out)
    check(p["isa"] == widest, p["isa"])


def contexts(folder, model):
    r = good("run", "-m", model, "-p", "Hello", "-c", "16", "-n", "100", "--ignore-eos")
    check("context of 16 tokens is full" in r.err, r)
    check("context" not in good("run", "-m", model, "-p", "Hello", "-c", "16", "-n", "2").err)
    r = bad(["run", "-m", model, "-p", "Hello there my old friend " * 9, "-c", "8"],
            "the context holds 8")
    check(re.search(r"the prompt has \d+ tokens", r.err), r)
    bad(["run", "-m", model, "-p", "x", "-c", "2147483647"], "memory")
    bad(["plan", "-m", model, "-c", "2147483647"], "memory")
    # an empty prompt: BOS, or a sentence from a model that adds none
    qwen = folder.model("qwen2.gguf", arch="qwen2")
    gemma = folder.model("gemma3.gguf", arch="gemma3")
    for path in [qwen, gemma]:
        r = run("run", "-m", path, "-p", "", "-n", "2")
        check(r.rc == 0 or "the prompt is empty" in r.err, r)
    check(run("run", "-m", gemma, "-n", "2").rc == 0, "gemma3 adds BOS")
    bad(["run", "-m", qwen, "-n", "2"], "the prompt is empty")
    bad(["run", "-m", qwen, "-f", folder.file("nl.txt", "\n"), "-n", "2"], "the prompt is empty")
    bad(["run", "-m", model, "-f", os.path.join(folder.path, "nofile")], "nofile", "No such file")
    bad(["run", "-m", model, "-f", folder.path], folder.path, "directory")


# --- streams -----------------------------------------------------------------


def start(*args, **kw):
    return subprocess.Popen([TESSERA, *map(str, args)], stdin=subprocess.DEVNULL, env=ENV,
                            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw})


def cut(data, at):
    """True if a whole UTF-8 character of data lies on both sides of `at`."""
    for n in range(2, 5):
        for first in range(max(0, at - n + 1), at):
            try:
                if first + n > at and len(data) >= first + n and \
                        len(data[first:first + n].decode("utf-8")) == 1:
                    return True
            except UnicodeDecodeError:
                pass
    return False


def whole_characters(model):
    check(cut("☺".encode(), 1) and cut("☺".encode(), 2) and not cut("☺a".encode(), 3))
    # a socket that keeps what each write sent apart: of a pipe, a slow reader gets many at once
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        p = start("run", "-m", model, "-p", "Hello ☺", "-n", 400, "--temp", 2, "--seed", 3,
                  "--top-k", 0, "--top-p", 1, "--min-p", 0, "--ignore-eos", "-c", 512, stdout=theirs)
        theirs.close()
        data, ends = b"", []
        while got := ours.recv(65536):
            data += got
            ends.append(len(data))
    for at in ends:
        check(not cut(data, at), "a character was cut:", data[at - 4:at], data[at:at + 4])
    check(p.wait() == 0 and len(ends) > 100, "streamed in", len(ends), "parts")
    p.stderr.close()


def outputs(model):
    for args in [["--help"], ["run", "--help"], ["run", "-m", model, "-p", "x", "-n", "2"],
                 ["plan", "-m", model], ["bench", "-m", model, "-p", "1", "-n", "1", "-r", "1"]]:
        with open("/dev/full", "wb") as full:
            p = start(*args, stdout=full)
            err = p.communicate()[1].decode()
            check(p.returncode == 1 and err.count("tessera: ") == 1 and "standard output" in err,
                  args, "> /dev/full:", p.returncode, err)
    for args in [["run", "-m", model, "-p", "x" * 20, "-n", "5000", "--ignore-eos", "-c", "6000"],
                 ["plan", "-m", model], ["run", "--help"]]:
        p = start(*args)
        os.read(p.stdout.fileno(), 1)
        p.stdout.close()
        err = p.stderr.read().decode()
        p.stderr.close()
        # a short output may have been written before the pipe was closed
        status = p.wait()
        check(status == 141 or (status == 0 and args[0] != "run") or "--help" in args,
              args, "| head:", status, err)
        check("tessera:" not in err, args, "| head says:", err)
    p = subprocess.run(["sh", "-c", '"$0" run -m "$1" -p x -n 5000 -c 6000 --ignore-eos | head -c1',
                        TESSERA, model], capture_output=True, env=ENV)
    check(p.returncode == 0 and p.stdout == b"x" and b"tessera:" not in p.stderr, p)


def blocked(model, prompt, n):
    """A run whose pipe is full: it waits for somebody to read."""
    p = start("run", "-m", model, "-f", prompt, "-c", 20000, "-n", n, "--ignore-eos")
    size = fcntl.fcntl(p.stdout, 1031, 4096) # F_SETPIPE_SZ
    deadline = time.time() + 60
    while time.time() < deadline and p.poll() is None:
        waiting = fcntl.ioctl(p.stdout, termios.FIONREAD, struct.pack("i", 0))
        if struct.unpack("i", waiting)[0] >= size:
            break
        time.sleep(0.02)
    return p


def interrupts(folder, model):
    p = start("run", "-m", model, "-p", "Hello", "-n", "100000", "--ignore-eos", "-c", "30000")
    first = os.read(p.stdout.fileno(), 1)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    out, err = first + out, err.decode()
    check(p.returncode == 130, "one SIGINT:", p.returncode, err)
    check(out.endswith(b"\n") and out.startswith(b"Hello") and "decode" in err, out[-60:], err)
    # Nobody reads: the text waits, whole, until somebody does ...
    full = folder.file("full.txt", "word " * 819 + "x") # as much as the pipe holds
    p = blocked(model, full, 5)
    time.sleep(1)
    p.send_signal(signal.SIGINT)
    time.sleep(0.2)
    out, err = p.communicate(timeout=60)
    check(p.returncode == 130 and out.startswith(b"word " * 819 + b"x") and out.endswith(b"\n") and
          b"tessera:" not in err, p.returncode, len(out), err)
    # ... or a second Ctrl-C
    p = blocked(model, folder.file("long.txt", "word " * 2000), 1)
    p.send_signal(signal.SIGINT)
    time.sleep(0.2)
    check(p.poll() is None, "the first SIGINT cut the text:", p.returncode)
    p.send_signal(signal.SIGINT)
    check(p.wait(timeout=60) == -signal.SIGINT, "two SIGINTs:", p.returncode)
    p.stdout.close()
    p.stderr.close()


def on_terminal(*args):
    """Runs with stderr on a pseudo-terminal: status, stdout, what the terminal got."""
    master, slave = pty.openpty()
    p = start(*args, stderr=slave)
    os.close(slave)
    seen, out = b"", b""
    open_fds = {master, p.stdout.fileno()}
    while open_fds:
        for fd in select.select(list(open_fds), [], [], 60)[0]:
            try:
                got = os.read(fd, 65536)
            except OSError: # the terminal's other side is closed
                got = b""
            if not got:
                open_fds.discard(fd)
            elif fd == master:
                seen += got
            else:
                out += got
    os.close(master)
    p.stdout.close()
    return p.wait(), out, seen


def terminals(model):
    rc, out, seen = on_terminal("run", "-m", model, "-p", "Hello", "-n", "3", "--ignore-eos")
    check(rc == 0 and b"\rloading [" in seen, "no bar on a terminal:", rc, seen[:200])
    check(b"\r\x1b[K" in seen and b"loading" not in out, "the bar stays:", seen[:200])
    check(seen.rfind(b"loading") < seen.rfind(b"\r\x1b[K"), "the bar stays:", seen[-200:])
    rc, out, seen = on_terminal("run", "-m", "/nonexistent", "-p", "Hello")
    check(rc == 1 and b"loading" not in seen, rc, seen)


def real_model():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "tessera", "models")
    names = [n for n in os.listdir(folder) if "smollm2" in n.lower() and n.endswith(".gguf")] \
        if os.path.isdir(folder) else []
    for n in names:
        r = good("run", "-m", os.path.join(folder, n), "-p", "The capital of France is", "-n", 6,
                 "--temp", 0)
        check("Paris" in r.out, r)


with Folder() as f:
    tiny = f.model("tiny.gguf")
    usage()
    wrong_values(tiny)
    wrong_models(f)
    happy(f, tiny)
    kernel_sets(tiny)
    contexts(f, tiny)
    whole_characters(tiny)
    outputs(tiny)
    interrupts(f, tiny)
    terminals(tiny)
    real_model()
done("cli")
