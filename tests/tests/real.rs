//! Real programs: what they print and return must not change.
//!
//! Each case works in a directory of its own and takes at most a few seconds a
//! run. Interpreters and tools run in `exact` with a daemon and without one;
//! long ones with a daemon only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Ended, Job, Outcome, Temp, Trial, underrun};

/// Equal runs in `exact` and `trace`, without a daemon and through `run`; the plain one exits with 0.
fn same(make: &dyn Fn(&Path) -> Job, name: &str) -> Outcome {
    let trial = Trial::of(make).modes(&["exact", "trace"]);
    trial.run_as(name).check().ok()
}

/// Debian's own, not one from a version manager in PATH.
fn debian(name: &str) -> PathBuf {
    let path = Path::new("/usr/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/run as root",
        path.display()
    );
    path
}

// Goal: a shell with substitutions, pipes, arrays and subshells. Method: equal runs.
#[test]
fn bash() {
    let script = r#"
        declare -A words
        for i in $(seq 1 500); do words[$((i % 37))]="${words[$((i % 37))]}$i,"; done
        for key in "${!words[@]}"; do echo "$key ${words[$key]}"; done | sort | sha256sum
        text=$(printf 'line %d\n' $(seq 1 2000)); echo "${#text} ${text//line/LINE}" | tail -c 40
        (exit 3); echo "status $?"
        f() { local n=$1; ((n < 2)) && echo 1 || echo $(( n * $(f $((n - 1))) )); }
        f 10
        trap 'echo bye' EXIT
        cat <(echo one) <(echo two) | while read -r x; do echo "got $x"; done
    "#;
    let plain = same(
        &|dir| Job::new("bash").args(["-c", script]).dir(dir),
        "bash",
    );
    assert!(plain.stdout.contains("3628800"), "{plain:?}");
}

// Goal: git with its child processes, packs and locks. Method: a repository of 60 commits.
#[test]
fn git() {
    let script = r#"
        set -e
        export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
        git init -q -b main .
        for i in $(seq 1 60); do
            seq 1 $((i * 20)) > file$((i % 7)); echo $i > last
            git add -A; git commit -q -m "change $i"
        done
        git branch side HEAD~20; git checkout -q side; echo s > side; git add -A; git commit -q -m side
        git checkout -q main; git merge -q -m merge side
        git gc -q; git fsck --full; git log --stat --format='%h %s' | sha256sum
        git diff HEAD~30 --stat | tail -1; git clone -q . copy; git -C copy rev-parse HEAD
    "#;
    let make = |dir: &Path| {
        Job::new("bash")
            .args(["-c", script])
            .dir(dir)
            .env("HOME", dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@b")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@b")
    };
    let trial = Trial::of(&make).modes(&["exact"]);
    trial.run_as("bash").check().ok();
}

// Goal: perl's own heap of small strings, hashes and regular expressions. Method: equal runs.
#[test]
fn perl() {
    let script = r#"
        my %h; for my $i (1..60000) { push @{$h{$i % 997}}, "value $i" x ($i % 5); }
        my $n = 0; for my $k (sort keys %h) { $n += length join ',', @{$h{$k}}; }
        my $t = join ' ', map { "w$_" } 1..20000; my $c = () = $t =~ /w(\d+)5\b/g;
        $t =~ s/w(\d)/<$1>/g; print "$n $c ", length $t, "\n"; exit 4;
    "#;
    let make = |_: &Path| Job::new(debian("perl")).args(["-e", script]);
    let trial = Trial::of(&make).modes(&["exact", "trace"]);
    let plain = trial.run_as("perl").check();
    assert_eq!(plain.ended, Ended::Code(4));
}

// Goal: PHP, which loads its extensions with RTLD_DEEPBIND. Method: equal runs, with some of them.
#[test]
fn php() {
    let script = r#"
        $a = []; for ($i = 0; $i < 30000; $i++) { $a["k$i"] = str_repeat("x", $i % 100); }
        ksort($a); echo count($a), " ", md5(serialize($a)), "\n";
        echo preg_replace_callback('/\d+/', fn($m) => $m[0] * 2, "a1b22c333"), "\n";
        echo count(get_loaded_extensions()) > 20, " ", extension_loaded("pdo"), "\n";
        $d = new DateTimeImmutable("2024-01-31 12:00", new DateTimeZone("Europe/Paris"));
        echo $d->modify("+1 month")->format(DATE_ATOM), " ", json_encode(iconv("UTF-8", "UTF-16LE", "\u{e9}a") === "\xe9\x00a\x00"), "\n";
        exit(7);
    "#;
    let make = |_: &Path| Job::new(debian("php")).args(["-r", script]);
    let trial = Trial::of(&make).modes(&["exact", "trace"]);
    let plain = trial.run_as("php").check();
    assert_eq!(plain.ended, Ended::Code(7), "{plain:?}");
    assert!(plain.stdout.contains("30000 "), "{plain:?}");
}

