//! Between sources and sinks: one order for all, a position for each sink.
//!
//! ```text
//!            ┌ direct ────────────────┐   memory full, a source in danger,      ┌ spooling ─────────────────┐
//! push ────▶ │ batches in memory      │ ── or the end: everything unacknowledged ▶│ every new batch on disk   │
//!            └────────────────────────┘ ◀── every sink has acknowledged all ──── └───────────────────────────┘
//! ```
//! *Direct* costs no disk at all: a source that is a file is its own spool, and its saved position stays behind what is in
//! memory. On the way to *spooling* everything unacknowledged is written oldest first, so that after a crash the spool
//! continues exactly where the saved positions end.
//!
//! A receiver that is merely slower than the source is waited for: files need no second copy. Only one that stands still
//! ([`STALL`]), or a source that is urgent, fills the spool.
//!
//! Nothing is dropped when neither memory nor disk has room: [`Queue::wait_for_room`] says no and sources wait.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::batch::{Batch, Origin};
use crate::spool::{Reader, Spool};

/// Without an acknowledgement for this long, the slowest sink stands still.
pub const STALL: Duration = Duration::from_secs(1);
/// Between two tries to read a spool that cannot be read.
const UNREADABLE: Duration = Duration::from_secs(1);
/// Batches in the spool that a working sink may be behind.
const BEHIND: u64 = 16;

/// A place in an origin, and how the source recognises it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub end: u64,
    pub mark: u64,
}

/// How far an origin's bytes have come; by sink, in the order of [`Queue::open`].
pub type Positions = HashMap<u64, Vec<Position>>;

/// What the spool held when it was opened: by origin, who it is and up to where it can be delivered from the spool.
pub type Recovered = HashMap<u64, (Arc<Origin>, Position)>;

#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Something was pushed, acknowledged or closed.
    changed: Condvar,
    limits: Limits,
    bell: Bell,
}

/// Rung when every sink has acknowledged more than before.
#[derive(Default)]
struct Bell(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bell")
    }
}

/// Bytes allowed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub memory: usize,
    pub spool: u64,
}

#[derive(Debug)]
struct State {
    next_sequence: u64,
    memory: VecDeque<Arc<Batch>>,
    memory_bytes: usize,
    spool: Option<Spool>,
    spooling: bool,
    /// The source cannot be read again, so nothing may be in memory only.
    always_spool: bool,
    sinks: Vec<SinkState>,
    positions: Positions,
    /// The last sequence number of each origin.
    latest: HashMap<u64, u64>,
    spool_error: Option<String>,
    closed: bool,
    draining: bool,
    /// When something was last freed, or began to wait.
    progress: Instant,
    progress_mark: u64,
}

#[derive(Debug)]
struct SinkState {
    /// The first sequence number not taken yet.
    next: u64,
    /// Everything through this one is acknowledged.
    acknowledged: u64,
}

/// How full it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    pub memory_bytes: u64,
    pub spool_bytes: u64,
    pub spooling: bool,
    /// Batches not acknowledged by every sink.
    pub waiting: u64,
    pub spool_error: Option<String>,
}

/// Positions to be saved, and what may be forgotten once they are.
#[derive(Debug)]
pub struct Snapshot {
    pub positions: Positions,
    /// Everything through this number is acknowledged by every sink.
    pub through: u64,
}

