//! Real processes that are killed.

use std::time::Duration;

use tokio::net::UnixStream;

use crate::books::report::{Exit, State};
use crate::hub::fake::{Client, Host, good};

/// Not a test of its own: the process that others start and kill.
#[tokio::test]
async fn victim() {
    let Some(path) = std::env::var_os("PAGESHIM_TEST_VICTIM") else {
        return;
    };
    let pid = std::process::id();
    let fd = good(u64::from(pid), pid, "victim");
    let mut client = Client(UnixStream::connect(path).await.expect("listening"));
    client.hello(u64::from(pid), pid, &fd).await;
    println!("connected");
    std::future::pending::<()>().await;
}

fn start_victim(host: &Host) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().expect("known"))
        .args(["--exact", "hub::tests::killed::victim", "--nocapture"])
        .env("PAGESHIM_TEST_VICTIM", host.dir.join("s.sock"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("ourselves")
}

// Goal: a killed process is reported as it was, `settle` waits for that, the
// parent's word makes the end exact. Method: kill a real child.
#[tokio::test]
async fn a_killed_process_is_still_reported() {
    let host = Host::new("kill").await;
    let mut child = start_victim(&host);
    let token = u64::from(child.id());
    host.process(token, |process| process.state == State::Running)
        .await;
    child.kill().expect("ours");
    host.hub.settle(child.id(), Duration::from_secs(5)).await;
    let process = host.process(token, |_| true).await;
    assert_eq!(
        (process.state, process.exit),
        (State::Killed, Some(Exit::default()))
    );
    assert_eq!(process.live.bytes, 60);
    child.wait().expect("ours");
    let exit = Exit {
        code: None,
        signal: Some(9),
    };
    host.hub.note_exit(child.id(), exit);
    assert_eq!(host.process(token, |_| true).await.exit, Some(exit));
    assert_eq!(host.report().await.leaks[0].bytes, 60);
}

// Goal: a note that comes before the end was seen is used then. Method: note first, then kill.
#[tokio::test]
async fn an_early_note_is_kept() {
    let host = Host::new("note").await;
    let mut child = start_victim(&host);
    let token = u64::from(child.id());
    host.process(token, |_| true).await;
    let exit = Exit {
        code: None,
        signal: Some(9),
    };
    host.hub.note_exit(child.id(), exit);
    child.kill().expect("ours");
    child.wait().expect("ours");
    host.hub.settle(child.id(), Duration::from_secs(5)).await;
    let process = host.process(token, |_| true).await;
    assert_eq!((process.state, process.exit), (State::Killed, Some(exit)));
}
