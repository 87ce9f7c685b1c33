//! `run` without a daemon: this process is one, for the life of the command.
//!
//! # Design
//! One thread, one tokio runtime. The command keeps our standard streams,
//! process group and terminal. SIGINT and SIGQUIT reach it from the terminal by
//! itself, so we only outlive them; SIGTERM and SIGHUP are passed on. A signal
//! after the command's end means "do not wait for the summary".

use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::run::{FAILED, Plan, failed};
use super::signals::Signals;
use super::{places, print, process, summary};
use crate::books::report::{Exit, Report};
use crate::http;
use crate::hub::{Filter, Hub, HubConfig};
use crate::web::{junit, sarif, words};

/// How long the last bytes of the command and its forks may take to arrive.
const SETTLE: Duration = Duration::from_secs(2);
/// A signal within this time of the command's end is the one that ended it.
const GRACE: Duration = Duration::from_millis(250);
/// Silence after the command's end that needs no word.
const PATIENCE: Duration = Duration::from_millis(500);
const TOP_SITES: usize = 3;
const KEEP_EXITED: usize = 10_000;

enum End {
    Code(u8),
    Signal(i32),
}

/// Hosts, runs, sums up. `named` is a socket the user asked for.
pub(crate) fn main(plan: &Plan<'_>, named: Option<PathBuf>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("no event loop: {error}")),
    };
    let end = runtime.block_on(host(plan, named));
    // A symbol search that is still going on does not keep us.
    runtime.shutdown_background();
    match end {
        Ok(End::Code(code)) => ExitCode::from(code),
        Ok(End::Signal(signal)) => ExitCode::from(process::die_of(signal)),
        Err(why) => failed(&why),
    }
}

async fn host(plan: &Plan<'_>, named: Option<PathBuf>) -> Result<End, String> {
    let private = if named.is_some() {
        None
    } else {
        Some(places::PrivateDir::new()?)
    };
    let socket = match (named, &private) {
        (Some(socket), _) => socket,
        (None, Some(dir)) => dir.socket(),
        (None, None) => return Err("no socket".to_owned()),
    };
    let socket =
        std::path::absolute(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    let config = HubConfig {
        socket: socket.clone(),
        keep_exited: KEEP_EXITED,
        suppressions: plan.suppressions.clone(),
        check_every: None,
    };
    let hub = Hub::start(config)
        .await
        .map_err(|error| error.to_string())?;
    let listen = plan.options.listen.as_deref().unwrap_or("127.0.0.1:0");
    let config = http::Config::new(listen, plan.library.clone(), socket.clone());
    let server = http::Server::start(hub.clone(), config).await?;
    let _url = client_url(&socket, &server.url);
    let mut signals =
        Signals::beside_child().map_err(|error| format!("no signal handlers: {error}"))?;
    let mut child = tokio::process::Command::from(plan.command(&socket))
        .spawn()
        .map_err(|error| {
            format!(
                "{} could not be started: {error}",
                plan.program.path.display()
            )
        })?;
    let pid = child.id().unwrap_or(0);
    if !plan.options.quiet {
        print::say(&format!(
            "profiling {} (pid {pid}), {}",
            plan.name(),
            server.url
        ));
    }
    let status = wait(&mut child, pid, &mut signals).await?;
    let (code, signal) = (status.code(), status.signal());
    hub.note_exit(pid, Exit { code, signal });
    let changed = tokio::select! {
        changed = finish(plan, &hub, pid, &status) => changed,
        signal = impatience(&mut signals) => {
            print::say(&format!("{}: stopped before the summary", words::signal_name(signal)));
            None
        }
    };
    server.stop(Duration::ZERO).await;
    hub.shutdown();
    let own = || code.and_then(|code| u8::try_from(code).ok());
    Ok(match signal {
        Some(signal) => End::Signal(signal),
        None => End::Code(changed.or_else(own).unwrap_or(FAILED)),
    })
}

/// Waits for the command and passes on what it would not get otherwise.
async fn wait(
    child: &mut tokio::process::Child,
    pid: u32,
    signals: &mut Signals,
) -> Result<ExitStatus, String> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    loop {
        tokio::select! {
            status = child.wait() => {
                return status.map_err(|error| format!("pid {pid} cannot be waited for: {error}"));
            }
            signal = signals.next() => {
                let passed = match signal {
                    libc::SIGTERM => Signal::TERM,
                    libc::SIGHUP => Signal::HUP,
                    _ => continue,
                };
                if let Some(target) = target {
                    let _ = rustix::process::kill_process(target, passed);
                }
            }
        }
    }
}

