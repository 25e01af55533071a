//! One thread per sink: take, deliver, acknowledge; try again without end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::queue::{Consumer, Queue};
use crate::sink::{Failure, Sink};

/// How much at once, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Bytes of records in one request, about.
    pub bytes: usize,
    /// How long a request that is not full waits for more.
    pub linger: Duration,
    /// The longest pause between two tries.
    pub retry_ceiling: Duration,
}

/// What a sink has done so far; read by whoever asks.
#[derive(Debug, Default)]
pub struct Status {
    pub records: AtomicU64,
    pub source_bytes: AtomicU64,
    pub requests: AtomicU64,
    pub retries: AtomicU64,
    /// Records that went to the dead-letter file because the receiver will never take them.
    pub dead: AtomicU64,
    failing: Mutex<Option<(Instant, String)>>,
}

impl Status {
    /// Since when and why deliveries fail.
    pub fn failing(&self) -> Option<(Duration, String)> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().map(|(since, reason)| (since.elapsed(), reason.clone()))
    }

    /// `true` when this is news.
    fn failed(&self, reason: String) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failing.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        let news = failing.as_ref().is_none_or(|(_, before)| *before != reason);
        *failing = Some((since, reason));
        news
    }

    fn recovered(&self) -> Option<Duration> {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.take().map(|(since, _)| since.elapsed())
    }
}

/// Told to whoever writes the log.
#[derive(Debug)]
pub enum Event {
    Failed(String),
    Recovered(Duration),
    /// So many records were refused for good.
    Dead(u64, String),
}

/// Where records go that a receiver will never take.
pub type DeadLetters = Box<dyn FnMut(&[Arc<Batch>], &str) -> std::io::Result<()> + Send>;

/// The parts of one delivery thread.
pub struct Delivery {
    pub sink: Box<dyn Sink>,
    pub pace: Pace,
    pub status: Arc<Status>,
    pub dead_letters: Option<DeadLetters>,
    pub report: Box<dyn FnMut(Event) + Send>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Delivery {
    /// Runs until the queue is closed.
    pub fn run(mut self, queue: &Arc<Queue>, sink: usize) {
        let mut consumer = queue.consumer(sink);
        let mut backoff = Backoff::new(self.pace.retry_ceiling, 0x9e37_79b9 + sink as u64);
        while let Some(batches) = consumer.take(self.pace.bytes, self.pace.linger) {
            if !self.deliver(&mut consumer, &batches, &mut backoff) {
                return;
            }
        }
    }

    /// `false` when the queue was closed before the receiver took everything.
    fn deliver(&mut self, consumer: &mut Consumer, batches: &[Arc<Batch>], backoff: &mut Backoff) -> bool {
        // Stages may have dropped every record of a stretch; its position moves all the same.
        if batches.iter().all(|batch| batch.count == 0) {
            self.finish(consumer, batches);
            return true;
        }
        loop {
            self.status.requests.fetch_add(1, Ordering::Relaxed);
            let pause = match self.sink.deliver(batches) {
                Ok(()) => {
                    backoff.reset();
                    if let Some(time) = self.status.recovered() {
                        (self.report)(Event::Recovered(time));
                    }
                    self.finish(consumer, batches);
                    return true;
                }
                Err(Failure::TooLarge(_)) if batches.len() > 1 => {
                    let (a, b) = batches.split_at(batches.len() / 2);
                    return self.deliver(consumer, a, backoff) && self.deliver(consumer, b, backoff);
                }
                Err(Failure::Refused(reason) | Failure::TooLarge(reason)) => {
                    match self.dead_letters.as_mut().map(|bury| bury(batches, &reason)) {
                        Some(Ok(())) => {
                            let count = batches.iter().map(|batch| u64::from(batch.count)).sum();
                            self.status.dead.fetch_add(count, Ordering::Relaxed);
                            (self.report)(Event::Dead(count, reason));
                            self.finish(consumer, batches);
                            return true;
                        }
                        Some(Err(error)) => self.note(format!("failed to write dead letters: {error}")),
                        None => self.note(reason),
                    }
                    None
                }
                Err(Failure::Retry(reason, after)) => {
                    self.note(reason);
                    after
                }
            };
            self.status.retries.fetch_add(1, Ordering::Relaxed);
            let own = backoff.pause();
            if !consumer.sleep(pause.map_or(own, |pause| pause.min(self.pace.retry_ceiling).max(own))) {
                return false;
            }
        }
    }

    fn note(&mut self, reason: String) {
        if self.status.failed(reason.clone()) {
            (self.report)(Event::Failed(reason));
        }
    }

    fn finish(&mut self, consumer: &mut Consumer, batches: &[Arc<Batch>]) {
        for batch in batches {
            self.status.records.fetch_add(u64::from(batch.count), Ordering::Relaxed);
            self.status.source_bytes.fetch_add(batch.end - batch.start, Ordering::Relaxed);
        }
        consumer.acknowledge(batches);
    }
}
