//! The latency ledger: where the time of one request went. The phases follow one another without gaps, so that they add
//! up to the whole.

use std::fmt::Write as _;

use crate::count::Histogram;

pub const PHASES: usize = 12;

/// In the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the connection's acceptance to the request's first byte; only of a connection's first request.
    Accept,
    /// The TLS handshake with the client; only of a connection's first request.
    Tls,
    /// Ready, but behind others in this worker's loop.
    Queue,
    /// From the first byte of the head to its last, and reading it.
    Parse,
    /// Finding the route, its filters, writing the new head.
    Route,
    /// Waiting for a place at the backend, and choosing an endpoint.
    Pool,
    /// Connecting; nothing for a pooled connection.
    Connect,
    /// The TLS handshake with the backend.
    TlsOut,
    /// Writing the request, and waiting for its body.
    Send,
    /// From the request's last byte to the answer's first: the application.
    App,
    /// From the answer's first byte to its last.
    Body,
    /// Until the client's socket has taken the last byte.
    Write,
}

pub const NAMES: [&str; PHASES] =
    ["accept", "tls", "queue", "parse", "route", "pool", "connect", "tls_out", "send", "app", "body", "write"];

/// Nanoseconds spent in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub spent: [u64; PHASES],
    /// The end of the last phase noted.
    at: u64,
}

impl Ledger {
    pub fn begin(at: u64) -> Ledger {
        Ledger { spent: [0; PHASES], at }
    }

    /// What passed since the last note was `phase`.
    pub fn note(&mut self, phase: Phase, now: u64) {
        self.spent[phase as usize] += now.saturating_sub(self.at);
        self.at = now;
    }

    pub fn total(&self) -> u64 {
        self.spent.iter().sum()
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    /// `Server-Timing` (W3C): phases that took any time, in milliseconds.
    pub fn server_timing(&self, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(160);
        for (name, spent) in NAMES.iter().zip(self.spent).filter(|(_, spent)| *spent > 0) {
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{name};dur={}.{:03}", spent / 1_000_000, spent / 1000 % 1000);
        }
        out.extend_from_slice(b"Server-Timing: ");
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// How long each phase takes, over all requests of a worker.
#[derive(Debug, Default)]
pub struct Phases {
    pub histograms: [Histogram; PHASES],
}

impl Phases {
    pub fn add(&self, ledger: &Ledger) {
        for (histogram, spent) in self.histograms.iter().zip(ledger.spent) {
            // A phase that did not happen is not one that took no time.
            if spent > 0 {
                histogram.add(spent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up() {
        let mut ledger = Ledger::begin(1000);
        ledger.note(Phase::Parse, 3000);
        ledger.note(Phase::App, 2_003_000);
        ledger.note(Phase::App, 2_004_000);
        assert_eq!((ledger.total(), ledger.spent[Phase::App as usize]), (2_003_000, 2_001_000));
        let mut out = Vec::new();
        ledger.server_timing(&mut out);
        assert_eq!(out, b"Server-Timing: parse;dur=0.002, app;dur=2.001\r\n");
    }
}
