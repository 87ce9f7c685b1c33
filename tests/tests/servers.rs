//! Servers under the shim: redis, nginx with workers, postgres; each answers as
//! it should and the daemon has its books afterwards. Each also through
//! `pageshim run`, with a planted leak.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use pageshim_tests::http::get_unix;
use pageshim_tests::underrun::Tools;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Preload, Running, Temp, is_root, places, underrun, wait_until};

/// Puts the shim, or `run`, in front of a job.
type Apply<'a> = &'a dyn Fn(Job) -> Job;

const LONG: Duration = Duration::from_secs(60);

fn redis_cli(socket: &Path, arguments: &[&str]) -> String {
    let job = Job::new("redis-cli").arg("-s").arg(socket).args(arguments);
    job.run().stdout
}

/// A redis on a socket of its own, answering.
fn redis(dir: &Path, apply: Apply) -> Running {
    let socket = dir.join("r");
    let job = Job::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .args(["--dir"])
        .arg(dir);
    let running = apply(job).limit(LONG).start();
    wait_until("redis answers", LONG, || {
        (redis_cli(&socket, &["ping"]) == "PONG\n").then_some(())
    });
    running
}

/// Benchmark, a key set and read, everything deleted, shut down.
fn serve_benchmark(socket: &Path) {
    let benchmark = Job::new("redis-benchmark")
        .arg("-s")
        .arg(socket)
        .args(["-q", "-n", "20000", "-c", "20", "-r", "5000", "-d", "100"])
        .args(["-t", "set,get,lpush,lrange_100,hset,zadd,incr"])
        .run()
        .ok();
    assert!(benchmark.stdout.contains("SET:"), "{benchmark:?}");
    redis_cli(socket, &["set", "key", "value"]);
    assert_eq!(redis_cli(socket, &["get", "key"]), "value\n");
    assert_eq!(redis_cli(socket, &["flushall"]), "OK\n");
    redis_cli(socket, &["shutdown", "nosave"]);
}

/// Options of `run` that put the capture into `dir`.
fn capture_in(dir: &Path) -> [String; 2] {
    ["-o".to_owned(), dir.join("out.pgs").display().to_string()]
}

/// A server through `run`: hosted, then with a daemon that listens; `serve` starts
/// what it is given the change for, uses it and answers its standard error.
fn through_run(name: &str, serve: &dyn Fn(&Path, Apply) -> String) {
    let (temp, tools) = (Temp::new(), Tools::built());
    let options = capture_in(&temp);
    let options = [options[0].as_str(), &options[1]];
    let socket = temp.join("nobody");
    let said = serve(&temp, &|job| tools.run(job, &options, &socket));
    let view = underrun::capture(&temp.join("out.pgs"));
    underrun::check_summary(&said, &view, name);
    let (temp, daemon) = (Temp::new(), Daemon::start());
    serve(&temp, &|job| tools.run(job, &[], daemon.socket()));
    underrun::check_daemon(&daemon, name);
}

// Goal: redis through `run`. Method: the same benchmark, hosted and joined.
#[test]
fn redis_under_run() {
    through_run("redis-server", &|dir, apply| {
        let running = redis(dir, apply);
        serve_benchmark(&dir.join("r"));
        running.finish().ok().stderr
    });
}

// Goal: redis under its own benchmark, in every mode; its books balance. Method: benchmark, check, shut down.
#[test]
fn redis_under_its_benchmark() {
    for mode in ["exact", "trace", "count"] {
        let (temp, daemon) = (Temp::new(), Daemon::start());
        let socket = temp.join("r");
        let preload = daemon.preload(mode);
        let running = redis(&temp, &|job| preload.apply(job));
        serve_benchmark(&socket);
        running.finish().ok();
        let name = daemon.report().processes()[0]["name"].clone();
        assert!(
            name.as_str().is_some_and(|n| n.starts_with("redis")),
            "{name}"
        );
        let view = daemon.settled(name.as_str().expect("a name"));
        view.check_equations();
        daemon
            .metrics()
            .check_equations(name.as_str().expect("a name"));
    }
}

const NGINX: &str = "
daemon off; master_process on; worker_processes 2; pid nginx.pid; error_log error.log;
events { worker_connections 64; }
http {
    access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
    uwsgi_temp_path t4; scgi_temp_path t5;
    server { listen unix:n; root .; gzip on; gzip_types *; location / { } }
}
";

