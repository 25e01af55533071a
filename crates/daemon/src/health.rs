//! What `/readyz` and `/livez` say.

use std::fmt::Write as _;

/// Named checks, as Kubernetes' own components list them.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<(bool, String)>,
    notes: Vec<String>,
}

impl Report {
    /// A check that decides: one that fails makes the program not ready.
    pub fn check(&mut self, name: &str, failure: Option<&str>) {
        self.lines.push(match failure {
            None => (true, format!("[+]{name} ok")),
            Some(reason) => (false, format!("[-]{name} failed: {reason}")),
        });
    }

    /// Something worth reading with `?verbose`.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn is_ready(&self) -> bool {
        self.lines.iter().all(|(good, _)| *good)
    }

    /// The body: `ok`, or what fails; with `verbose` everything.
    pub fn text(&self, what: &str, verbose: bool) -> String {
        let mut out = String::new();
        for (good, line) in &self.lines {
            if verbose || !good {
                let _ = writeln!(out, "{line}");
            }
        }
        if verbose {
            for note in &self.notes {
                let _ = writeln!(out, "{note}");
            }
        }
        match (self.is_ready(), verbose) {
            (true, false) => out.push_str("ok"),
            (true, true) => {
                let _ = writeln!(out, "{what} check passed");
            }
            (false, _) => {
                let _ = writeln!(out, "{what} check failed");
            }
        }
        out
    }
}
