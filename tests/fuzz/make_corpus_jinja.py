#!/usr/bin/env python3
"""Writes the seeds of fuzz_jinja and its dictionary, from the tests' own templates and conversations.

    python3 tests/fuzz/make_corpus_jinja.py

Every third snippet of tests/chat/snippets.txt, with the variables it uses; and a few templates of a chat's shape with
the conversations.
"""
import json
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
CHAT = os.path.join(HERE, "..", "chat")
TEMPLATES = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
    "{{ c.function.arguments|tojson }}{% endfor %}<|end|>\n{% endfor %}",
    "{%- set ns = namespace(i=0) -%}{%- for m in messages[::-1] -%}{%- set ns.i = ns.i + m.content|string|length -%}"
    "{{ ns.i }}:{{ m.content|string|trim|upper }};{%- endfor -%}{{ tools|tojson(indent=2) }}",
    "{% macro part(p) %}{{ p.text if p is mapping else p }}{% endmacro %}{% for m in messages %}"
    "{% if m.content is string %}{{ m.content.split('</think>')[-1].strip('\\n') }}{% else %}"
    "{% for p in m.content %}{{ part(p) }}{% endfor %}{% endif %}{% endfor %}",
)
WORDS = """{{ }} {% %} {# #} {{- -}} {%- -%} for endfor if elif else endif set endset macro endmacro call endcall filter
endfilter raw endraw with endwith generation endgeneration break continue recursive in not and or is namespace( range(
loop.index loop.last loop.previtem loop.changed( loop( caller() varargs kwargs |tojson |map( |select( |selectattr(
|join( |default( |sort |dictsort |indent( |batch( |unique |replace( |format( |int |round( .format( .split( .replace(
.strip( .items() .get( .center( .join( [::-1] [1:] ** // ~ == 'a' "b" 1.5 0x1f none true""".split()


def load(name):
    with open(os.path.join(CHAT, name), encoding="utf-8") as f:
        return f.read()


def main():
    out = os.path.join(HERE, "corpus_jinja")
    os.makedirs(out, exist_ok=True)
    variables = json.loads(load("variables.json"))
    snippets = load("snippets.txt").split("\n%%%\n")
    seeds = {}
    for i, snippet in enumerate(snippets[::3]):
        used = {k: v for k, v in variables.items() if re.search(rf"\b{k}\b", snippet)}
        seeds[f"snippet_{i}"] = snippet + "\0" + json.dumps(used, ensure_ascii=False)
    for i, c in enumerate(json.loads(load("conversations.json"))):
        text = json.dumps({k: v for k, v in c.items() if k != "name"}, ensure_ascii=False)
        seeds[f"chat_{i}"] = TEMPLATES[i % len(TEMPLATES)] + "\0" + text
    for name, text in seeds.items():
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            f.write(text)
    with open(os.path.join(HERE, "jinja.dict"), "w", encoding="utf-8") as f:
        for w in WORDS:
            f.write('"' + w.replace("\\", "\\\\").replace('"', '\\"') + '"\n')
    print(len(seeds), "seeds")


main()
