"""What the shim adds to the start of a process."""

import statistics

from .measure import Contender, once, ours, progress
from .table import Table

NEEDS = ["gcc"]
BLOCK = 25


def run(places, chosen):
    plain = Contender("plain", preload="")
    rivals = [plain, ours(places, "off"), ours(places, "count"), ours(places, "exact")]
    runs = 200 if chosen.quick else 1000
    blocks = {rival.name: [] for rival in rivals}
    for block in range(runs // BLOCK):
        progress(f"start: {block * BLOCK} of {runs}")
        # Forwards and backwards in turn: a drift of the machine hits all alike.
        for rival in rivals if block % 2 else reversed(rivals):
            cost, _ = once(places, rival, ["/bin/true"], runs=BLOCK)
            blocks[rival.name].append(cost)
    progress("")
    table = Table(
        f"{runs} x /bin/true, in blocks of {BLOCK} by turns",
        ["", "wall ms a run", "CPU ms a run", "wall ms more (median)", "CPU ms more (median)", "least wall ms more"],
        "Asked: at most 2 ms more, later less than 1 ms. No daemon is reachable.",
    )
    base = blocks[plain.name]
    for rival in rivals:
        mine = blocks[rival.name]
        walls, cpus = [c.wall * 1e3 for c in mine], [c.cpu * 1e3 for c in mine]
        more = [statistics.median((m.wall - b.wall) * 1e3 for m, b in zip(mine, base)),
                statistics.median((m.cpu - b.cpu) * 1e3 for m, b in zip(mine, base)),
                min(walls) - min(b.wall * 1e3 for b in base)]
        texts = ["-"] * 3 if rival is plain else [f"{m:.2f}" for m in more]
        table.add(rival.name, f"{statistics.median(walls):.2f}", f"{statistics.median(cpus):.2f}", *texts)
    return [table]
