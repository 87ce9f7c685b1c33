"""Runs contenders in turn and keeps the least of what each cost."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field

from .places import LIBS, Trouble

# In front of the program's own libraries: also redis, which links jemalloc, gets glibc's malloc.
GLIBC = str(LIBS / "libc.so.6")


@dataclass
class Contender:
    """A way to run a program: what is preloaded, what is set, what comes before it."""

    name: str
    preload: str = GLIBC
    env: dict = field(default_factory=dict)
    prefix: tuple = ()


@dataclass
class Cost:
    """Seconds of CPU and of wall time, peak KiB."""

    cpu: float
    wall: float
    peak: float

    def least(self, other):
        """The least of each, which need not come from one run."""
        if other is None:
            return self
        return Cost(min(self.cpu, other.cpu), min(self.wall, other.wall), min(self.peak, other.peak))


def ours(places, mode, name=None, socket="/nonexistent/pageshim.sock"):
    """Our library in a mode, with no daemon to be found."""
    env = {"PAGESHIM_MODE": mode, "PAGESHIM_SOCKET": str(socket)}
    return Contender(name or f"ours {mode}", str(places.shim), env)


def also(chosen):
    """The contenders of --also, run in mode off should they be ours."""
    for text in chosen.also:
        name, _, path = text.partition("=")
        if not os.path.exists(path):
            raise Trouble(f"--also {text}: there is no {path}; give NAME=/path/to/lib.so")
        env = {"PAGESHIM_MODE": "off", "PAGESHIM_SOCKET": "/nonexistent/pageshim.sock"}
        yield Contender(name, os.path.abspath(path), env)


def environment(contender, more=None):
    """What a contender's program sees: nothing of ours but what it is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PAGESHIM_", "LD_"))}
    # The interpreter's own memory must go through malloc to be measured.
    kept.update(MEASURE_PRELOAD=contender.preload, PYTHONMALLOC="malloc", LC_ALL="C")
    kept.update(contender.env)
    kept.update(more or {})
    return kept


def once(places, contender, command, runs=1, timeout=1800):
    """One run of a command; its cost and what it printed."""
    out = places.dir / "cost"
    out.unlink(missing_ok=True)
    line = [str(places.dir / "measure"), f"-{runs}", str(out), *contender.prefix, *command]
    process = subprocess.Popen(
        line, env=environment(contender), cwd=places.dir, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )
    try:
        printed, said = process.communicate(timeout=timeout)
    except BaseException:
        # The session is ours: the helper and what it started.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0 or not out.exists():
        raise Trouble(f"{' '.join(line)} failed ({process.returncode}): {said.decode()[-500:]}")
    wall, cpu, peak, status = map(int, out.read_text().split())
    if status != 0:
        raise Trouble(f"{contender.name}: {' '.join(command)} ended with {status}: {said.decode()[-500:]}")
    return Cost(cpu / 1e9 / runs, wall / 1e9 / runs, peak), printed.decode(errors="replace")


def progress(text):
    """One line on the terminal, none in a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
