//! `pageshim daemon`: bind, announce, serve, drain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::signals::Signals;
use super::suppressions::SuppressionsOption;
use super::{LibOption, SocketOption, host, places, print};
use crate::http;
use crate::hub::{Hub, HubConfig};
use crate::shimlib;

/// How long running answers may take when we are told to stop.
const DRAIN: Duration = Duration::from_secs(5);
const KEEP_EXITED: usize = 200;

const EXAMPLES: &str = "\
Examples:
  pageshim daemon                          http://127.0.0.1:9764/
  pageshim daemon --listen 127.0.0.1:0     any free port; the first line tells it
  pageshim daemon --check-every 600        look for lost blocks every ten minutes
  pageshim daemon --data /var/lib/pageshim a capture is written there at the end";

/// Options of `daemon`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    socket: SocketOption,
    #[command(flatten)]
    lib: LibOption,
    /// Address of /metrics and the pages; port 0 picks one
    #[arg(
        long,
        env = "PAGESHIM_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9764"
    )]
    listen: String,
    /// Another host name the pages may be asked by (repeatable)
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// File with the token clients must send
    #[arg(long, env = "PAGESHIM_AUTH_TOKEN_FILE", value_name = "FILE")]
    auth_token_file: Option<PathBuf>,
    /// Directory for the capture that is written when the daemon ends
    #[arg(long, env = "PAGESHIM_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Processes that ended to remember
    #[arg(long, value_name = "N", default_value_t = KEEP_EXITED)]
    keep: usize,
    #[command(flatten)]
    suppressions: SuppressionsOption,
    /// Check running processes for lost blocks so often, at most 1 % of the time
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    check_every: Option<u32>,
}

/// Serves until told to stop.
pub(crate) fn main(options: &Options) -> Result<(), String> {
    log();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("no event loop: {error}"))?;
    let done = runtime.block_on(serve(options));
    runtime.shutdown_background();
    done
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PAGESHIM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

async fn serve(options: &Options) -> Result<(), String> {
    let socket = places::socket(options.socket.socket.as_deref());
    let socket =
        std::path::absolute(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    if let Some(who) = places::holder(&socket) {
        return Err(format!(
            "the socket {} is in use by {who}; use that daemon, stop it, or choose another with --socket",
            socket.display()
        ));
    }
    let suppressions = options.suppressions.load()?;
    let data = options.data.as_deref().map(data_dir).transpose()?;
    let library = shimlib::locate(options.lib.lib.as_deref());
    let library = library.map_or_else(|_| PathBuf::from(shimlib::NAME), |library| library.path);
    let mut config = http::Config::new(&options.listen, library, socket.clone());
    config.allow_hosts.clone_from(&options.allow_host);
    config.token = options
        .auth_token_file
        .as_deref()
        .map(http::token)
        .transpose()?;
    let mut signals = Signals::all().map_err(|error| format!("no signal handlers: {error}"))?;
    let exposed = config.token.is_none();
    let hub = Hub::start(HubConfig {
        socket: socket.clone(),
        keep_exited: options.keep,
        suppressions,
        check_every: options
            .check_every
            .map(|seconds| Duration::from_secs(seconds.into())),
    })
    .await
    .map_err(|error| error.to_string())?;
    let server = match http::Server::start(hub.clone(), config).await {
        Ok(server) => server,
        Err(why) => {
            hub.shutdown();
            return Err(why);
        }
    };
    if exposed && !server.address.ip().is_loopback() {
        print::say(&format!(
            "warning: {} can be reached from other machines without a token; see --auth-token-file",
            server.url
        ));
    }
    let _url = host::client_url(&socket, &server.url);
    print::out(&format!(
        "pageshim daemon: {} socket {}\n",
        server.url,
        socket.display()
    ));
    drain_on_signal(&mut signals).await;
    server.stop(DRAIN).await;
    let written = match data {
        Some(dir) => capture(&hub, &dir).await,
        None => Ok(()),
    };
    hub.shutdown();
    written
}

/// SIGHUP has nothing to reload and no terminal to lose: it is not the end.
async fn drain_on_signal(signals: &mut Signals) {
    while signals.next().await == libc::SIGHUP {
        print::say("SIGHUP: nothing to reload");
    }
}

fn data_dir(dir: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(|error| {
        format!(
            "--data {}: {error}; name a directory you can write to",
            dir.display()
        )
    })?;
    Ok(dir.to_owned())
}

async fn capture(hub: &Hub, dir: &Path) -> Result<(), String> {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let path = dir.join(format!("pageshim.daemon.{seconds}.pgs"));
    let done = hub.write_capture(&path).await;
    done.map_err(|error| format!("the capture at the end was not written: {error}"))
}
