//! Spans on their way to a collector. Whoever finishes one hands it over with [`keep()`]; the exporter takes them in
//! batches. The queue is bounded: what does not fit is dropped and counted (OpenTelemetry's batch processor does the same).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What stands beside a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

/// Which side of a call this is (`SpanKind` in opentelemetry-proto, `trace/v1/trace.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server = 2,
    Client = 3,
}

/// One finished piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: [u8; 16],
    pub id: [u8; 8],
    /// All zeros: a trace begins here.
    pub parent: [u8; 8],
    /// The parent is in another process.
    pub remote: bool,
    /// W3C `tracestate`.
    pub state: String,
    /// W3C trace flags.
    pub flags: u8,
    pub name: String,
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed; empty: it did not.
    pub error: Option<String>,
}

/// As many wait at most; none if nobody takes them.
static MOST: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static EXPORTED: AtomicU64 = AtomicU64::new(0);
static SPANS: Mutex<VecDeque<Span>> = Mutex::new(VecDeque::new());

/// From now on up to `most` spans wait for the exporter.
pub(crate) fn keep_spans(most: usize) {
    MOST.store(most, Ordering::Relaxed);
}

/// Whether anybody takes spans; without, making one is wasted work.
pub fn wanted() -> bool {
    MOST.load(Ordering::Relaxed) > 0
}

/// Hands spans over, all or, if there is no room, as many as fit.
pub fn keep(spans: impl IntoIterator<Item = Span>) {
    if !wanted() {
        return;
    }
    let most = MOST.load(Ordering::Relaxed);
    let mut kept = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    for span in spans {
        if kept.len() < most {
            kept.push_back(span);
        } else {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The oldest that wait, at most `most`.
pub(crate) fn take(most: usize) -> Vec<Span> {
    let mut kept = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = kept.len().min(most);
    kept.drain(..count).collect()
}

pub(crate) fn waiting() -> usize {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// An export of `count` spans has ended.
pub(crate) fn count(count: usize, good: bool) {
    let counter = if good { &EXPORTED } else { &DROPPED };
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Spans the collector has taken.
pub fn exported() -> u64 {
    EXPORTED.load(Ordering::Relaxed)
}

/// Spans given up: the queue was full, or the collector did not take them.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}