impl Queue {
    /// `positions` are the saved ones. With a directory there is a spool in it, whose batches are queued again for the
    /// sinks that had not acknowledged them.
    pub fn open(
        limits: Limits,
        sinks: usize,
        directory: Option<&Path>,
        always_spool: bool,
        mut positions: Positions,
    ) -> io::Result<(Arc<Queue>, Recovered)> {
        let mut recovered = Recovered::new();
        let (mut first, mut latest) = (None, HashMap::new());
        let visit = |batch: Batch| {
            first.get_or_insert(batch.sequence);
            latest.insert(batch.origin.id, batch.sequence);
            let begin = Position { end: batch.start, mark: 0 };
            let saved = positions.entry(batch.origin.id).or_insert_with(|| vec![begin; sinks]);
            let least = saved.iter().min().copied().unwrap_or(begin);
            let (origin, upto) = recovered.entry(batch.origin.id).or_insert((Arc::clone(&batch.origin), least));
            *origin = Arc::clone(&batch.origin);
            // A gap means damage; what follows it is delivered from here and once more from the source.
            if batch.start <= upto.end && batch.end > upto.end {
                *upto = Position { end: batch.end, mark: batch.mark };
            }
        };
        let segment_bytes = (limits.spool / 8).clamp(1 << 20, 16 << 20);
        let spool = directory.map(|directory| Spool::open(directory, segment_bytes, visit)).transpose()?;
        let last = spool.as_ref().and_then(Spool::last);
        let start = first.unwrap_or(1);
        let state = State {
            next_sequence: last.map_or(start, |last| last + 1),
            memory: VecDeque::new(),
            memory_bytes: 0,
            spooling: last.is_some() || (always_spool && spool.is_some()),
            spool,
            always_spool,
            sinks: (0..sinks).map(|_| SinkState { next: start, acknowledged: start - 1 }).collect(),
            positions,
            latest,
            spool_error: None,
            closed: false,
            draining: false,
            progress: Instant::now(),
            progress_mark: start - 1,
        };
        let queue = Queue { state: Mutex::new(state), changed: Condvar::new(), limits, bell: Bell::default() };
        Ok((Arc::new(queue), recovered))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state whole: every change is finished before the lock is given back.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Calls `bell`, from the sinks' threads, when there is more to be saved. Only the first one counts.
    pub fn on_progress(&self, bell: impl Fn() + Send + Sync + 'static) {
        let _ = self.bell.0.set(Box::new(bell));
    }

    /// A new origin begins: every sink has everything before `start`.
    pub fn register(&self, origin: u64, start: Position) {
        let mut state = self.lock();
        let sinks = state.sinks.len();
        state.positions.entry(origin).or_insert_with(|| vec![start; sinks]);
    }

    /// An origin is over and acknowledged; its position need not be saved any longer.
    pub fn forget(&self, origin: u64) {
        let mut state = self.lock();
        state.positions.remove(&origin);
        state.latest.remove(&origin);
    }

    /// Whether the spool may still hold batches of an origin, delivered or not: after a crash it takes the origin's
    /// position to know.
    pub fn is_spooled(&self, origin: u64) -> bool {
        let state = self.lock();
        let first = state.spool.as_ref().and_then(Spool::first);
        first.is_some_and(|first| state.latest.get(&origin).is_some_and(|latest| *latest >= first))
    }

    /// Where the slowest sink is; `None` for an unknown origin.
    pub fn acknowledged(&self, origin: u64) -> Option<Position> {
        self.lock().positions.get(&origin).and_then(|ends| ends.iter().min().copied())
    }

    /// Whether a batch may be pushed now, after waiting at most so long. What is `urgent` does not wait for a slow sink: its
    /// source is about to vanish. Free room in the spool is made by acknowledging;
    /// a full disk is tried again by the next push.
    pub fn wait_for_room(&self, patience: Duration, urgent: bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if state.has_room(&self.limits, urgent) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, left);
        }
    }

    /// Lets others change something; returns when they did, or after so long.
    pub fn pause(&self, patience: Duration) {
        drop(self.wait(self.lock(), patience));
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, time) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// Queues a batch; gives it back when there is no room (the disk is full).
    pub fn push(&self, mut batch: Batch) -> Result<(), Batch> {
        let mut state = self.lock();
        batch.sequence = state.next_sequence;
        let origin = batch.origin.id;
        if state.acknowledged() + 1 == state.next_sequence {
            // Nothing was waiting: standing still begins now.
            state.progress = Instant::now();
        }
        if !state.spooling && state.memory_bytes >= self.limits.memory {
            state.begin_spooling();
        }
        if state.spooling {
            if state.spool_bytes() >= self.limits.spool {
                return Err(batch);
            }
            if let Err(error) = state.spool.as_mut().map_or(Ok(()), |spool| spool.append(&batch)) {
                state.spool_error = Some(error.to_string());
                return Err(batch);
            }
            state.spool_error = None;
        } else {
            // Beyond the budget only when the spool failed; one batch, then `has_room` says no.
            state.memory_bytes += batch.weight();
            state.memory.push_back(Arc::new(batch));
        }
        let sequence = state.next_sequence;
        state.latest.insert(origin, sequence);
        state.next_sequence += 1;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Puts everything unacknowledged on disk and goes on spooling: a source is about to vanish, or this is the end.
    /// Without a spool nothing happens.
    pub fn spill(&self) -> bool {
        let mut state = self.lock();
        state.spooling || state.begin_spooling()
    }

    /// Makes the spool durable; does not hold up pushing.
    pub fn sync(&self) -> io::Result<()> {
        let Some(unsynced) = self.lock().spool.as_ref().and_then(Spool::unsynced) else { return Ok(()) };
        unsynced.sync()?;
        if let Some(spool) = &mut self.lock().spool {
            spool.synced(&unsynced);
        }
        Ok(())
    }

    /// Everything through this number is acknowledged by every sink.
    pub fn acknowledged_through(&self) -> u64 {
        self.lock().acknowledged()
    }

    /// What is to be saved now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot { positions: state.positions.clone(), through: state.acknowledged() }
    }

    /// The snapshot is durable: what it covers can go.
    pub fn saved(&self, snapshot: &Snapshot) -> io::Result<()> {
        let mut state = self.lock();
        let before = state.spool_bytes();
        let removed = state.spool.as_mut().map_or(Ok(()), |spool| spool.remove_through(snapshot.through));
        if state.spool_bytes() < before {
            // There is room again; the next entry tells whether that is enough.
            state.spool_error = None;
        }
        drop(state);
        self.changed.notify_all();
        removed
    }

    /// No more lingering for larger requests.
    pub fn drain(&self) {
        self.lock().draining = true;
        self.changed.notify_all();
    }

    /// Consumers get nothing more, and return.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Everything pushed has been acknowledged by every sink. Waits at most so long.
    pub fn wait_until_empty(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.acknowledged() + 1 < state.next_sequence {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.wait(state, left);
        }
        true
    }

    pub fn depth(&self) -> Depth {
        let state = self.lock();
        Depth {
            memory_bytes: state.memory_bytes as u64,
            spool_bytes: state.spool_bytes(),
            spooling: state.spooling,
            waiting: state.next_sequence - 1 - state.acknowledged(),
            spool_error: state.spool_error.clone(),
        }
    }

    /// The sink's end of the queue.
    pub fn consumer(self: &Arc<Queue>, sink: usize) -> Consumer {
        Consumer { queue: Arc::clone(self), sink, reader: None }
    }
}