/// Runs nginx in `dir`: 300 requests with each of two sets of workers; answers its standard error.
fn nginx_session(dir: &Path, apply: Apply) -> String {
    let user = if is_root() { "user root;\n" } else { "" };
    let text = "a line of the file\n".repeat(5000);
    fs::write(dir.join("nginx.conf"), format!("{user}{NGINX}")).expect("our own directory");
    fs::write(dir.join("page.txt"), &text).expect("our own directory");
    let job = Job::new("nginx").arg("-p").arg(dir);
    let job = job.args(["-c", "nginx.conf", "-e", "error.log"]).dir(dir);
    let nginx = apply(job).limit(LONG).start();
    let socket = dir.join("n");
    let fetch = || {
        for _ in 0..300 {
            let answer = wait_until("nginx answers", LONG, || {
                get_unix(&socket, "/page.txt").ok()
            });
            assert!(answer.ok() == text, "the file arrives whole");
        }
    };
    fetch();
    let master = fs::read_to_string(dir.join("nginx.pid")).expect("it runs");
    let tell = |signal: &str| Job::new("kill").args([signal, master.trim()]).run().ok();
    tell("-HUP");
    fetch();
    tell("-QUIT");
    let outcome = nginx.finish().ok();
    let log = fs::read_to_string(dir.join("error.log")).unwrap_or_default();
    assert!(!log.contains("[alert]"), "{log}");
    assert_eq!(outcome.stdout, "");
    outcome.stderr
}

// Goal: nginx: a master, two workers, a reload in the middle. Method: 300 requests with each set of workers.
#[test]
fn nginx_with_two_workers() {
    let (temp, daemon) = (Temp::new(), Daemon::start());
    let preload = daemon.preload("exact");
    let said = nginx_session(&temp, &|job| preload.apply(job));
    assert_eq!(said, "");
    let view = daemon.settled("nginx");
    view.check_equations();
    assert!(view.named("nginx").len() >= 5, "a master and four workers");
}

// Goal: nginx through `run`. Method: the same session, hosted and joined.
#[test]
fn nginx_under_run() {
    through_run("nginx", &nginx_session);
}

/// Where Debian keeps the newest postgres.
fn postgres_bin() -> std::path::PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let newest = versions.flatten().map(|version| version.path()).max();
    newest.expect("a version").join("bin")
}

/// Postgres refuses root: as root, run as its own user.
fn as_postgres(job: Job) -> Job {
    if is_root() {
        job.wrapped(&["runuser", "-u", "postgres", "--"])
    } else {
        job
    }
}

/// Copies binary and shim where the other user can read them, and gives it the directory.
fn hand_over(temp: &Temp) -> Preload {
    let library = temp.join("libpageshim.so");
    fs::copy(places::shim(), &library).expect("shim");
    fs::copy(places::pageshim(), temp.join("pageshim")).expect("binary");
    if is_root() {
        let id = |flag: &str| {
            let said = Job::new("id").args([flag, "postgres"]).run().ok().stdout;
            said.trim().parse().expect("a number")
        };
        chown(&**temp, Some(id("-u")), Some(id("-g"))).expect("root may");
    }
    let mut preload = Preload::new("exact", &temp.join("s"));
    preload.library = library;
    preload
}

const QUERIES: &str = "
    SET client_min_messages = error; DROP TABLE IF EXISTS t;
    CREATE TABLE t AS SELECT i, md5(i::text) AS v FROM generate_series(1, 20000) i;
    CREATE INDEX ON t(v); ANALYZE t;
    SELECT count(*), min(v), max(v) FROM t;
    SELECT a.i FROM t a JOIN t b ON a.v = b.v WHERE a.i % 5000 = 0 ORDER BY 1;
    SELECT string_agg(v, ',' ORDER BY i) FROM t WHERE i < 4;
    SELECT 1 / 0;
    SELECT jsonb_object_agg(i, v) -> '7' FROM t WHERE i < 50;
";

