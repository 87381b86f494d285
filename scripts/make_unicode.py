#!/usr/bin/env python3
"""Writes src/model/tok_unicode.c: the general category of every code point, as ranges.

Run it with a Python whose unicodedata is Unicode 15.1 (Python 3.13), the version whose categories
the tokenizers are compared against:  python3.13 scripts/make_unicode.py > src/model/tok_unicode.c
"""
import sys
import unicodedata

VERSION = "15.1.0"
CLASSES = {"N": "N", "L": "L", "M": "M", "P": "P", "S": "S"}
# Code points with the property White_Space (PropList.txt).
WHITE = set(range(0x09, 0x0E)) | set(range(0x2000, 0x200B)) | {
    0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
CODES = {"O": 0, "N": 1, "L": 2, "M": 3, "P": 4, "S": 5, "W": 6}


def code(cp):
    if cp in WHITE:
        return CODES["W"]
    return CODES[CLASSES.get(unicodedata.category(chr(cp))[0], "O")]


def main():
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, not {VERSION}")
    ranges = []
    for cp in range(0x110000):
        if not ranges or code(cp) != ranges[-1] & 7:
            ranges.append(cp << 3 | code(cp))
    print(f"""/* tok_unicode.c - general categories of Unicode {VERSION}, made by scripts/make_unicode.py.
 *
 * Each entry is first << 3 | class: the range from `first` to the next entry's. */
#include "model/tok_internal.h"

const size_t tok_unicode_n = {len(ranges)};
/* clang-format off */
const uint32_t tok_unicode[] = {{""")
    for i in range(0, len(ranges), 10):
        print("    " + " ".join(f"0x{r:06x}," for r in ranges[i:i + 10]))
    print("};")


main()