impl State {
    /// The last sequence number that every sink has acknowledged.
    fn acknowledged(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.acknowledged).min().unwrap_or(self.next_sequence - 1)
    }

    fn spool_bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    fn has_room(&self, limits: &Limits, urgent: bool) -> bool {
        let stalled = urgent || self.progress.elapsed() >= STALL;
        match (self.spooling, &self.spool) {
            (true, _) => {
                let behind = self.next_sequence - 1 - self.acknowledged();
                self.spool_bytes() < limits.spool && (stalled || self.always_spool || behind < BEHIND)
            }
            (false, Some(_)) if self.spool_error.is_none() && stalled => true,
            (false, _) => self.memory_bytes < limits.memory,
        }
    }

    fn begin_spooling(&mut self) -> bool {
        let Some(spool) = &mut self.spool else { return false };
        for (index, batch) in self.memory.iter().enumerate() {
            if let Err(error) = spool.append(batch) {
                self.spool_error = Some(error.to_string());
                // What was written is on disk and in order; the rest stays in memory and is tried again.
                for batch in self.memory.drain(..index) {
                    self.memory_bytes -= batch.weight();
                }
                return false;
            }
        }
        self.spool_error = None;
        self.memory.clear();
        self.memory_bytes = 0;
        self.spooling = true;
        true
    }

    fn acknowledge(&mut self, sink: usize, batches: &[Arc<Batch>]) {
        for batch in batches {
            if let Some(end) = self.positions.get_mut(&batch.origin.id).and_then(|ends| ends.get_mut(sink)) {
                *end = Position { end: batch.end, mark: batch.mark }.max(*end);
            }
            self.sinks[sink].acknowledged = self.sinks[sink].acknowledged.max(batch.sequence);
        }
        let before = self.progress_mark;
        let through = self.acknowledged();
        if through > before {
            (self.progress, self.progress_mark) = (Instant::now(), through);
        }
        while let Some(batch) = self.memory.pop_front_if(|batch| batch.sequence <= through) {
            self.memory_bytes -= batch.weight();
        }
        if through + 1 == self.next_sequence {
            // Nothing waits for the spool; the next entry tells how it is.
            self.spool_error = None;
            self.spooling &= self.always_spool;
        }
    }
}

/// Takes batches in order for one sink and acknowledges them.
#[derive(Debug)]
pub struct Consumer {
    queue: Arc<Queue>,
    sink: usize,
    /// The segment being read, by the number of its first entry.
    reader: Option<(u64, Reader)>,
}

enum Place {
    Memory(Arc<Batch>),
    Segment(u64, io::Result<Option<Reader>>),
    Nowhere,
}

