//! Where batches end. A sink is blocking and lives in a thread of its own: it may be slow, and only it is.

pub mod file;
pub mod forward;
pub mod grpc;
pub mod http;
pub mod s3;
pub mod stream;
pub mod syslog;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;

pub trait Sink: Send {
    /// Takes all records or says why not; what a failed try has delivered may come again.
    fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure>;
}

/// Why a receiver has not taken records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may take them later; it may have said when.
    Retry(String, Option<Duration>),
    /// It takes less at once.
    TooLarge(String),
    /// It will never take exactly these.
    Refused(String),
    /// It has taken all but some, counted over all batches: it may take the first later, and never the second.
    Items { again: Vec<usize>, refused: Vec<usize>, reason: String },
}

/// An error with everything that caused it, on one line.
pub(crate) fn chain(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
