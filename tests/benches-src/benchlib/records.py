"""Where a block's record should lie: cold frees of a million live blocks."""

import subprocess

from .measure import progress
from .table import Table

NEEDS = ["gcc"]
COUNT = 1_000_000
SIZES = [16, 32, 64, 128, 256, 1024]
LAYOUTS = ["none", "side", "side-huge", "trailer"]


def run(places, chosen):
    micro = places.helper("records")
    rounds = chosen.rounds or (3 if chosen.quick else 9)
    least = {}
    for turn in range(rounds):
        for size in SIZES:
            for layout in LAYOUTS:
                progress(f"records: round {turn + 1} of {rounds}, {size} bytes, {layout}")
                said = subprocess.run([micro, layout, str(size), str(COUNT)], capture_output=True, check=True, text=True)
                key = layout, size
                least[key] = min(float(said.stdout), least.get(key, 1e9))
    progress("")
    table = Table(
        f"Nanoseconds per free of {COUNT:,} live blocks in random order, least of {rounds} rounds",
        ["", *LAYOUTS],
        "A trailer also makes each block 16 bytes larger.",
    )
    for size in SIZES:
        table.add(f"{size} bytes", *(f"{least[layout, size]:.1f}" for layout in LAYOUTS))
    return [table]