// Goal: Ruby, with its own stacks for fibers, threads, a fork and a conservative collector. Method:
// equal runs.
#[test]
fn ruby() {
    let script = r#"
        h = {}; 20000.times { |i| h["k#{i}"] = [i] * 5 }; puts h.size, h.values.flatten.sum
        puts 4.times.map { |k| Thread.new { (0..20000).map(&:to_s).join.size } }.map(&:value).inspect
        f = Fiber.new { 3.times { |i| Fiber.yield(("a".."e").to_a * i) }; :done }
        puts 4.times.map { f.resume.inspect.size }.inspect
        pid = fork { puts "child"; $stdout.flush; exit! 3 }; Process.wait(pid); puts $?.exitstatus
        GC.start; GC.compact rescue nil; puts `echo sub`; exit 5
    "#;
    let make = |_: &Path| Job::new(debian("ruby")).args(["-e", script]);
    let trial = Trial::of(&make).modes(&["exact", "trace"]);
    let plain = trial.run_as("ruby").check();
    assert_eq!(plain.ended, Ended::Code(5), "{plain:?}");
}

const PYTHON: &str = r#"
import collections, json, re, subprocess, sys, threading, zlib
table = collections.defaultdict(list)
for i in range(60000):
    table[i % 613].append("value %d" % i)
text = json.dumps(table)
print(len(text), zlib.crc32(text.encode()), len(re.findall(r"value \d*7", text)))
sums = []
threads = [threading.Thread(target=lambda n=n: sums.append(sum(len(str(x)) for x in range(n)))) for n in (20000, 30000)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(sums), subprocess.run(["echo", "child"], capture_output=True, text=True).stdout.strip())
try:
    bytearray(1 << 62)
except MemoryError:
    print("MemoryError")
big = bytearray(30 << 20); big += bytes(5 << 20); print(len(big), len(zlib.compress(bytes(big))))
sys.exit(6)
"#;

// Goal: CPython with its own small-object arenas (from mmap). Method: equal runs.
#[test]
fn python() {
    let make = |_: &Path| Job::new(debian("python3")).args(["-c", PYTHON]);
    let trial = Trial::of(&make).modes(&["exact", "trace"]);
    let plain = trial.run_as("python3").check();
    assert_eq!(plain.ended, Ended::Code(6), "{plain:?}");
}

// Goal: CPython with every object on malloc; its live blocks balance. Method: equal run, report.
#[test]
fn python_malloc() {
    let make = |_: &Path| {
        Job::new(debian("python3"))
            .args(["-c", PYTHON])
            .env("PYTHONMALLOC", "malloc")
    };
    let plain = Trial::of(&make).plain();
    assert_eq!(plain.ended, Ended::Code(6), "{plain:?}");
    let daemon = Daemon::start();
    let shimmed = daemon.preload("exact").apply(make(Path::new("/"))).run();
    assert_eq!(shimmed, plain);
    // It is named as it was called, not as the file its link leads to.
    let name = "python3";
    let view = daemon.settled(name);
    view.check_equations();
    let blocks = |process: &&serde_json::Value| number(&process["total"], "blocks");
    let most = view.named(name).iter().map(blocks).max();
    assert!(most > Some(300_000), "every object is a block: {most:?}");
    underrun::check(&make, name, &plain, true);
}

// Goal: sqlite's page cache and sorter. Method: an in-memory workload, equal runs.
#[test]
fn sqlite() {
    let sql = "
        CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
            INSERT INTO t SELECT i, (i * 7919) % 10007, printf('value %d', i) FROM n;
        CREATE INDEX k ON t(k, v);
        SELECT count(*), sum(k), max(v) FROM t;
        SELECT k, group_concat(v, '|') FROM t WHERE k < 3 GROUP BY k ORDER BY k;
        UPDATE t SET v = v || ' more' WHERE k % 3 = 0;
        DELETE FROM t WHERE id % 4 = 0;
        VACUUM;
        SELECT count(*), sum(length(v)) FROM t;
        PRAGMA integrity_check;
    ";
    let plain = same(
        &|_| Job::new(debian("sqlite3")).arg(":memory:").input(sql),
        "sqlite3",
    );
    assert!(plain.stdout.ends_with("ok\n"), "{plain:?}");
}

