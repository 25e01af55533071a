//! Structured logs on standard error: text for people, JSON for machines. The level can change while the program runs.
//!
//! A page of code instead of a subscriber stack, because a sidecar's idle memory is the product.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static JSON: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
}

impl Level {
    pub fn parse(text: &str) -> Option<Level> {
        [Level::Error, Level::Warn, Level::Info, Level::Debug].into_iter().find(|level| level.name() == text)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// JSON or text; without a wish, text on a terminal.
pub fn start(level: Level, json: Option<bool>) {
    set_level(level);
    JSON.store(json.unwrap_or_else(|| !std::io::stderr().is_terminal()), Ordering::Relaxed);
}

pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// A line as data, for whoever exports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub time: std::time::SystemTime,
    pub level: Level,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// Lines kept for an exporter; the oldest are given up.
const KEPT: usize = 256;
static KEEPING: AtomicBool = AtomicBool::new(false);
static LINES: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// From now on lines are kept until [`kept_lines`] takes them.
pub(crate) fn keep_lines() {
    KEEPING.store(true, Ordering::Relaxed);
}

pub(crate) fn kept_lines() -> Vec<Line> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
}

fn keep(level: Level, message: &str, fields: &[(&str, &dyn std::fmt::Display)]) {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    let line = Line { time: std::time::SystemTime::now(), level, message: message.to_owned(), fields };
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}

/// Writes one line. Use the macros [`crate::error!`], [`crate::warn!`], [`crate::info!`], [`crate::debug!`].
pub fn write(level: Level, message: &str, fields: &[(&str, &dyn std::fmt::Display)]) {
    if !enabled(level) {
        return;
    }
    if KEEPING.load(Ordering::Relaxed) {
        keep(level, message, fields);
    }
    let now = jiff::Timestamp::now();
    let line = render(&format!("{now:.3}"), level, message, fields, JSON.load(Ordering::Relaxed));
    // There is nobody to tell if standard error is gone.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

fn render(now: &str, level: Level, message: &str, fields: &[(&str, &dyn std::fmt::Display)], json: bool) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut line = String::with_capacity(160);
    if json {
        let _ = write!(line, r#"{{"time":"{now}","level":"{}","message":{}"#, level.name(), quoted(message));
        for (name, value) in fields {
            let _ = write!(line, ",{}:{}", quoted(name), quoted(&value.to_string()));
        }
        line.push_str("}\n");
    } else {
        let _ = write!(line, "{now} {:5} {message}", level.name());
        for (name, value) in fields {
            let text = value.to_string();
            let plain = !text.is_empty() && !text.contains([' ', '"', '=', '\n', '\t']);
            let _ = write!(line, " {name}={}", if plain { text } else { quoted(&text) });
        }
        line.push('\n');
    }
    line
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

#[macro_export]
macro_rules! error {
    ($message:expr $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::log::write($crate::log::Level::Error, $message, &[$((stringify!($name), &$value)),*])
    };
}
#[macro_export]
macro_rules! warn {
    ($message:expr $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::log::write($crate::log::Level::Warn, $message, &[$((stringify!($name), &$value)),*])
    };
}
#[macro_export]
macro_rules! info {
    ($message:expr $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::log::write($crate::log::Level::Info, $message, &[$((stringify!($name), &$value)),*])
    };
}
#[macro_export]
macro_rules! debug {
    ($message:expr $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::log::write($crate::log::Level::Debug, $message, &[$((stringify!($name), &$value)),*])
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one_line() {
        let fields: &[(&str, &dyn std::fmt::Display)] = &[("path", &"/a b"), ("count", &3)];
        assert_eq!(render("T", Level::Warn, "gone", fields, false), "T warn  gone path=\"/a b\" count=3\n");
        let json = render("T", Level::Info, "two\nlines \"here\"", fields, true);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((value["message"].as_str(), value["count"].as_str()), (Some("two\nlines \"here\""), Some("3")));
        assert_eq!(json.lines().count(), 1);
    }
}
