//! One thread per sink: take, deliver, acknowledge; try again without end.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::batch::{Batch, filtered};
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
        // What comes behind it, the next part last.
        let mut later: Vec<Vec<Arc<Batch>>> = Vec::new();
        loop {
            self.status.requests.fetch_add(1, Ordering::Relaxed);
            let outcome = self.sink.deliver(&left);
            if let Err(Failure::TooLarge(_)) = outcome {
                if matches!(left, Cow::Borrowed(_)) && batches.len() > 1 {
                    // Each half is acknowledged as soon as it is taken.
                    let (a, b) = batches.split_at(batches.len() / 2);
                    return self.deliver(consumer, a, backoff) && self.deliver(consumer, b, backoff);
                }
                if let Some([first, second]) = halves(&left) {
                    later.push(second);
                    left = Cow::Owned(first);
                    continue;
                }
            }
            let (done, pause) = match outcome {
                Ok(()) => (true, None),
                Err(Failure::Refused(reason) | Failure::TooLarge(reason)) => (self.bury(&left, &reason), None),
                Err(Failure::Items { mut again, refused, reason }) => {
                    if refused.is_empty() {
                        self.note(reason);
                    } else if !self.bury(&only(&left, &refused), &reason) {
                        again.extend(refused);
                    }
                    if !again.is_empty() {
                        left = Cow::Owned(only(&left, &again));
                    }
                    (again.is_empty(), None)
                }
                Err(Failure::Retry(reason, after)) => {
                    self.note(reason);
                    (false, after)
                }
            };
            if done {
                backoff.reset();
                if let Some(time) = self.status.recovered() {
                    (self.report)(Event::Recovered(time));
                }
                let Some(next) = later.pop() else {
                    self.finish(consumer, batches);
                    return true;
                };
                left = Cow::Owned(next);
                continue;
            }
            self.status.retries.fetch_add(1, Ordering::Relaxed);
            let own = backoff.pause();
            if !consumer.sleep(pause.map_or(own, |pause| pause.min(self.pace.retry_ceiling).max(own))) {
                return false;
            }
        }
    }

    /// Puts records where they can be looked at; `false` if there is no such place or it is full, which is noted.
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
    let wanted: HashSet<usize> = numbers.iter().copied().collect();
    filtered(batches, |number, _| wanted.contains(&number))
}

/// Half of the batches each, or half of the records of the only one; `None` if there is but one record.
fn halves(batches: &[Arc<Batch>]) -> Option<[Vec<Arc<Batch>>; 2]> {
    if batches.len() > 1 {
        let (first, second) = batches.split_at(batches.len() / 2);
        return Some([first.to_vec(), second.to_vec()]);
    }
    let middle = batches.first()?.count as usize / 2;
    let part = |second: bool| filtered(batches, |number, _| (number >= middle) == second);
    (middle > 0).then(|| [part(false), part(true)])
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

    /// What the sink saw, what was buried, and what was said.
    struct Outcome {
        seen: Vec<Vec<String>>,
        buried: Vec<String>,
        said: Vec<String>,
        status: Arc<Status>,
    }

    /// Of two batches of two records each, for a sink that answers so and dead letters that fail so often.
    fn outcome(answers: Vec<Result<(), Failure>>, graves_refuse: usize) -> Outcome {
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
        let seen = Arc::<Mutex<Vec<Vec<String>>>>::default();
        let sink = Box::new(Picky { answers: answers.into(), seen: Arc::clone(&seen) });
        let (buried, said) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (graves, words) = (Arc::clone(&buried), Arc::clone(&said));
        let (status, mut refusals) = (Arc::<Status>::default(), graves_refuse);
        let delivery = Delivery {
            sink,
            pace: Pace { bytes: 1 << 20, linger: Duration::ZERO, retry_ceiling: Duration::from_millis(10) },
            status: Arc::clone(&status),
            dead_letters: Some(Box::new(move |batches, _| {
                if refusals > 0 {
                    refusals -= 1;
                    return Err(std::io::Error::other("full"));
                }
                graves.lock().unwrap().extend(bodies(batches));
                Ok(())
            })),
            report: Box::new(move |event| match event {
                Event::Failed(reason) => words.lock().unwrap().push(reason),
                Event::Recovered(_) => words.lock().unwrap().push("recovered".to_owned()),
                Event::Dead(..) => {}
            }),
        };
        let thread = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || delivery.run(&queue, 0)
        });
        assert!(queue.wait_until_empty(Duration::from_secs(30)));
        queue.close();
        thread.join().unwrap();
        let inner = |shared: Arc<Mutex<Vec<String>>>| std::mem::take(&mut *shared.lock().unwrap());
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        Outcome { seen, buried: inner(buried), said: inner(said), status }
    }

    fn items(again: &[usize], refused: &[usize]) -> Result<(), Failure> {
        Err(Failure::Items { again: again.to_vec(), refused: refused.to_vec(), reason: "no".to_owned() })
    }

    fn too_large() -> Result<(), Failure> {
        Err(Failure::TooLarge("large".to_owned()))
    }

    #[test]
    fn single_records_are_tried_again_or_buried() {
        let outcome = outcome(vec![items(&[1, 3], &[2]), items(&[], &[0])], 0);
        assert_eq!(outcome.seen, [vec!["a0", "b0", "a1", "b1"], vec!["b0", "b1"]]);
        assert_eq!(outcome.buried, ["a1", "b0"]);
        let status = outcome.status;
        assert_eq!((status.dead.load(Ordering::Relaxed), status.records.load(Ordering::Relaxed)), (2, 4));
    }

    #[test]
    fn what_was_taken_is_not_sent_again_in_smaller_requests() {
        let outcome = outcome(vec![items(&[1, 2], &[3]), too_large()], 0);
        assert_eq!(outcome.seen, [vec!["a0", "b0", "a1", "b1"], vec!["b0", "a1"], vec!["b0"], vec!["a1"]]);
        assert_eq!(outcome.buried, ["b1"]);
    }

    #[test]
    fn one_record_that_is_too_large_takes_no_others_along() {
        let outcome = outcome(vec![too_large(), too_large(), Ok(()), too_large()], 0);
        let expected = [vec!["a0", "b0", "a1", "b1"], vec!["a0", "b0"], vec!["a0"], vec!["b0"], vec!["a1", "b1"]];
        assert_eq!(outcome.seen, expected);
        assert_eq!(outcome.buried, ["b0"]);
    }

    #[test]
    fn a_grave_that_refuses_is_spoken_of_once() {
        let outcome = outcome(vec![items(&[], &[0]), items(&[], &[0]), items(&[], &[0])], 2);
        assert_eq!(outcome.buried, ["a0"]);
        assert_eq!(outcome.said, ["failed to write dead letters: full", "recovered"]);
        assert!(outcome.status.failing().is_none());
    }
}
