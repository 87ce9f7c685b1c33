"""Where things are: Debian's packages, what cargo built, a directory to work in."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "tests/benches-src"
LIBS = Path("/usr/lib/x86_64-linux-gnu")

# Package and the file that shows it is there.
PACKAGES = {
    "gcc": "/usr/bin/gcc",
    "g++": "/usr/bin/g++",
    "libjemalloc2": LIBS / "libjemalloc.so.2",
    "libtcmalloc-minimal4": LIBS / "libtcmalloc_minimal.so.4",
    "libmimalloc2.0": LIBS / "libmimalloc.so.2.0",
    "libgoogle-perftools4": LIBS / "libtcmalloc.so.4",
    "z3": "/usr/bin/z3",
    "lua5.4": "/usr/bin/lua5.4",
    "python3": "/usr/bin/python3",
    "sqlite3": "/usr/bin/sqlite3",
    "ghostscript": "/usr/bin/gs",
    "redis-server": "/usr/bin/redis-server",
    "redis-tools": "/usr/bin/redis-benchmark",
    "heaptrack": "/usr/bin/heaptrack",
    "valgrind": "/usr/bin/valgrind",
}

# For the small loops; and for the real programs.
LOOPS = ["gcc"]
MALLOCS = ["libjemalloc2", "libtcmalloc-minimal4", "libmimalloc2.0"]
PROGRAMS = ["g++", "z3", "lua5.4", "python3", "sqlite3", "redis-server", "redis-tools"]


class Trouble(Exception):
    """Something the reader can mend; the text says how."""


def call(command, **how):
    """Runs a command that must succeed; its standard output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise Trouble(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{said}")
    return done.stdout


class Places:
    """One run's directory, helpers and library; all gone at the end."""

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="pageshim-bench-"))
        target = os.environ.get("CARGO_TARGET_DIR")
        self.target = Path(target).absolute() if target else ROOT / "target"
        self.shim = self.target / "release/libpageshim.so"
        self.pageshim = self.target / "release/pageshim"
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)

    def need(self, packages):
        """Installs what is missing when root, else names it."""
        missing = [name for name in packages if not Path(PACKAGES[name]).exists()]
        if not missing:
            return
        if os.geteuid() != 0:
            raise Trouble(
                "these Debian packages are missing; install them or run as root:\n"
                f"    apt-get install {' '.join(missing)}"
            )
        # No service may start: policy-rc.d answers 101, "forbidden by policy".
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            call(["apt-get", "update", "-q"])
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
            call(install, env=environment)
        finally:
            if ours:
                policy.unlink()

    def build(self, daemon):
        """Brings the shim, the daemon and the helpers up to date."""
        packages = ["-p", "pageshim-shim"] + (["-p", "pageshim"] if daemon else [])
        call(["cargo", "build", "--release", "-q", "-j2", *packages], cwd=ROOT)
        self.helper("measure")

    def helper(self, name):
        """A program made from tests/benches-src/NAME.c."""
        made = self.dir / name
        if not made.exists():
            keep = [f"-fno-builtin-{f}" for f in ("malloc", "free", "calloc", "realloc")]
            flags = ["-O2", "-g", "-pthread", *keep]
            call(["gcc", *flags, "-o", made, SOURCES / f"{name}.c"])
        return str(made)
