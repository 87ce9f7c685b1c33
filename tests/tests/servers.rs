//! Servers under the shim: redis, nginx with workers, postgres; each answers as
//! it should and the daemon has its books afterwards.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use pageshim_tests::http::get_unix;
use pageshim_tests::view::number;
use pageshim_tests::{Daemon, Job, Preload, Running, Temp, is_root, places, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn redis_cli(socket: &Path, arguments: &[&str]) -> String {
    let job = Job::new("redis-cli").arg("-s").arg(socket).args(arguments);
    job.run().stdout
}

/// A redis on a socket of its own, answering.
fn redis(dir: &Path, preload: &Preload) -> Running {
    let socket = dir.join("r");
    let job = Job::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .args(["--dir"])
        .arg(dir);
    let running = preload.apply(job).limit(LONG).start();
    wait_until("redis answers", LONG, || {
        (redis_cli(&socket, &["ping"]) == "PONG\n").then_some(())
    });
    running
}

// Goal: redis under its own benchmark, in every mode; its books balance. Method: benchmark, check, shut down.
#[test]
fn redis_under_its_benchmark() {
    for mode in ["exact", "trace", "count"] {
        let (temp, daemon) = (Temp::new(), Daemon::start());
        let socket = temp.join("r");
        let running = redis(&temp, &daemon.preload(mode));
        let benchmark = Job::new("redis-benchmark")
            .arg("-s")
            .arg(&socket)
            .args(["-q", "-n", "20000", "-c", "20", "-r", "5000", "-d", "100"])
            .args(["-t", "set,get,lpush,lrange_100,hset,zadd,incr"])
            .run()
            .ok();
        assert!(benchmark.stdout.contains("SET:"), "{benchmark:?}");
        redis_cli(&socket, &["set", "key", "value"]);
        assert_eq!(redis_cli(&socket, &["get", "key"]), "value\n");
        assert_eq!(redis_cli(&socket, &["flushall"]), "OK\n");
        redis_cli(&socket, &["shutdown", "nosave"]);
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

// Goal: nginx: a master, two workers, a reload in the middle. Method: 300 requests with each set of workers.
#[test]
fn nginx_with_two_workers() {
    let (temp, daemon) = (Temp::new(), Daemon::start());
    let user = if is_root() { "user root;\n" } else { "" };
    temp.file("nginx.conf", &format!("{user}{NGINX}"));
    let text = "a line of the file\n".repeat(5000);
    temp.file("page.txt", &text);
    let job = Job::new("nginx")
        .arg("-p")
        .arg(&*temp)
        .args(["-c", "nginx.conf"]);
    let job = job.args(["-e", "error.log"]).dir(&temp).limit(LONG);
    let nginx = daemon.preload("exact").apply(job).start();
    let socket = temp.join("n");
    let fetch = || {
        for _ in 0..300 {
            let answer = wait_until("nginx answers", LONG, || {
                get_unix(&socket, "/page.txt").ok()
            });
            assert!(answer.ok() == text, "the file arrives whole");
        }
    };
    fetch();
    nginx.signal(Signal::HUP);
    fetch();
    nginx.signal(Signal::QUIT);
    let outcome = nginx.finish();
    let log = fs::read_to_string(temp.join("error.log")).unwrap_or_default();
    let outcome = outcome.ok();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    assert!(!log.contains("[alert]"), "{log}");
    let view = daemon.settled("nginx");
    view.check_equations();
    assert!(view.named("nginx").len() >= 5, "a master and four workers");
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
    CREATE TABLE t AS SELECT i, md5(i::text) AS v FROM generate_series(1, 20000) i;
    CREATE INDEX ON t(v); ANALYZE t;
    SELECT count(*), min(v), max(v) FROM t;
    SELECT a.i FROM t a JOIN t b ON a.v = b.v WHERE a.i % 5000 = 0 ORDER BY 1;
    SELECT string_agg(v, ',' ORDER BY i) FROM t WHERE i < 4;
    SELECT 1 / 0;
    SELECT jsonb_object_agg(i, v) -> '7' FROM t WHERE i < 50;
";

/// Runs initdb, a server and the queries; answers what psql said.
fn postgres_session(dir: &Path, apply: &dyn Fn(Job) -> Job) -> String {
    let bin = postgres_bin();
    let data = dir.join("data");
    let initdb = Job::new(bin.join("initdb")).arg("-D").arg(&data);
    let initdb = initdb.args(["-A", "trust", "-N", "-U", "postgres", "--locale=C"]);
    as_postgres(apply(initdb).dir(dir)).limit(LONG).run().ok();
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
    said.stdout + &said.stderr
}

// Goal: postgres: a process per connection, shared memory, closed descriptors. Method: initdb, a
// server and queries with the shim say what they say without.
#[test]
fn postgres_with_a_few_queries() {
    let plain_dir = Temp::new();
    hand_over(&plain_dir);
    let plain = postgres_session(&plain_dir, &|job| job);
    let temp = Temp::new();
    let preload = hand_over(&temp);
    let job = as_postgres(Daemon::job(temp.join("pageshim"), &preload.socket).env("HOME", &*temp));
    let daemon = Daemon::launch(&preload.socket, job);
    // runuser drops nothing of the environment without a login, so the shim rides through it;
    // `env` sets it after the change of user all the same.
    let shimmed = postgres_session(&temp, &|job| {
        let set = [
            format!("LD_PRELOAD={}", preload.library.display()),
            format!("PAGESHIM_SOCKET={}", preload.socket.display()),
        ];
        job.wrapped(&["env", &set[0], &set[1]])
    });
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
