//! `--suppressions FILE`: lost blocks that are known and wanted.

use std::path::PathBuf;

use clap::Args;

use crate::books::suppress::Rules;

/// Files with suppressions.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SuppressionsOption {
    /// Lost blocks to leave out of findings: a file of leak:PATTERN lines (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) suppressions: Vec<PathBuf>,
}

impl SuppressionsOption {
    /// The rules of all files.
    pub(crate) fn load(&self) -> Result<Rules, String> {
        let mut rules = Rules::default();
        for path in &self.suppressions {
            let said = |why: &dyn std::fmt::Display| {
                format!(
                    "--suppressions {}: {why}; the format is LeakSanitizer's, a line leak:PATTERN each",
                    path.display()
                )
            };
            let text = std::fs::read_to_string(path).map_err(|error| said(&error))?;
            rules.extend(Rules::parse(&text).map_err(|why| said(&why))?);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: files add up, and what is wrong is told with its place. Method: two files, then a bad and a missing one.
    #[test]
    fn files_add_up() {
        let dir =
            std::env::temp_dir().join(format!("pageshim-suppressions-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("writable");
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("writable");
            path
        };
        let load = |suppressions| SuppressionsOption { suppressions }.load();
        let both = load(vec![file("a", "leak:one\n"), file("b", "leak:two\n")]);
        assert_eq!(both, Rules::parse("leak:one\nleak:two"));
        let why = load(vec![file("c", "leak:x\nthread:y")]).expect_err("no rule");
        assert!(
            why.contains("/c: line 2") && why.contains("leak:PATTERN"),
            "{why}"
        );
        assert!(
            load(vec![dir.join("none")])
                .expect_err("missing")
                .contains("/none")
        );
        std::fs::remove_dir_all(&dir).expect("ours");
    }
}
