//! One thread per sink: take, deliver, acknowledge; try again without end.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::queue::{Consumer, Queue};
use crate::sink::{Failure, Sink};

/// Of the first request, and how long it waits for more; each after it doubles both.
const FIRST: usize = 64 << 10;
const FIRST_LINGER: Duration = Duration::from_millis(5);

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
        // Small at first: what is under way when a crash comes is delivered again, and who crashes often begins often.
        let mut pace =
            Pace { bytes: FIRST.min(self.pace.bytes), linger: FIRST_LINGER.min(self.pace.linger), ..self.pace };
        while let Some(batches) = consumer.take(pace.bytes, pace.linger) {
            if !self.deliver(&mut consumer, &batches, &mut backoff) {
                return;
            }
            pace.bytes = (pace.bytes * 2).min(self.pace.bytes);
            pace.linger = (pace.linger * 2).min(self.pace.linger);
        }
    }

    /// `false` when the queue was closed before the receiver took everything.
    fn deliver(&mut self, consumer: &mut Consumer, batches: &[Arc<Batch>], backoff: &mut Backoff) -> bool {
        // Stages may have dropped every record of a stretch; its position moves all the same.
        if batches.iter().all(|batch| batch.count == 0) {
            self.finish(consumer, batches);
            return true;
        }
        let mut left = Cow::Borrowed(batches);
        loop {
            self.status.requests.fetch_add(1, Ordering::Relaxed);
            let pause = match self.sink.deliver(&left) {
                Ok(()) => {
                    backoff.reset();
                    if let Some(time) = self.status.recovered() {
                        (self.report)(Event::Recovered(time));
                    }
                    self.finish(consumer, batches);
                    return true;
                }
                Err(Failure::TooLarge(_)) if left.len() > 1 && left.len() == batches.len() => {
                    let (a, b) = batches.split_at(batches.len() / 2);
                    return self.deliver(consumer, a, backoff) && self.deliver(consumer, b, backoff);
                }
                Err(Failure::Refused(reason) | Failure::TooLarge(reason)) => {
                    if self.bury(&left, &reason) {
                        self.finish(consumer, batches);
                        return true;
                    }
                    None
                }
                Err(Failure::Items { mut again, refused, reason }) => {
                    let buried = !refused.is_empty() && self.bury(&only(&left, &refused), &reason);
                    if !buried {
                        again.extend(refused);
                    }
                    if again.is_empty() {
                        self.finish(consumer, batches);
                        return true;
                    }
                    if !buried {
                        self.note(reason);
                    }
                    left = Cow::Owned(only(&left, &again));
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

    /// Puts records where they can be looked at; `false` if there is no such place or it is full.
    fn bury(&mut self, batches: &[Arc<Batch>], reason: &str) -> bool {
        match self.dead_letters.as_mut().map(|bury| bury(batches, reason)) {
            Some(Ok(())) => {
                let count = batches.iter().map(|batch| u64::from(batch.count)).sum();
                self.status.dead.fetch_add(count, Ordering::Relaxed);
                (self.report)(Event::Dead(count, reason.to_owned()));
                true
            }
            Some(Err(error)) => {
                self.note(format!("failed to write dead letters: {error}"));
                false
            }
            None => {
                self.note(reason.to_owned());
                false
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

/// The records with these numbers, counted over all batches.
fn only(batches: &[Arc<Batch>], numbers: &[usize]) -> Vec<Arc<Batch>> {
    let wanted: std::collections::HashSet<usize> = numbers.iter().copied().collect();
    let mut number = 0;
    let mut left = Vec::new();
    for batch in batches {
        let mut part = batch.clone_head();
        for record in batch.records() {
            if wanted.contains(&number) {
                part.push(&record);
            }
            number += 1;
        }
        if part.count > 0 {
            left.push(Arc::new(part));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::batch::Record;
    use crate::queue::{Limits, Positions};

    /// Answers as told, and writes down what it got.
    struct Picky {
        answers: VecDeque<Result<(), Failure>>,
        seen: Arc<Mutex<Vec<Vec<String>>>>,
    }

    fn bodies(batches: &[Arc<Batch>]) -> Vec<String> {
        let records = batches.iter().flat_map(|batch| batch.records());
        records.map(|record| String::from_utf8_lossy(record.body).into_owned()).collect()
    }

    impl Sink for Picky {
        fn deliver(&mut self, batches: &[Arc<Batch>]) -> Result<(), Failure> {
            self.seen.lock().unwrap().push(bodies(batches));
            self.answers.pop_front().unwrap_or(Ok(()))
        }
    }

    #[test]
    fn single_records_are_tried_again_or_buried() {
        let limits = Limits { memory: 1 << 20, spool: 0 };
        let (queue, _) = Queue::open(limits, 1, None, false, Positions::new()).unwrap();
        for number in 0..2 {
            let mut batch = Batch::new(Arc::default(), number * 10);
            for letter in ["a", "b"] {
                let body = format!("{letter}{number}");
                let (flags, severity) = (Default::default(), Default::default());
                batch.push(&Record { time: 0, flags, severity, body: body.as_bytes(), fields: b"" });
            }
            batch.end = number * 10 + 10;
            queue.push(batch).unwrap();
        }
        let items = |again: &[usize], refused: &[usize]| {
            Err(Failure::Items { again: again.to_vec(), refused: refused.to_vec(), reason: "no".to_owned() })
        };
        let seen = Arc::<Mutex<Vec<Vec<String>>>>::default();
        let answers = VecDeque::from([items(&[1, 3], &[2]), items(&[], &[0])]);
        let sink = Box::new(Picky { answers, seen: Arc::clone(&seen) });
        let buried = Arc::<Mutex<Vec<String>>>::default();
        let graves = Arc::clone(&buried);
        let status = Arc::<Status>::default();
        let delivery = Delivery {
            sink,
            pace: Pace { bytes: 1 << 20, linger: Duration::ZERO, retry_ceiling: Duration::from_millis(10) },
            status: Arc::clone(&status),
            dead_letters: Some(Box::new(move |batches, _| {
                graves.lock().unwrap().extend(bodies(batches));
                Ok(())
            })),
            report: Box::new(|_| {}),
        };
        let thread = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || delivery.run(&queue, 0)
        });
        assert!(queue.wait_until_empty(Duration::from_secs(30)));
        queue.close();
        thread.join().unwrap();
        assert_eq!(*seen.lock().unwrap(), [vec!["a0", "b0", "a1", "b1"], vec!["b0", "b1"]]);
        assert_eq!(*buried.lock().unwrap(), ["a1", "b0"]);
        assert_eq!((status.dead.load(Ordering::Relaxed), status.records.load(Ordering::Relaxed)), (2, 4));
    }
}
