#!/usr/bin/env python3
"""Writes src/jinja/case_table.c: lower, upper and title case of every character that has one.

    python3 scripts/make_case.py > src/jinja/case_table.c

Case is what Python's str.lower(), upper() and title() give for a single character. Runs of characters that are
mapped alike, each or every other one, share an entry; what becomes several characters has one of its own. Run it with
a Python whose unicodedata is Unicode 14 (Python 3.11), the one whose jinja2 the tests compare with.
"""
import sys
import unicodedata

VERSION = "14.0.0"
KINDS = (("lower", str.lower), ("upper", str.upper), ("title", str.title))


def runs(func):
    """(first, last, step, delta) of single characters, (cp, text) of the rest."""
    out, many = [], []
    for cp in range(0x110000):
        if 0xD800 <= cp < 0xE000:
            continue
        to = func(chr(cp))
        if to == chr(cp):
            continue
        if len(to) > 1:
            many.append((cp, [ord(c) for c in to]))
            continue
        delta = ord(to) - cp
        if out:
            first, last, step, d = out[-1]
            if d == delta and cp - last in (1, 2) and (step == 0 or cp - last == step):
                out[-1] = (first, cp, cp - last, d)
                continue
        out.append((cp, cp, 0, delta))
    return out, many


def main():
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, not {VERSION}")
    print(f"""/* case_table.c - lower, upper and title case of Unicode {VERSION}, made by scripts/make_case.py. */
#include "jinja/case_table.h"

/* clang-format off */""")
    for name, func in KINDS:
        one, many = runs(func)
        print(f"const size_t j_{name}_n = {len(one)};")
        print(f"const j_case_run j_{name}_runs[] = {{")
        for first, last, step, delta in one:
            print(f"    {{0x{first:05x}, 0x{last:05x}, {step or 1}, {delta}}},")
        print("};")
        print(f"const size_t j_{name}_many_n = {len(many)};")
        print(f"const j_case_many j_{name}_many[] = {{")
        for cp, to in many:
            print(f"    {{0x{cp:05x}, {{{', '.join(f'0x{c:04x}' for c in to)}}}}},")
        print("};")


main()
