"""Tables of ratios in Markdown, and the line that says where they were made."""

import math
import os
import platform


class Table:
    """Rows of text below a title; columns right of the first are right-aligned."""

    def __init__(self, title, columns, note=""):
        self.title, self.columns, self.note = title, columns, note
        self.rows = []

    def add(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def __str__(self):
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]

        def row(cells):
            first, *rest = zip(cells, widths)
            texts = [first[0].ljust(first[1])] + [text.rjust(width) for text, width in rest]
            return "| " + " | ".join(texts) + " |"

        rule = "|" + "|".join(
            "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
        ) + "|"
        body = "\n".join([row(self.columns), rule, *map(row, self.rows)])
        return f"**{self.title}**\n\n{body}" + (f"\n\n{self.note}" if self.note else "")


def ratio(value, base):
    """Two digits behind the point; a dash where there is nothing to divide."""
    return f"{value / base:.2f}" if value is not None and base else "-"


def geomean(ratios):
    """The geometric mean; None of nothing."""
    ratios = [r for r in ratios if r]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def bytes_text(count):
    """1.5M and the like."""
    for unit in ("", "K", "M"):
        if count < 1000:
            return f"{count:.0f}{unit}" if count >= 10 or not unit else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}G"


def machine():
    """Processor, cores, kernel, libc: what the figures depend on."""

    def first(path, key):
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith(key):
                    return line.split("=" if "=" in line else ":", 1)[1].strip().strip('"')
        return "?"

    with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="utf-8") as file:
        thp = file.read().split("[")[1].split("]")[0]
    libc = " ".join(platform.libc_ver())
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} x {first('/proc/cpuinfo', 'model name')}, "
        f"{first('/etc/os-release', 'PRETTY_NAME')}, Linux {platform.release()}, {libc}, "
        f"THP {thp}, load {load:.1f}"
    )
