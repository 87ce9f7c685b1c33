"""A private daemon for the life of one measured run."""

import json
import os
import subprocess
import time
import urllib.request

from .places import Trouble


class Daemon:
    """Started on entry; `finish` waits for the process's end and fills in the cost."""

    def __init__(self, places, number):
        self.dir = places.dir / f"daemon-{number}"
        self.dir.mkdir()
        self.socket = self.dir / "socket"
        self.places = places
        self.cpu = self.cpu_at_end = self.peak_kib = self.written = self.allocations = 0

    def __enter__(self):
        data = self.dir / "data"
        line = [str(self.places.pageshim), "daemon", "--socket", str(self.socket),
                "--listen", "127.0.0.1:0", "--data", str(data)]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PAGESHIM_", "LD_"))}
        with open(self.dir / "errors", "wb") as errors:
            self.process = subprocess.Popen(
                line, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        first = self.process.stdout.readline().decode()
        self.url = next((word for word in first.split() if word.startswith("http://")), None)
        if not self.url:
            self.__exit__()
            raise Trouble(f"the daemon did not start: {(self.dir / 'errors').read_text()[-500:]}")
        return self

    def finish(self):
        """Waits until the daemon has seen the end of the run, then reads what it spent.
        The list of processes is asked for, which needs no symbols: a reader of /leaks
        pays for those, once."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.2)
            with urllib.request.urlopen(f"{self.url}api/v1/processes", timeout=20) as answer:
                processes = json.load(answer)["processes"]
            if processes and all(process["state"] != "running" for process in processes):
                break
        self.allocations = max((p["total"]["blocks"] for p in processes), default=0)
        proc = f"/proc/{self.process.pid}"
        with open(f"{proc}/status", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
        self.peak_kib = int(lines["VmHWM"].split()[0])
        with open(f"{proc}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        self.cpu_at_end = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        self.process.terminate()
        _, _, use = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        self.cpu = use.ru_utime + use.ru_stime
        self.written = sum(file.stat().st_size for file in (self.dir / "data").rglob("*"))

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
