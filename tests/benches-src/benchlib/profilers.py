"""Heap profilers side by side on the same programs: time, memory, bytes, nanoseconds."""

import shutil
import subprocess
from dataclasses import dataclass

from . import work
from .daemon import Daemon
from .measure import Contender, Cost, ours, progress
from .places import LIBS, PROGRAMS, Trouble
from .table import Table, bytes_text, geomean

NEEDS = ["gcc", "libjemalloc2", "libgoogle-perftools4", "heaptrack", "valgrind", *PROGRAMS]
DAEMON = True
# Program, size in a quick run, size in a long one; the means are over the first seven.
ROWS = [
    (work.Z3, 24, 45),
    (work.LUA_TABLES, 3, 10),
    (work.JSON, 2, 4),
    (work.SQL, 5, 20),
    (work.CXX, 1, 3),
    (work.REDIS, 3, 12),
    (work.FACTOR, 8000, 60_000),
    *(
        (work.Work(f"churn, {threads} threads", work.churn(threads)), 3_000_000, 20_000_000)
        for threads in (1, 2, 4, 8, 16)
    ),
]
MEANS = 7
# Modes of ours that the tables of the daemon are about.
OURS = ("count", "exact", "trace")


@dataclass
class Tool:
    """A profiler: how it is started, and how it is measured."""

    name: str
    contender: object  # of a directory (and for ours a socket), a Contender
    mode: str = ""
    daemon: bool = False
    slow: bool = False


@dataclass
class Result:
    """The least cost of a tool on a program; CPU includes helpers and daemon."""

    cost: Cost
    daemon_cpu: float = 0.0
    daemon_cpu_at_end: float = 0.0
    daemon_kib: int = 0
    written: int = 0
    allocations: int = 0


def tools(places, chosen):
    def jemalloc(sample):
        def make(out):
            conf = f"prof:true,prof_final:true,lg_prof_sample:{sample},prof_prefix:{out}/je"
            return Contender("jemalloc", str(LIBS / "libjemalloc.so.2"), {"MALLOC_CONF": conf})
        return make

    def gperftools(out):
        env = {"HEAPPROFILE": f"{out}/gp", "HEAP_PROFILE_ALLOCATION_INTERVAL": str(1 << 40)}
        return Contender("gperftools", str(LIBS / "libtcmalloc.so.4"), env)

    def heaptrack(out):
        return Contender("heaptrack", "", prefix=("heaptrack", "-o", f"{out}/ht"))

    def memcheck(_):
        quiet = ("valgrind", "-q", "--leak-check=full", "--log-file=/dev/null")
        return Contender("memcheck", "", prefix=quiet)

    shown = [
        Tool("glibc", lambda _: Contender("glibc")),
        Tool("ours off", lambda _: ours(places, "off")),
        *(Tool(f"ours {mode}", None, mode, daemon=True) for mode in ("count", "sampled", "exact", "trace")),
        Tool("heaptrack", heaptrack),
        Tool("jemalloc 512K", jemalloc(19)),
    ]
    if not chosen.quick:
        shown += [Tool("jemalloc all", jemalloc(0), slow=True), Tool("gperftools", gperftools, slow=True)]
    if chosen.memcheck:
        shown.append(Tool("memcheck", memcheck, slow=True))
    wanted = [tool for tool in shown[1:] if not chosen.tool or any(part in tool.name for part in chosen.tool)]
    if not wanted:
        raise Trouble(f"--tool: nothing is named so; there are {', '.join(tool.name for tool in shown[1:])}")
    return [shown[0], *wanted]


class Runs:
    """All measurements of one bench run."""

    def __init__(self, places, chosen):
        self.places, self.quick, self.number = places, chosen.quick, 0
        self.results = {}

    def out(self):
        self.number += 1
        out = self.places.dir / f"out-{self.number}"
        out.mkdir()
        return out

    def run(self, tool, program, size):
        out = self.out()
        try:
            if not tool.daemon:
                cost = program.measure(self.places, tool.contender(out), size)
                written = sum(file.stat().st_size for file in out.rglob("*"))
                return Result(cost, written=written)
            with Daemon(self.places, self.number) as daemon:
                contender = ours(self.places, tool.mode, socket=daemon.socket)
                cost = program.measure(self.places, contender, size)
                daemon.finish()
            shutil.rmtree(daemon.dir)
            return Result(
                cost, daemon.cpu, daemon.cpu_at_end, daemon.peak_kib, daemon.written, daemon.allocations
            )
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def add(self, tool, program, size):
        """Runs once more, keeping the least; a tool that takes too long or fails keeps no figure."""
        key = program.name, tool.name
        try:
            new = self.run(tool, program, size)
        except (subprocess.TimeoutExpired, Trouble) as error:
            if not tool.slow and tool.name != "heaptrack":
                raise
            progress("")
            print(f"{program.name} under {tool.name}: {str(error).splitlines()[0][:200]}", flush=True)
            self.results.setdefault(key, None)
            return
        old = self.results.get(key)
        if old:
            new.cost = new.cost.least(old.cost)
            new.daemon_cpu = min(new.daemon_cpu, old.daemon_cpu)
        self.results[key] = new


