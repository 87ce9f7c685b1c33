"""Ten million malloc/free pairs: no slower in mode off than under glibc."""

from .measure import Contender, also, once, ours, progress
from .table import Table, ratio

NEEDS = ["gcc"]
PAIRS = 10_000_000
SIZES = [16, 64, 256, 1024, 4096, 32768]


def run(places, chosen):
    rivals = [Contender("glibc"), ours(places, "off"), ours(places, "count"), *also(chosen)]
    micro = places.helper("micro")
    rounds = chosen.rounds or (3 if chosen.quick else 9)
    least = {}
    for turn in range(rounds):
        for size in SIZES:
            for rival in rivals:
                progress(f"pairs: round {turn + 1} of {rounds}, {size} bytes, {rival.name}")
                cost, _ = once(places, rival, [micro, f"pair-{size}", str(PAIRS)])
                key = rival.name, size
                least[key] = min(cost.cpu, least.get(key, cost.cpu))
    progress("")
    names = [rival.name for rival in rivals]
    table = Table(
        f"{PAIRS:,} malloc/free pairs, CPU seconds of the whole program, least of {rounds} rounds",
        ["", *names, *(f"{name} / glibc" for name in names[1:])],
        "Asked: ours off at most 1.00 of glibc.",
    )
    for size in SIZES:
        base = least["glibc", size]
        seconds = [f"{least[name, size]:.3f}" for name in names]
        table.add(f"{size} bytes", *seconds, *(ratio(least[name, size], base) for name in names[1:]))
    return [table]
