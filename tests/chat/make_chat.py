#!/usr/bin/env python3
"""What jinja2 makes of the tests' templates: snippets.golden.json and templates.golden.

    python3 -m venv .venv && .venv/bin/pip install jinja2==3.1.6
    .venv/bin/python tests/chat/make_chat.py [FOLDER OF TEMPLATES]

snippets.golden.json has the text of each of snippets.txt, in order, null where jinja2 raises. templates.golden has
for each template of the folder (scripts/fetch_templates.py; the default is where that puts them) its name and
FNV-1a, then for each of conversations.json, in order, the text's length in bytes and FNV-1a, or "raises".
"""
import glob
import json
import os
import sys
import warnings

import oracle

HERE = os.path.dirname(os.path.abspath(__file__))


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def load(name):
    with open(os.path.join(HERE, name), encoding="utf-8", newline="") as f:
        return f.read()


def snippets():
    variables = {**json.loads(load("variables.json")), **oracle.TOKENS}
    texts = [oracle.render(t, variables) for t in load("snippets.txt").split("\n%%%\n")]
    with open(os.path.join(HERE, "snippets.golden.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(t, ensure_ascii=True) for t in texts) + "\n]\n")
    return len(texts)


def templates(folder):
    conversations = json.loads(load("conversations.json"))
    names = sorted(glob.glob(os.path.join(folder, "*.jinja")))
    with open(os.path.join(HERE, "templates.golden"), "w", encoding="utf-8") as f:
        for path in names:
            with open(path, "rb") as t:
                data = t.read()
            f.write(f"template {os.path.basename(path)} {fnv(data)}\n")
            for c in conversations:
                variables = {k: v for k, v in c.items() if k != "name"}
                text = oracle.render(data.decode(), {**variables, **oracle.TOKENS})
                f.write("raises\n" if text is None else f"{len(text.encode())} {fnv(text.encode())}\n")
    return len(names)


def main():
    warnings.simplefilter("ignore")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(cache, "tessera", "templates")
    print(snippets(), "snippets,", templates(folder), "templates")


main()
