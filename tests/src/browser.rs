//! A chromium that is told what to do: pages, keys, questions to a page.
//!
//! It listens on a pair of pipes (`--remote-debugging-pipe`): messages are JSON, each
//! ended by a zero byte.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Job, PATIENCE, Patience, Running, Temp, wait_until};

/// What chromium makes of a page at `url`, scripts run.
///
/// # Panics
/// When there is no chromium, or it fails.
#[must_use]
pub fn document(url: &str) -> String {
    let temp = Temp::new();
    let chromium = Path::new("/usr/bin/chromium");
    assert!(
        chromium.exists(),
        "chromium is missing: run tests/run as root"
    );
    let profile = format!("--user-data-dir={}", temp.join("profile").display());
    let job = Job::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=3000"])
        .args([profile.as_str(), "--dump-dom", url])
        .env("HOME", &*temp);
    job.run().ok().stdout
}

/// One browser with one page.
pub struct Browser {
    _running: Running,
    _temp: Temp,
    to: File,
    from: Receiver<Value>,
    session: Value,
    next: u64,
}

impl Browser {
    /// Starts it with an empty page.
    ///
    /// # Panics
    /// When there is no chromium, or it does not answer.
    #[must_use]
    pub fn start() -> Self {
        let temp = Temp::new();
        let (to, from) = (temp.join("to"), temp.join("from"));
        for pipe in [&to, &from] {
            let made = Command::new("mkfifo").arg(pipe).status();
            assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        }
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (writes, reads) = (open(&to).expect("a pipe"), open(&from).expect("a pipe"));
        let script = "exec /usr/bin/chromium --headless --no-sandbox --disable-gpu \
            --disable-dev-shm-usage --remote-debugging-pipe --user-data-dir=\"$1\" 3<\"$2\" 4>\"$3\"";
        let profile = temp.join("profile");
        let job = Job::new("/bin/sh").args(["-c", script, "sh"]);
        let job = job.arg(&profile).arg(&to).arg(&from);
        let running = job.env("HOME", &*temp).start();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(reads).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            _running: running,
            _temp: temp,
            to: writes,
            from: told,
            session: Value::Null,
            next: 0,
        };
        let page = browser.ask("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        browser.session = browser.ask("Target.attachToTarget", &attach)["sessionId"].clone();
        browser
    }

    /// Goes to a page and waits until it is there with its script.
    ///
    /// # Panics
    /// When it is not there in time.
    pub fn open(&mut self, url: &str) {
        self.ask("Page.navigate", &json!({ "url": url }));
        wait_until("the page is there", PATIENCE, || {
            let there = self.value("document.readyState + ' ' + location.href");
            (there == format!("complete {url}")).then_some(())
        });
    }

    /// Presses a key by its name, `ArrowDown`.
    pub fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            "End" => 35,
            "Home" => 36,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "text": text,
                "windowsVirtualKeyCode": code });
            self.ask("Input.dispatchKeyEvent", &event);
        }
    }

    /// What an expression is in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let wish = json!({ "expression": expression, "returnByValue": true });
        self.ask("Runtime.evaluate", &wish)["result"]["value"].clone()
    }

    /// Sends a command and waits for its answer; events are passed by.
    fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let text = format!("{message}\0");
        self.to.write_all(text.as_bytes()).expect("it reads");
        let mut patience = Patience::new(PATIENCE);
        loop {
            match self.from.recv_timeout(Duration::from_millis(100)) {
                Ok(answer) if answer["id"] == self.next => {
                    assert!(answer["error"].is_null(), "{method}: {answer}");
                    return answer["result"].clone();
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) if !patience.is_over() => {}
                _ => panic!("chromium does not answer {method}"),
            }
        }
    }
}