/// Makes a database in `dir`.
fn initdb(dir: &Path, apply: Apply) {
    let job = Job::new(postgres_bin().join("initdb")).arg("-D");
    let job = job.arg(dir.join("data")).args(["-A", "trust", "-N"]);
    let job = job.args(["-U", "postgres", "--locale=C"]);
    as_postgres(apply(job).dir(dir)).limit(LONG).run().ok();
}

/// Runs a server and the queries; answers what psql and what the server said.
fn postgres_session(dir: &Path, apply: Apply) -> (String, String) {
    let bin = postgres_bin();
    let data = dir.join("data");
    let server = Job::new(bin.join("postgres")).arg("-D").arg(&data);
    let server = server.args(["-F", "-c", "listen_addresses=", "-c"]);
    let server = server.arg(format!("unix_socket_directories={}", dir.display()));
    let server = as_postgres(apply(server).dir(dir)).limit(LONG).start();
    let psql = |sql: &str| {
        let job = Job::new(bin.join("psql")).arg("-h").arg(dir);
        job.args(["-U", "postgres", "-X", "-A"]).input(sql).run()
    };
    wait_until("postgres answers", LONG, || {
        psql("SELECT 1").stdout.contains('1').then_some(())
    });
    let said = psql(QUERIES);
    for _ in 0..5 {
        assert!(psql("SELECT sum(i) FROM t").stdout.contains("200010000"));
    }
    let pid = fs::read_to_string(data.join("postmaster.pid")).expect("it runs");
    let pid = pid.lines().next().expect("a pid").to_owned();
    Job::new("kill").args(["-INT", &pid]).run().ok();
    let log = server.finish().ok().stderr;
    assert!(
        !log.contains("PANIC") && !log.contains("terminated by signal"),
        "{log}"
    );
    (said.stdout + &said.stderr, log)
}

// Goal: postgres: a process per connection, shared memory, closed descriptors. Method: initdb, a
// server and queries with the shim say what they say without.
#[test]
fn postgres_with_a_few_queries() {
    let plain_dir = Temp::new();
    hand_over(&plain_dir);
    initdb(&plain_dir, &|job| job);
    let (plain, _) = postgres_session(&plain_dir, &|job| job);
    let temp = Temp::new();
    let preload = hand_over(&temp);
    let job = as_postgres(Daemon::job(temp.join("pageshim"), &preload.socket).env("HOME", &*temp));
    let daemon = Daemon::launch(&preload.socket, job);
    // runuser drops nothing of the environment without a login, so the shim rides through it;
    // `env` sets it after the change of user all the same.
    let apply = |job: Job| {
        let set = [
            format!("LD_PRELOAD={}", preload.library.display()),
            format!("PAGESHIM_SOCKET={}", preload.socket.display()),
        ];
        job.wrapped(&["env", &set[0], &set[1]])
    };
    initdb(&temp, &apply);
    let (shimmed, _) = postgres_session(&temp, &apply);
    assert_eq!(shimmed, plain);
    let view = daemon.settled("postgres");
    view.check_equations();
    let backends = view.named("postgres");
    assert!(
        backends.len() >= 6,
        "backends have books: {}",
        backends.len()
    );
    assert!(
        backends
            .iter()
            .any(|p| number(&p["total"], "blocks") > 1000)
    );
}

// Goal: postgres through `run`: what the queries say is the same, hosted and joined.
// Method: a database made without us, served twice.
#[test]
fn postgres_under_run() {
    let temp = Temp::new();
    let preload = hand_over(&temp);
    initdb(&temp, &|job| job);
    let (plain, _) = postgres_session(&temp, &|job| job);
    let tools = Tools::copied(&temp);
    let options = capture_in(&temp);
    let options = [options[0].as_str(), &options[1]];
    let hosted = |job| tools.run(job, &options, &temp.join("nobody"));
    let (said, log) = postgres_session(&temp, &hosted);
    assert_eq!(said, plain);
    let view = underrun::capture(&temp.join("out.pgs"));
    underrun::check_summary(&log, &view, "postgres");
    let job = as_postgres(Daemon::job(&tools.binary, &preload.socket).env("HOME", &*temp));
    let daemon = Daemon::launch(&preload.socket, job);
    let joined = |job| tools.run(job, &[], daemon.socket());
    assert_eq!(postgres_session(&temp, &joined).0, plain);
    underrun::check_daemon(&daemon, "postgres");
}
