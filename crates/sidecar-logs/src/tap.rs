//! Showing records live, to whoever asks at the Unix socket. Nobody waits for them: who is too slow misses some, and is
//! told.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use record::Batch;
use record::encode::{Encoder, Encoding};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Records waiting for one listener.
const ROOM: usize = 256;
/// Listeners at a time.
const LISTENERS: usize = 8;

/// Where records are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Framed and parsed, before the first stage.
    Parsed,
    /// After the last stage, as sinks get them.
    Staged,
}

impl Point {
    pub fn parse(text: &str) -> Option<Point> {
        match text {
            "parsed" => Some(Point::Parsed),
            "staged" => Some(Point::Staged),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Tap {
    /// Looked at before anything else, because there is nearly never anybody.
    count: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    point: Point,
    sender: Sender<Bytes>,
    missed: AtomicU64,
}

impl Tap {
    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records at `point` from now on, one JSON object per line; `None` when there are too many listeners.
    pub fn listen(&self, point: Point) -> Option<Receiver<Bytes>> {
        let mut listeners = self.lock();
        listeners.retain(|listener| !listener.sender.is_closed());
        if listeners.len() >= LISTENERS {
            return None;
        }
        let (sender, receiver) = mpsc::channel(ROOM);
        listeners.push(Listener { point, sender, missed: AtomicU64::new(0) });
        self.count.store(listeners.len(), Ordering::Release);
        Some(receiver)
    }

    pub fn show(&self, point: Point, batch: &Batch) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut listeners = self.lock();
        if listeners.iter().any(|listener| listener.point == point) {
            let mut encoder = Encoder::new(Encoding::NdJson);
            for record in batch.records() {
                let mut line = Vec::new();
                encoder.object(&mut line, &record, &batch.origin.fields);
                line.push(b'\n');
                let line = Bytes::from(line);
                for listener in listeners.iter().filter(|listener| listener.point == point) {
                    listener.send(&line);
                }
            }
        }
        listeners.retain(|listener| !listener.sender.is_closed());
        self.count.store(listeners.len(), Ordering::Release);
    }
}

impl Listener {
    fn send(&self, line: &Bytes) {
        let missed = self.missed.load(Ordering::Relaxed);
        if missed > 0 {
            let notice = Bytes::from(format!("{{\"missed\":{missed}}}\n"));
            if self.sender.try_send(notice).is_ok() {
                self.missed.store(0, Ordering::Relaxed);
            }
        }
        if let Err(TrySendError::Full(_)) = self.sender.try_send(line.clone()) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}
