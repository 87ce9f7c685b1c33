//! A real Prometheus: starting it, and asking it every panel, variable and rule.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::catalog::{dashboards, dashboards_dir, list, panels, text};
use crate::expressions::{label_values, with_durations};
use crate::programs::{Kept, PATIENCE, Scratch, get, until};

/// A Prometheus of our own that scrapes one target each second, with our rules.
pub(crate) struct Prometheus {
    process: Kept,
    address: String,
}

impl Prometheus {
    pub(crate) fn start(binary: &Path, scratch: &Scratch, target: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free loopback port");
        let address = port.to_string();
        let config = scratch.file("prometheus.yml");
        fs::write(&config, configuration(target)).expect("the scratch directory is writable");
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.file("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null());
        let mut process = Kept::start("prometheus", scratch, &mut command);
        until("Prometheus is ready", PATIENCE, || {
            process.must_run();
            get(&address, "/-/ready")
        });
        Self { process, address }
    }

    pub(crate) fn api(&self, path: &str) -> Result<Value, String> {
        let answer: Value = serde_json::from_str(&get(&self.address, path)?)
            .map_err(|error| format!("{path}: {error}"))?;
        if answer["status"] == "success" {
            return Ok(answer["data"].clone());
        }
        Err(answer["error"].to_string())
    }

    /// How many series answer `expr`, at least one.
    fn ask(&self, expr: &str) -> Result<usize, String> {
        let mut path = "/api/v1/query?query=".to_string();
        for byte in expr.bytes() {
            if byte.is_ascii_alphanumeric() {
                path.push(char::from(byte));
            } else {
                let _ = write!(path, "%{byte:02X}");
            }
        }
        let data = self.api(&path)?;
        match list(&data, "result").len() {
            0 => Err("no series".to_string()),
            count => Ok(count),
        }
    }

    /// Waits until `metric` has been scraped often enough for rates.
    pub(crate) fn await_scrapes(&mut self, metric: &str) {
        until("scrapes are in", PATIENCE, || {
            self.process.must_run();
            let problem = self.scrape_errors();
            self.ask(&format!("count_over_time({metric}[1m]) >= 3"))
                .map_err(|error| format!("{error}; scrape errors {problem:?}"))
        });
    }

    fn scrape_errors(&self) -> Vec<String> {
        let data = match self.api("/api/v1/targets?state=active") {
            Ok(data) => data,
            Err(error) => return vec![error],
        };
        let targets = list(&data, "activeTargets");
        let bad = targets
            .iter()
            .filter(|it| it["health"] != "up" || it["lastError"] != "");
        let mut errors: Vec<String> = bad.map(|it| it["lastError"].to_string()).collect();
        if targets.is_empty() {
            errors.push("no target".to_string());
        }
        errors
    }

    /// Every panel and variable expression that has no answer yet, with why.
    fn unanswered(&self, may_be_empty: &[(&str, &str)]) -> Vec<String> {
        let mut faults = Vec::new();
        for (_, _, dashboard) in dashboards() {
            for panel in panels(&dashboard) {
                let title = text(panel, "title");
                let excused = may_be_empty.iter().any(|(excused, _)| *excused == title);
                for target in list(panel, "targets") {
                    let expr = substituted(text(target, "expr"));
                    match self.ask(&expr) {
                        Err(error) if !excused || error != "no series" => {
                            faults.push(format!("{title:?}: {error}: {expr}"));
                        }
                        _ => {}
                    }
                }
            }
            for variable in list(&dashboard["templating"], "list") {
                let query = text(&variable["query"], "query");
                if let Some((selector, label)) = label_values(query) {
                    let expr = substituted(&format!("count by ({label}) ({selector})"));
                    if let Err(error) = self.ask(&expr) {
                        faults.push(format!("variable {}: {error}", variable["name"]));
                    }
                }
            }
        }
        faults
    }

    /// Rules Prometheus could not evaluate, and annotations it could not expand.
    fn rule_errors(&self) -> Vec<String> {
        let data = match self.api("/api/v1/rules") {
            Ok(data) => data,
            Err(error) => return vec![error],
        };
        let rules: Vec<&Value> = list(&data, "groups")
            .iter()
            .flat_map(|group| list(group, "rules"))
            .collect();
        let mut errors = Vec::new();
        for rule in &rules {
            if rule["health"] != "ok" {
                errors.push(format!(
                    "{}: {} {}",
                    rule["name"], rule["health"], rule["lastError"]
                ));
            }
            if list(rule, "alerts")
                .iter()
                .any(|it| it.to_string().contains("error expanding"))
            {
                errors.push(format!("{}: {}", rule["name"], rule["alerts"]));
            }
        }
        if rules.is_empty() {
            errors.push("no rule was loaded".to_string());
        }
        errors
    }

    /// Demands an answer to all panels, sound rules, clean scrapes.
    pub(crate) fn must_answer_everything(&self, may_be_empty: &[(&str, &str)]) {
        until("every panel answers", PATIENCE, || {
            let faults = self.unanswered(may_be_empty);
            if faults.is_empty() {
                Ok(())
            } else {
                Err(format!("\n  {}", faults.join("\n  ")))
            }
        });
        until("every rule evaluates", PATIENCE, || {
            let faults = self.rule_errors();
            if faults.is_empty() {
                Ok(())
            } else {
                Err(faults.join("\n  "))
            }
        });
        assert_eq!(self.scrape_errors(), Vec::<String>::new());
    }
}

/// What Grafana would send with every variable on All.
fn substituted(expr: &str) -> String {
    with_durations(expr, Duration::from_secs(10))
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$process", ".+")
}

fn configuration(target: &str) -> String {
    let rules = dashboards_dir().join("rules");
    let rules = rules.display();
    format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{rules}/pageshim-recording.yaml', '{rules}/pageshim-alerts.yaml']\n\
         scrape_configs:\n  - job_name: pageshim\n    static_configs: [{{targets: ['{target}']}}]\n"
    )
}
