"""Malloc libraries side by side, ours among them, on small loops and real programs."""

from . import work
from .measure import Contender, also, once, ours, progress
from .places import LIBS, LOOPS, MALLOCS, PROGRAMS
from .table import Table, geomean, ratio

NEEDS = LOOPS + MALLOCS + PROGRAMS + ["ghostscript"]

# Loop, operations in a quick run, how much more in a long one.
MICRO = [
    *((f"pair-{size}", 3_000_000, 4) for size in (16, 64, 512, 4096, 32768)),
    ("batch", 3_000_000, 4),
    ("random-1k", 3_000_000, 4),
    ("random-100k", 2_000_000, 4),
    ("cold", 1_000_000, 1),
    ("cross", 2_000_000, 4),
    ("larson", 4_000_000, 4),
    ("realloc", 1_000_000, 4),
    ("large", 10_000, 4),
]
# Program, size in a quick run, size in a long one.
REAL = [
    (work.Z3, 24, 45),
    (work.LUA_TABLES, 4, 12),
    (work.JSON, 2, 6),
    (work.SQL, 6, 20),
    (work.REDIS, 4, 15),
    (work.PAGES, 60, 300),
    (work.CXX, 1, 3),
]


def contenders(places, chosen):
    return [
        Contender("glibc"),
        Contender("jemalloc", str(LIBS / "libjemalloc.so.2")),
        Contender("tcmalloc", str(LIBS / "libtcmalloc_minimal.so.4")),
        Contender("mimalloc", str(LIBS / "libmimalloc.so.2.0")),
        ours(places, "off"),
        ours(places, "count"),
        *also(chosen),
    ]


def wanted(chosen, name):
    return not chosen.only or any(part in name for part in chosen.only)


def loops(places, chosen, rivals):
    micro = places.helper("micro")
    rounds = chosen.rounds or (3 if chosen.quick else 7)
    rows = [row for row in MICRO if wanted(chosen, row[0])]
    least, peaks = {}, {}
    for turn in range(rounds):
        for name, count, more in rows:
            for rival in rivals:
                progress(f"loops: round {turn + 1} of {rounds}, {name}, {rival.name}")
                amount = str(count * (1 if chosen.quick else more))
                cost, printed = once(places, rival, [micro, name, amount])
                spent = float(printed.split()[0])
                key = name, rival.name
                least[key] = min(spent, least.get(key, spent))
                peaks[key] = min(cost.peak, peaks.get(key, cost.peak))
    base, *others = [rival.name for rival in rivals]
    table = Table(
        f"Loops: CPU time ratio to glibc / peak RSS ratio, least of {rounds} rounds",
        ["", "glibc, ns", *others],
    )
    for name, _, _ in rows:
        cells = [
            f"{ratio(least[name, other], least[name, base])}/{ratio(peaks[name, other], peaks[name, base])}"
            for other in others
        ]
        table.add(name, f"{least[name, base]:.1f}", *cells)
    return table


def programs(places, chosen, rivals):
    rounds = chosen.rounds or (3 if chosen.quick else 7)
    rows = [row for row in REAL if wanted(chosen, row[0].name)]
    least = {}
    for turn in range(rounds):
        for program, quick, long in rows:
            for rival in rivals:
                progress(f"programs: round {turn + 1} of {rounds}, {program.name}, {rival.name}")
                cost = program.measure(places, rival, quick if chosen.quick else long)
                key = program.name, rival.name
                least[key] = cost.least(least.get(key))
    base, *others = [rival.name for rival in rivals]
    table = Table(
        f"Programs: CPU time ratio to glibc / peak RSS ratio, least of {rounds} rounds",
        ["", "glibc", *others],
        "Asked: ours off at most 0.85 and 1.00 in the geometric means; count within 2 % of off.",
    )

    def ratios(program, other):
        mine, plain = least[program.name, other], least[program.name, base]
        return mine.cpu / plain.cpu, mine.peak / plain.peak

    for program, _, _ in rows:
        plain = least[program.name, base]
        cells = ["{:.2f}/{:.2f}".format(*ratios(program, other)) for other in others]
        table.add(program.name, f"{plain.cpu:.2f} s {plain.peak / 1024:.0f}M", *cells)
    means = []
    for other in others:
        both = zip(*(ratios(program, other) for program, _, _ in rows))
        means.append("/".join(f"{geomean(side):.3f}" for side in both))
    table.add("geometric mean", "", *means)
    return table


def run(places, chosen):
    rivals = contenders(places, chosen)
    tables = []
    if any(wanted(chosen, name) for name, _, _ in MICRO):
        tables.append(loops(places, chosen, rivals))
    if any(wanted(chosen, program.name) for program, _, _ in REAL):
        tables.append(programs(places, chosen, rivals))
    progress("")
    return tables
