"""Real programs on input made here: the same bytes in every run."""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Callable

from .measure import Cost, environment, once
from .places import SOURCES, Trouble, call

LUA = """
local function fill(depth)
  if depth == 0 then return { name = "leaf", 1, 2, 3 } end
  local t = {}
  for i = 1, 6 do t["key" .. i] = fill(depth - 1) end
  return t
end
local total = 0
for round = 1, %d do
  local tree, words = fill(6), {}
  for i = 1, 30000 do words[i] = "word" .. (i * round %% 7919) .. "x" end
  table.sort(words)
  total = total + #table.concat(words, ",")
end
print(total)
"""

PYTHON = """
import json
rows = [{"id": i, "name": "row %%d" %% i, "tags": ["a%%d" %% (i %% 7), "b"], "at": [i * 0.5, i * 0.25],
         "more": {"x": i, "y": None, "text": "t" * (i %% 40)}} for i in range(20000)]
total = 0
for round in range(%d):
    text = json.dumps(rows)
    total += len(json.loads(text)) + len(text)
print(total)
"""

SQLITE = """
CREATE TABLE a(id INTEGER PRIMARY KEY, k INTEGER, t TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
INSERT INTO a SELECT i, i * 7919 %% 10007, 'text ' || (i * 31 %% 997) FROM n;
CREATE INDEX b ON a(k, t);
SELECT count(*), sum(length(g)) FROM
  (SELECT k, group_concat(t) AS g FROM a GROUP BY k ORDER BY k);
SELECT sum(length(replace(upper(t), 'TEXT', printf('%%05d', k)))) FROM a;
UPDATE a SET t = t || k WHERE id %% 3 = 0;
DELETE FROM a WHERE k %% 5 = 0;
SELECT count(*) FROM a x JOIN a y ON x.k = y.k WHERE x.id < 2000;
"""

POSTSCRIPT = """%%!PS
/Times-Roman findfont 11 scalefont setfont
1 1 %d {
  /page exch def
  1 1 55 {
    /row exch def
    40 row 13 mul moveto
    page 37 mul row 11 mul add 60 string cvs show
    ( and some words that make a line of text ) show
    row 3 mod 0 eq {
      /d 24 dict def d begin 1 1 20 { dup 12 string cvs cvn exch def } for end
    } if
    newpath 300 row 13 mul moveto
    1 1 30 { dup 7 mul page add 90 mod 300 add exch row mul 97 mod row 13 mul add lineto } for
    row 55 div page 7 mod 7 div 0.5 setrgbcolor stroke
    0 setgray
  } for
  showpage
} for
"""


@dataclass
class Work:
    """A program and its input; `size` scales it, `run` measures one contender."""

    name: str
    make: Callable
    run: Callable = None

    def measure(self, places, contender, size):
        if self.run:
            return self.run(places, contender, size)
        return once(places, contender, self.make(places, size))[0]


def text(places, name, content):
    """A file of the run's directory."""
    path = places.dir / name
    if not path.exists():
        path.write_text(content, encoding="utf-8")
    return str(path)


def z3(places, size):
    """A puzzle of linear integer inequalities and uninterpreted functions."""
    rng = random.Random(7)
    count = 10 + 2 * size
    lines = ["(set-logic QF_UFLIA)", "(declare-fun f (Int) Int)"]
    lines += [f"(declare-const x{i} Int)" for i in range(count)]
    lines += [f"(assert (and (<= 0 x{i}) (<= x{i} {count * 3})))" for i in range(count)]
    for i in range(count):
        for j in range(i):
            lines.append(f"(assert (or (> x{i} (+ x{j} 1)) (> x{j} (+ x{i} 1))))")
    for _ in range(count * 2):
        i, j, k = (rng.randrange(count) for _ in range(3))
        lines.append(f"(assert (or (< (f x{i}) (+ x{j} {rng.randrange(9)})) (> (f (f x{k})) x{i})))")
    lines.append("(check-sat)")
    return ["z3", "-smt2", text(places, f"z3-{size}.smt2", "\n".join(lines))]


def lua(places, size):
    return ["lua5.4", text(places, f"tables-{size}.lua", LUA % size)]


def python(places, size):
    return ["/usr/bin/python3", text(places, f"json-{size}.py", PYTHON % size)]


def sqlite(places, size):
    script = text(places, f"sqlite-{size}.sql", SQLITE % (size * 20000))
    return ["/usr/bin/sqlite3", ":memory:", f".read {script}"]


def ghostscript(places, size):
    page = text(places, f"gs-{size}.ps", POSTSCRIPT % size)
    return ["gs", "-q", "-dBATCH", "-dNOPAUSE", "-sDEVICE=ppmraw", "-r72", "-o", "/dev/null", page]


def compiler(places, size):
    """The compiler proper on preprocessed text: no driver, no preprocessor in the figures."""
    source = places.dir / f"stl-{size}.ii"
    if not source.exists():
        flags = ["-std=c++17", f"-DDEPTH={size}", "-E", "-o", str(source)]
        call(["g++", *flags, str(SOURCES / "stl.cpp")])
    cc1plus = call(["g++", "-print-prog-name=cc1plus"]).strip()
    return [cc1plus, "-quiet", "-std=c++17", "-fpreprocessed", "-fsyntax-only", "-o", "/dev/null", str(source)]


def factor(places, size):
    return [places.helper("factor"), str(size)]


def redis(places, contender, size):
    """The server's cost of SET commands; the clients are not counted."""
    socket, out = str(places.dir / "redis.sock"), places.dir / "cost"
    out.unlink(missing_ok=True)
    server = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]
    line = [str(places.dir / "measure"), str(out), *contender.prefix, *server]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        line, env=environment(contender), cwd=places.dir, start_new_session=True, **quiet
    )
    try:
        for _ in range(600):
            if os.path.exists(socket):
                break
            time.sleep(0.05)
        client = ["redis-benchmark", "-s", socket, "-t", "set", "-P", "16", "-r", "200000", "-d", "100"]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LD_")}
        begun = time.monotonic()
        subprocess.run([*client, "-n", str(size * 100_000), "-q"], env=plain, check=True, **quiet)
        wall = time.monotonic() - begun
        subprocess.run(["redis-cli", "-s", socket, "shutdown", "nosave"], env=plain, check=True, **quiet)
        process.wait(timeout=120)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.SubprocessError):
            raise Trouble(f"{contender.name}: redis did not go through: {error}") from error
        raise
    _, cpu, peak, _ = map(int, out.read_text().split())
    return Cost(cpu / 1e9, wall, peak)


def churn(threads):
    """Server churn with this many threads."""
    return lambda places, size: [places.helper("micro"), "larson", str(size), str(threads)]


Z3 = Work("z3", z3)
LUA_TABLES = Work("lua tables", lua)
JSON = Work("python json", python)
SQL = Work("sqlite", sqlite)
REDIS = Work("redis SET, server", None, redis)
PAGES = Work("ghostscript", ghostscript)
CXX = Work("g++ (cc1plus)", compiler)
FACTOR = Work("factoring", factor)