/// A signal that came after the command's end. The one that ended both the command
/// and, a moment later, reached us is not meant to cost the summary.
async fn impatience(signals: &mut Signals) -> i32 {
    let end = tokio::time::Instant::now();
    loop {
        let signal = signals.next().await;
        if end.elapsed() > GRACE {
            return signal;
        }
    }
}

/// Summary, capture, findings; the exit code when they change it.
async fn finish(plan: &Plan<'_>, hub: &Hub, pid: u32, status: &ExitStatus) -> Option<u8> {
    hub.settle(pid, SETTLE).await;
    // The capture resolves every stack; what follows finds the names in the hub's cache.
    let capture = patiently(capture(plan, hub, pid), || {
        if !plan.options.quiet && std::io::stderr().is_terminal() {
            print::say("resolving symbols ...");
        }
    });
    let capture = capture.await;
    let overview = hub
        .report(&Filter {
            limit: Some(0),
            ..Filter::default()
        })
        .await;
    if !plan.options.quiet {
        // By id: an image the command replaced by exec has the same pid.
        let top = Filter {
            process: summary::image(&overview, pid).map(|image| image.id.clone()),
            limit: Some(TOP_SITES),
            ..Filter::default()
        };
        let advice = match top.process {
            Some(_) => hub.whatif(&top).await.processes.into_iter().next(),
            None => None,
        };
        let advice = advice.map(|entry| entry.advice).unwrap_or_default();
        let top = hub.report(&top).await;
        let told = summary::Told {
            name: &plan.name(),
            pid,
            why_silent: plan.why_silent(),
            advice: &advice,
        };
        print::say_text(&summary::text(&overview, &top, told, capture.as_deref()));
    }
    let unwritten = findings_files(plan, hub).await;
    let findings: Vec<String> = match &plan.options.fail_on {
        Some(conditions) => summary::judged(&overview, pid, conditions),
        None => Vec::new(),
    };
    for finding in &findings {
        print::say(&format!("finding: {finding}"));
    }
    if status.signal().is_some() {
        return None;
    }
    if !findings.is_empty() {
        return Some(plan.options.error_exitcode);
    }
    // A step of CI that reads them must not take the file of the run before.
    unwritten.then_some(FAILED)
}

/// Writes `--junit` and `--sarif`; true when one that was asked for could not be.
async fn findings_files(plan: &Plan<'_>, hub: &Hub) -> bool {
    type Render = fn(&Report) -> String;
    let wanted: [(&str, &Option<PathBuf>, Render); 2] = [
        ("--junit", &plan.options.junit, junit::render),
        ("--sarif", &plan.options.sarif, sarif::render),
    ];
    if wanted.iter().all(|(_, path, _)| path.is_none()) {
        return false;
    }
    let report = summary::ended_only(hub.report(&Filter::default()).await);
    let mut unwritten = false;
    for (option, path, render) in wanted {
        let Some(path) = path else { continue };
        if let Err(error) = std::fs::write(path, render(&report)) {
            print::complain(&format!("{option} {}: {error}", path.display()));
            unwritten = true;
        }
    }
    unwritten
}

/// Does `work`; when that takes its time, `tell`s once.
async fn patiently<T>(work: impl Future<Output = T>, tell: impl FnOnce()) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(PATIENCE) => tell(),
    }
    work.await
}

async fn capture(plan: &Plan<'_>, hub: &Hub, pid: u32) -> Option<PathBuf> {
    let path = plan
        .options
        .output
        .clone()
        .unwrap_or_else(|| places::capture(&plan.name(), pid));
    match hub.write_capture(&path).await {
        Ok(()) => Some(path),
        Err(error) => {
            print::say(&format!(
                "no capture was written: {error}; -o FILE names another place"
            ));
            None
        }
    }
}

/// The URL beside the socket, for `report` and `ps`; removed when dropped.
#[derive(Debug)]
pub(crate) struct UrlFile(PathBuf);

/// Writes it; a failure only means that `report` will not find us.
pub(crate) fn client_url(socket: &Path, url: &str) -> Option<UrlFile> {
    let path = places::url_file(socket);
    // Never through a link somebody left there.
    let _ = std::fs::remove_file(&path);
    let mut file = std::fs::File::create_new(&path).ok()?;
    writeln!(file, "{url}").ok()?;
    Some(UrlFile(path))
}

impl Drop for UrlFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: waiting is told once, and only when it is long. Method: quick and slow work.
    #[tokio::test]
    async fn long_work_is_told() {
        let told = std::cell::Cell::new(0);
        let tell = || told.set(told.get() + 1);
        assert_eq!(patiently(async { 1 }, tell).await, 1);
        assert_eq!(told.get(), 0);
        let slow = tokio::time::sleep(PATIENCE * 2);
        patiently(slow, tell).await;
        assert_eq!(told.get(), 1);
    }
}
