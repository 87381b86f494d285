#!/usr/bin/env python3
"""Writes the seeds of fuzz_reply and its dictionary, from the tests' own answers and the table of forms.

    python3 tests/fuzz/make_corpus_reply.py
"""
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = (
    '[{"function": {"name": "look", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, '
    '"days": {"type": "integer"}, "e": {"enum": ["a", 1]}, "k": {"const": null}}, "required": ["city"]}}}, '
    '{"function": {"name": "add"}}]',
    '[{"type": "function", "function": {"name": "a", "parameters": {"$defs": {"n": {"anyOf": [{"type": "string"}, '
    '{"type": "null"}]}}, "type": "object", "properties": {"x": {"$ref": "#/$defs/n"}, "y": {"type": ["array", '
    '"boolean"]}}, "additionalProperties": false}}}]',
)


def read(*path):
    with open(os.path.join(HERE, "..", *path), encoding="utf-8") as f:
        return f.read()


def quoted(s):
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else "".join(f"\\x{b:02X}" for b in c.encode())
                         for c in s) + '"\n'


def main():
    source = read("..", "src", "chat", "reply_form.c")
    source = source[:source.index("static const ts_reply_think")]
    forms = re.findall(r'\.name = "([^"]+)"', source)
    words = {w.replace("\\n", "\n").replace('\\"', '"') for w in re.findall(r'"((?:[^"\\]|\\.)+)"', source)} - set(forms)
    out = os.path.join(HERE, "corpus_reply")
    os.makedirs(out, exist_ok=True)
    blocks = read("chat", "replies.txt").split("\n%%%\n")[1:]
    form, how, n = 0, 0, 0
    for i, block in enumerate(blocks):
        if block.startswith("form: "):
            form = forms.index(re.match("form: (.*)", block)[1])
            flags = re.search("(?m)^set: (.*)$", block)
            flags = flags[1] if flags else ""
            how = ("reasoning" in flags) + 2 * ("no_tools" not in flags) + 4 * ("think>\u00b6" in block)
            continue
        if i % 3:
            continue
        text = block.split("\n=>")[0].replace("\u00b7", " ").replace("\u00b6", "\n")
        with open(os.path.join(out, f"answer_{i}"), "wb") as f:
            f.write(bytes([form, how]) + text.encode())
        n += 1
    for i in range(0, len(forms), 3):
        with open(os.path.join(out, f"tools_{i}"), "wb") as f:
            f.write(bytes([i, 8 + i % 4]) + TOOLS[i % 2].encode())
        n += 1
    with open(os.path.join(HERE, "reply.dict"), "w", encoding="utf-8") as f:
        for w in sorted(words | {"look", "add", "<think>", "</think>", '{"name": "look", "arguments": {}}'}):
            f.write(quoted(w))
    print(n, "seeds")


main()