def ratios(runs, title, rows, names, value, note=""):
    """A table of `value` over glibc's, with geometric means."""
    table = Table(title, ["", *names], note)
    columns = {name: [] for name in names}
    for index, (program, _, _) in enumerate(rows):
        base = value(runs.results[program.name, "glibc"])
        cells = []
        for name in names:
            result = runs.results.get((program.name, name))
            share = value(result) / base if result and base else None
            cells.append(f"{share:.2f}" if share else "-")
            if index < MEANS:
                columns[name].append(share)
        table.add(program.name, *cells)
    complete = {name: geomean(shares) if all(shares) else None for name, shares in columns.items()}
    means = [f"{mean:.2f}" if mean else "-" for mean in complete.values()]
    table.add("geometric mean" + (f" of the first {MEANS}" if len(rows) > MEANS else ""), *means)
    return table


def all_cpu(result):
    return result.cost.cpu + result.daemon_cpu


def ours_table(runs, rows):
    """What only ours has: the daemon's cost, and the size of the work."""
    table = Table(
        "The daemon, no page asked for: CPU seconds until the program's end, with its own end / peak RSS",
        ["", "allocations", *OURS],
    )
    for program, _, _ in rows:
        found = [runs.results[program.name, f"ours {mode}"] for mode in OURS]
        cells = [f"{r.daemon_cpu_at_end:.2f}, {r.daemon_cpu:.2f} s / {r.daemon_kib / 1024:.0f}M" for r in found]
        table.add(program.name, f"{found[1].allocations / 1e6:.2f}M", *cells)
    return table


def event_table(runs, rows, names):
    """Nanoseconds of CPU that an allocation or a free costs more than on glibc, and bytes written."""
    table = Table(
        "Nanoseconds per event (all CPU more than on glibc / allocations and frees) / bytes written",
        ["", *names],
    )
    for program, _, _ in rows:
        base = all_cpu(runs.results[program.name, "glibc"])
        events = 2 * runs.results[program.name, "ours exact"].allocations
        cells = []
        for name in names:
            result = runs.results.get((program.name, name))
            if not result or not events:
                cells.append("-")
                continue
            each = (all_cpu(result) - base) / events * 1e9
            cells.append(f"{each:.0f} / {bytes_text(result.written)}")
        table.add(program.name, *cells)
    return table


def run(places, chosen):
    shown = tools(places, chosen)
    rows = [row for row in ROWS if not chosen.only or any(part in row[0].name for part in chosen.only)]
    if not rows:
        raise Trouble(f"--only: no program is named so; there are {', '.join(r[0].name for r in ROWS)}")
    rounds = chosen.rounds or (2 if chosen.quick else 5)
    runs = Runs(places, chosen)
    for turn in range(rounds):
        for program, quick, long in rows:
            for tool in shown:
                if tool.slow and turn > 0:
                    continue
                progress(f"profilers: round {turn + 1} of {rounds}, {program.name}, {tool.name}")
                runs.add(tool, program, quick if chosen.quick else long)
    progress("")
    names = [tool.name for tool in shown[1:]]
    how = f"ratio to plain glibc, least of {rounds} rounds"
    left_out = "jemalloc on every block and gperftools, 3 to 80 times slower, run without --quick."
    tables = [
        ratios(runs, f"Wall time, {how}", rows, names, lambda r: r.cost.wall, left_out if chosen.quick else ""),
        ratios(runs, f"CPU time of program and daemon or helpers, {how}", rows, names, all_cpu),
        ratios(runs, f"CPU time of the program (heaptrack: and its helper), {how}", rows, names, lambda r: r.cost.cpu),
        ratios(runs, f"Peak RSS of the program, {how}", rows, names, lambda r: r.cost.peak),
    ]
    if {f"ours {mode}" for mode in OURS} <= set(names):
        tables += [event_table(runs, rows, names), ours_table(runs, rows)]
    return tables
