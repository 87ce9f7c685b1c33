"""Instructions per operation, counted by valgrind: the same in every run."""

import re

from .measure import Contender, also, once, ours, progress
from .places import Trouble
from .table import Table

NEEDS = ["gcc", "valgrind"]
# Loop and operations of the shorter of two runs; their difference leaves start-up out.
LOOPS = [
    ("pair-16", 20_000),
    ("pair-64", 20_000),
    ("pair-1024", 20_000),
    ("pair-4096", 20_000),
    ("pair-100000", 5_000),
    ("batch", 40_000),
    ("random-1k", 40_000),
    ("random-100k", 200_000),
]


def instructions(places, rival, command):
    """All instructions of one run."""
    log = places.dir / "callgrind.log"
    tool = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}")
    under = Contender(rival.name, rival.preload, rival.env, tool)
    once(places, under, command)
    found = re.search(r"Collected : (\d+)", log.read_text())
    if not found:
        raise Trouble(f"callgrind printed no count for {rival.name}: {log.read_text()[-300:]}")
    return int(found.group(1))


def run(places, chosen):
    rivals = [Contender("glibc"), ours(places, "off"), ours(places, "sampled"), ours(places, "count"), ours(places, "exact"), *also(chosen)]
    micro = places.helper("micro")
    table = Table(
        "Instructions per malloc and free, the loop's own included (callgrind)",
        ["", *(rival.name for rival in rivals)],
        "Own instructions of the loop: 13 for a pair, about 35 where sizes are drawn.",
    )
    for name, count in LOOPS:
        if chosen.only and not any(part in name for part in chosen.only):
            continue
        cells = []
        for rival in rivals:
            progress(f"counts: {name}, {rival.name}")
            short = instructions(places, rival, [micro, name, str(count)])
            long = instructions(places, rival, [micro, name, str(3 * count)])
            cells.append(f"{(long - short) / (2 * count):.1f}")
        table.add(name, *cells)
    memory = Table(
        "Memory of that program after 100,000 pairs of 64 bytes",
        ["", "peak VM MiB", "peak RSS KiB"],
        "Peak VM holds the heap's reserve of address space, which is not memory.",
    )
    for rival in rivals:
        _, printed = once(places, rival, [micro, "pair-64", "100000"])
        _, vm, rss = printed.split()
        memory.add(rival.name, f"{int(vm) / 1024:.1f}", rss)
    progress("")
    return [table, memory]
