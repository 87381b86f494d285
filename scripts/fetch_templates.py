#!/usr/bin/env python3
"""fetch_templates.py - the chat templates of real models, kept in one folder for the tests.

    fetch_templates.py [--dir DIR]

They come from the source package llama_cpp_python 0.3.36, which carries llama.cpp and with it the templates of some
seventy models. pip checks the package against its SHA-256 before anything else is done with it, and so does this
script. Prints the folder. A folder that is there is whole: it is filled under another name and renamed.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "llama_cpp_python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
WITHIN = "/vendor/llama.cpp/models/templates/"


def say(text):
    print(text, file=sys.stderr, flush=True)


def download(folder):
    """The path of the source package. To learn its name pip runs its build script, once the checksum is right."""
    wanted = os.path.join(folder, "requirements.txt")
    with open(wanted, "w", encoding="ascii") as f:
        f.write(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    run = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
         "--no-binary", "llama_cpp_python", "--dest", folder, "--requirement", wanted],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    found = [n for n in os.listdir(folder) if n.endswith(".tar.gz")]
    if run.returncode or len(found) != 1:
        why = [line for line in run.stderr.splitlines() if line.strip()]
        raise OSError(f"pip can't download {PACKAGE}: {why[-1] if why else 'nothing came'}")
    return os.path.join(folder, found[0])


def checksum(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def unpack(package, folder):
    """The templates alone, each under its own name."""
    n = 0
    with tarfile.open(package) as tar:
        for member in tar:
            name = os.path.basename(member.name)
            if member.isfile() and WITHIN in member.name and name.endswith(".jinja"):
                with open(os.path.join(folder, name), "wb") as out:
                    shutil.copyfileobj(tar.extractfile(member), out)
                n += 1
    if n == 0:
        raise OSError(f"{os.path.basename(package)} holds no templates")
    return n


def fetch(folder):
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    os.makedirs(above, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=above) as work:
        say(f"fetching chat templates: {PACKAGE} (73 MiB)")
        package = download(work)
        if checksum(package) != SHA256:
            raise OSError(f"{PACKAGE}: its checksum is {checksum(package)}, not {SHA256}")
        whole = os.path.join(work, "templates")
        os.mkdir(whole)
        say(f"{unpack(package, whole)} templates")
        os.rename(whole, folder)


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    ap = argparse.ArgumentParser(description="Fetch the chat templates that the tests use.")
    ap.add_argument("--dir", default=os.path.join(cache, "tessera", "templates"))
    args = ap.parse_args()
    try:
        fetch(os.path.abspath(args.dir))
    except (OSError, tarfile.TarError) as e:
        say(f"fetch_templates.py: {e}")
        return 1
    print(args.dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