impl Consumer {
    /// Up to about `bytes` of batches, at least one; waits for the first, and `linger` for more. `None` once the queue is
    /// closed.
    pub fn take(&mut self, bytes: usize, linger: Duration) -> Option<Vec<Arc<Batch>>> {
        let mut taken: Vec<Arc<Batch>> = Vec::new();
        let mut weight = 0;
        let mut deadline = None;
        loop {
            let next = taken.last().map(|batch| batch.sequence + 1);
            let (place, closed, draining) = self.find(next);
            if closed {
                return None;
            }
            let batch = match place {
                Place::Memory(batch) => Some(batch),
                Place::Segment(first, reader) => self.read(first, reader, next),
                Place::Nowhere => None,
            };
            if let Some(batch) = batch {
                if self.is_acknowledged(&batch) {
                    // Before a restart this sink had it already.
                    if taken.is_empty() {
                        self.acknowledge(&[batch]);
                        continue;
                    }
                    break;
                }
                weight += batch.frames.len();
                taken.push(batch);
                if weight >= bytes {
                    break;
                }
                continue;
            }
            let now = Instant::now();
            let until = *deadline.get_or_insert(now + linger);
            if !taken.is_empty() && (draining || now >= until) {
                break;
            }
            let patience = if taken.is_empty() { Duration::from_secs(1) } else { until - now };
            self.pause(next, patience);
            if taken.is_empty() {
                deadline = None;
            }
        }
        self.advance(&taken);
        Some(taken)
    }

    /// Every record of these has reached the sink.
    pub fn acknowledge(&mut self, batches: &[Arc<Batch>]) {
        self.advance(batches);
        let mut state = self.queue.lock();
        let before = state.acknowledged();
        state.acknowledge(self.sink, batches);
        let more = state.acknowledged() > before;
        drop(state);
        self.queue.changed.notify_all();
        if let Some(bell) = self.queue.bell.0.get().filter(|_| more) {
            bell();
        }
    }

    fn advance(&self, batches: &[Arc<Batch>]) {
        if let Some(last) = batches.last() {
            self.queue.lock().sinks[self.sink].next = last.sequence + 1;
        }
    }

    /// Waits until the queue is closed, at most so long; for the pause before another try.
    pub fn sleep(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.queue.lock();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.queue.wait(state, left);
        }
        false
    }

    fn pause(&self, next: Option<u64>, patience: Duration) {
        let state = self.queue.lock();
        let next = next.unwrap_or(state.sinks[self.sink].next);
        if next >= state.next_sequence && !state.closed {
            drop(self.queue.wait(state, patience));
        }
    }

    fn is_acknowledged(&self, batch: &Batch) -> bool {
        let state = self.queue.lock();
        let end = state.positions.get(&batch.origin.id).and_then(|ends| ends.get(self.sink));
        end.is_some_and(|position| batch.end <= position.end)
    }

    fn find(&mut self, next: Option<u64>) -> (Place, bool, bool) {
        let state = self.queue.lock();
        let next = next.unwrap_or(state.sinks[self.sink].next);
        let (closed, draining) = (state.closed, state.draining);
        if next >= state.next_sequence {
            return (Place::Nowhere, closed, draining);
        }
        if let Some(front) = state.memory.front().filter(|front| front.sequence <= next) {
            // Memory holds consecutive numbers.
            let index = usize::try_from(next - front.sequence).unwrap_or(usize::MAX);
            if let Some(batch) = state.memory.get(index) {
                return (Place::Memory(Arc::clone(batch)), closed, draining);
            }
        }
        let Some((spool, segment)) = state.spool.as_ref().and_then(|spool| Some((spool, spool.segment_of(next)?)))
        else {
            return (Place::Nowhere, closed, draining);
        };
        let open = self.reader.as_ref().is_some_and(|(first, _)| *first == segment.first);
        let reader = if open { Ok(None) } else { spool.reader(segment.first).map(Some) };
        (Place::Segment(segment.first, reader), closed, draining)
    }

    /// Reads forward to the entry `next`, outside of the lock.
    fn read(&mut self, first: u64, reader: io::Result<Option<Reader>>, next: Option<u64>) -> Option<Arc<Batch>> {
        match reader {
            Ok(Some(reader)) => self.reader = Some((first, reader)),
            Ok(None) => {}
            Err(_) => return None,
        }
        let next = next.unwrap_or_else(|| self.queue.lock().sinks[self.sink].next);
        let (_, reader) = self.reader.as_mut()?;
        let failed = loop {
            match reader.next() {
                Ok(Some(batch)) if batch.sequence >= next => return Some(Arc::new(batch)),
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        // It was read past this entry before (a request that was given up): begin the segment again.
        self.reader = None;
        if let Some(error) = failed {
            // A disk that fails now may work later; what it holds is not skipped, and this is said.
            self.queue.lock().spool_error = Some(format!("failed to read the spool: {error}"));
            self.sleep(UNREADABLE);
        }
        None
    }
}

#[cfg(test)]
mod tests;
