//! What is wrong with a manifest: every problem with its place in the file and its field path, in the API server's words.

use std::fmt;

use crate::path::Path;

/// One thing wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, or `<stdin>`.
    pub source: String,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// `spec.containers[0].name`; empty when the text itself cannot be read.
    pub path: String,
    /// `Required value`, `Invalid value: "x": …`, …
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.source, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything wrong with the manifests of one command, in the order of the text. Displays one problem a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Problems of one object while it is being looked at; the words are those of apimachinery's `field` package.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

/// A problem that does not know its line yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: Path,
    pub(crate) message: String,
}

impl Finding {
    /// The field itself should not be there; its value does not matter.
    pub(crate) fn is_about_the_key(&self) -> bool {
        self.message.starts_with(UNKNOWN_FIELD)
    }
}

pub(crate) const UNKNOWN_FIELD: &str = "unknown field";

impl Findings {
    pub(crate) fn add(&mut self, path: Path, message: impl Into<String>) {
        self.0.push(Finding { path, message: message.into() });
    }

    pub(crate) fn required(&mut self, path: Path, detail: &str) {
        self.add(path, with_detail("Required value", detail));
    }

    pub(crate) fn forbidden(&mut self, path: Path, detail: &str) {
        self.add(path, with_detail("Forbidden", detail));
    }

    pub(crate) fn invalid(&mut self, path: Path, value: impl Into<serde_json::Value>, detail: &str) {
        self.add(path, with_detail(&format!("Invalid value: {}", value.into()), detail));
    }

    pub(crate) fn duplicate(&mut self, path: Path, value: &str) {
        self.add(path, format!("Duplicate value: {}", quote(value)));
    }

    pub(crate) fn not_found(&mut self, path: Path, value: &str) {
        self.add(path, format!("Not found: {}", quote(value)));
    }

    pub(crate) fn too_long(&mut self, path: Path, bytes: usize) {
        self.add(path, format!("Too long: may not be more than {bytes} bytes"));
    }

    pub(crate) fn too_many(&mut self, path: Path, actual: usize, most: usize) {
        self.add(path, format!("Too many: {actual}: must have at most {most} items"));
    }

    pub(crate) fn not_supported(&mut self, path: Path, value: &str, supported: &[&str]) {
        let supported: Vec<_> = supported.iter().map(|value| quote(value)).collect();
        self.add(path, format!("Unsupported value: {}: supported values: {}", quote(value), supported.join(", ")));
    }

    /// Required when empty, else one of `supported`.
    pub(crate) fn one_of(&mut self, path: Path, value: Option<&str>, supported: &[&str]) {
        match value {
            None | Some("") => self.required(path, ""),
            Some(value) if !supported.contains(&value) => self.not_supported(path, value, supported),
            Some(_) => {}
        }
    }

    /// One `Invalid value` for each complaint.
    pub(crate) fn each_invalid(&mut self, path: &Path, value: &str, complaints: Vec<String>) {
        for complaint in complaints {
            self.invalid(path.clone(), value, &complaint);
        }
    }
}

fn with_detail(message: &str, detail: &str) -> String {
    if detail.is_empty() { message.to_owned() } else { format!("{message}: {detail}") }
}

/// In double quotes, escaped as JSON escapes; Go's `%q` differs only for control characters.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
