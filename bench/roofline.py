#!/usr/bin/env python3
"""roofline.py - kernels as a share of the tile peak against the number of tokens, as SVG.

    roofline.py FILE [--types Q4_0,Q4_K] [--shape NxK] > roofline.svg

FILE is xeon.json of bench/xeon.sh, or what bench_kernels -o json printed. The peak is that of BF16 tile products (without
tiles: the peak bench_kernels names) and the roof is drawn for each type: m tokens need 2 m k n operations and n k weights
of so many bytes, so up to peak / read bandwidth of them the memory allows no more. All figures are of the file. A
type is drawn in the shape it was measured in at the most values of m, unless --shape names one.
"""
import argparse
import json
import math
import sys

from xeon_table import kernel_rows

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 60, 60
COLOURS = ["#1f5fa8", "#c2410c", "#2f7d32", "#7b2d8b", "#a16207", "#0f766e", "#9f1239", "#475569"]


def kernels_of(data):
    if isinstance(data, list):
        return data
    return kernel_rows(data["runs"])


def series_of(kernels, types, shape):
    """Type -> its measurements by m."""
    out = {}
    for name in dict.fromkeys(k["type"] for k in kernels):
        if types and name not in types:
            continue
        shapes = {}
        for k in kernels:
            if k["type"] == name and shape in (None, f"{k['n']}x{k['k']}"):
                shapes.setdefault((k["n"], k["k"]), {})[k["m"]] = k
        if shapes:
            best = max(shapes.values(), key=len)
            if types or len(best) > 2:
                out[name] = [best[m] for m in sorted(best)]
    return out


def peak_of(k):
    return k.get("tile_bf16_gflops") or k["peak_gflops"]


def share(k):
    return k["gflops"] / peak_of(k)


def roof(k, m):
    """Share of the peak that reading the weights allows m tokens."""
    bytes_of_matrix = k["gbs"] * k["us"] * 1e3
    return min(1, 2 * m * k["n"] * k["k"] / bytes_of_matrix * k["read_gbs"] / peak_of(k))


class Chart:
    """m to the right, in powers of two; share upward, in powers of ten below 1."""

    def __init__(self, max_m, min_share):
        self.max_m, self.low = max(max_m, 2), min(math.floor(math.log10(min_share)), -1)
        self.parts = []

    def x(self, m):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(m) / math.log2(self.max_m)

    def y(self, s):
        return TOP + (HEIGHT - TOP - BOTTOM) * math.log10(s) / self.low

    def line(self, points, colour, **style):
        extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in style.items())
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}"{extra}/>')

    def text(self, x, y, words, anchor="middle", size=13, colour="#222", extra=""):
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
                          f'fill="{colour}"{extra}>{words}</text>')

    def axes(self):
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for power in range(self.low, 1):
            for digit in (1, 2, 5):
                s = digit * 10.0 ** power
                if s <= 1:
                    self.line([(LEFT, self.y(s)), (right, self.y(s))], "#ddd")
                    self.text(LEFT - 8, self.y(s) + 4, f"{100 * s:g} %", "end")
        m = 1
        while m <= self.max_m:
            self.line([(self.x(m), TOP), (self.x(m), bottom)], "#eee")
            self.text(self.x(m), bottom + 20, str(m))
            m *= 2
        self.line([(LEFT, TOP), (LEFT, bottom), (right, bottom)], "#222")
        self.text((LEFT + right) / 2, HEIGHT - 16, "tokens m")

    def svg(self):
        return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
                          f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
                          f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *self.parts, "</svg>"])


def draw(series, title):
    everything = [k for line in series.values() for k in line]
    max_m = max(k["m"] for k in everything)
    c = Chart(max_m, min(min(share(k), roof(k, 1)) for k in everything))
    c.axes()
    c.text(LEFT, 24, title, "start", 15)
    tiles = all(k.get("tile_bf16_gflops") for k in everything)
    peaks = [peak_of(k) / 1e3 for k in everything]
    reads = [k["read_gbs"] for k in everything]
    c.text(LEFT, 44, f"share of the {'BF16 tile' if tiles else 'arithmetic'} peak, {span(peaks)} TFLOPS; "
           f"dashed: what reading the weights at {span(reads)} GB/s allows", "start", 12, "#555")
    labels = []
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        steps = [2 ** (j / 4) for j in range(int(4 * math.log2(c.max_m)) + 1)]
        c.line([(c.x(m), c.y(roof(line[0], m))) for m in steps], colour, stroke_dasharray="5 4", opacity=0.6)
        c.line([(c.x(k["m"]), c.y(share(k))) for k in line], colour, stroke_width=2)
        for k in line:
            c.parts.append(f'<circle cx="{c.x(k["m"]):.1f}" cy="{c.y(share(k)):.1f}" r="3" fill="{colour}">'
                           f'<title>{name} m={k["m"]}: {100 * share(k):.1f} %</title></circle>')
        labels.append([c.y(share(line[-1])), f"{name}  {100 * share(line[-1]):.0f} %", colour])
    below = 0
    for y, words, colour in sorted(labels): # none covers another
        below = max(y + 4, below + 15)
        c.text(WIDTH - RIGHT + 12, below, words, "start", 13, colour)
    return c.svg()


def span(values):
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low}–{high}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file")
    p.add_argument("--types", help="comma-separated; default: those with three values of m or more")
    p.add_argument("--shape")
    o = p.parse_args()
    with open(o.file, encoding="utf-8") as f:
        data = json.load(f)
    series = series_of(kernels_of(data), o.types.split(",") if o.types else None, o.shape)
    if not series:
        sys.exit(f"roofline.py: {o.file} has no such kernels with three values of m or more")
    title = "Kernels"
    if isinstance(data, dict):
        cpu = next((r["output"]["cpu"]["brand"] for r in data["runs"] if r["part"] == "info" and r["output"]), "")
        title = f"{cpu}, {data['meta']['threads']} threads, {data['meta']['date']}"
    print(draw(series, title))


if __name__ == "__main__":
    main()
