//! Where batches end. A sink is blocking and lives in a thread of its own: it may be slow, and only it is.

pub mod file;
pub mod http;
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
}