// Goal: a compiler, the busiest user of malloc there is. Method: the same object file twice.
#[test]
fn gxx() {
    let source = r#"
        #include <algorithm>
        #include <iostream>
        #include <map>
        #include <regex>
        #include <string>
        #include <unordered_map>
        #include <vector>
        int main() {
            std::map<std::string, std::vector<int>> table;
            std::unordered_map<int, std::string> back;
            for (int i = 0; i < 100; i++) { table[std::to_string(i % 7)].push_back(i); back[i] = "x"; }
            std::regex pattern("[0-9]+");
            for (auto &row : table) std::sort(row.second.rbegin(), row.second.rend());
            std::cout << table.size() << back.size() << std::regex_match("12", pattern) << "\n";
        }
    "#;
    let make = |dir: &Path| {
        fs::write(dir.join("a.cpp"), source).expect("our own directory");
        let command = "g++ -O1 -c a.cpp -o a.o && sha256sum a.o && g++ a.o -o a && ./a && echo 'int x = y;' > b.cpp && g++ -c b.cpp";
        Job::new("bash").args(["-c", command]).dir(dir)
    };
    let plain = Trial::of(&make)
        .modes(&["exact"])
        .with_daemon_only()
        .run_as("g++")
        .check();
    assert_eq!(plain.ended, Ended::Code(1), "{plain:?}");
    assert!(plain.stderr.contains("error"), "{plain:?}");
}

// Goal: node: V8's threads, mmap heap beside malloc, malloc_usable_size. Method: equal runs.
#[test]
fn node() {
    let script = r#"
        const { createHash } = require('crypto'); const zlib = require('zlib');
        const { Worker } = require('worker_threads');
        const map = new Map(); for (let i = 0; i < 100000; i++) map.set('key' + i, { i, s: 'x'.repeat(i % 50) });
        const text = JSON.stringify([...map]);
        console.log(text.length, createHash('sha256').update(text).digest('hex'));
        const buffers = []; for (let i = 0; i < 200; i++) buffers.push(Buffer.alloc(100000, i));
        console.log(zlib.gunzipSync(zlib.gzipSync(Buffer.concat(buffers))).length);
        const worker = new Worker("require('worker_threads').parentPort.postMessage('x'.repeat(1000).length)", { eval: true });
        worker.on('message', m => { console.log('worker', m); process.exitCode = 9; });
    "#;
    let make = |_: &Path| Job::new(debian("node")).args(["-e", script]);
    let trial = Trial::of(&make).modes(&["exact"]);
    let plain = trial.run_as("node").check();
    assert_eq!(plain.ended, Ended::Code(9), "{plain:?}");
}

// Goal: a JVM: many threads, JIT arenas, stack banging. Method: compile once, equal runs.
#[test]
fn jvm() {
    let source = r#"
        import java.util.*; import java.util.concurrent.*; import java.util.zip.*;
        public class Work {
            public static void main(String[] arguments) throws Exception {
                ExecutorService pool = Executors.newFixedThreadPool(4);
                List<Future<Long>> parts = new ArrayList<>();
                for (int p = 0; p < 8; p++) { final int part = p; parts.add(pool.submit(() -> {
                    Map<String, Integer> map = new HashMap<>(); long sum = 0;
                    for (int i = 0; i < 100000; i++) map.merge("k" + (i * part % 5003), i, Integer::sum);
                    for (int v : map.values()) sum += v;
                    Deflater deflater = new Deflater(); deflater.setInput(new byte[1 << 20]); deflater.finish();
                    sum += deflater.deflate(new byte[1 << 20]); deflater.end(); return sum; })); }
                long total = 0; for (Future<Long> part : parts) total += part.get();
                pool.shutdown();
                java.nio.ByteBuffer direct = java.nio.ByteBuffer.allocateDirect(8 << 20);
                System.out.println(total + " " + direct.capacity()); System.exit(7);
            }
        }
    "#;
    let classes = Temp::new();
    classes.file("Work.java", source);
    let compile = Job::new(debian("javac")).arg("Work.java").dir(&classes);
    compile.limit(Duration::from_secs(120)).run().ok();
    let make = |_: &Path| {
        Job::new(debian("java"))
            .args(["-Xmx128m", "-Xshare:auto", "-cp"])
            .arg(&*classes)
            .arg("Work")
    };
    let trial = Trial::of(&make).modes(&["exact"]);
    let plain = trial.run_as("java").check();
    assert_eq!(plain.ended, Ended::Code(7), "{plain:?}");
}

// Goal: a browser, which brings its own malloc, still renders. Method: chromium prints a page's text.
#[test]
fn chromium() {
    let make = |dir: &Path| {
        fs::write(
            dir.join("p.html"),
            "<p id=a></p><script>a.textContent = 6 * 7 + ' it is'</script>",
        )
        .expect("our own directory");
        Job::new(debian("chromium"))
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .arg(format!("--user-data-dir={}", dir.join("profile").display()))
            .args(["--dump-dom", "p.html"])
            .dir(dir)
            .env("HOME", dir)
    };
    let make = |dir: &Path| make(dir).args(["--virtual-time-budget=1000"]);
    let trial = Trial::of(&make)
        .modes(&["exact"])
        .with_daemon_only()
        .stdout_only();
    assert!(trial.check().ok().stdout.contains("42 it is"));
}
