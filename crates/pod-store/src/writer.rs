//! The one writer: a thread that puts all changes in order, commits them in groups and makes them visible.
//!
//! The queue is the order. Leading [`Durability::Lazy`] writes of what waits are applied at once; from the first
//! [`Durability::Synced`] one on, everything (Lazy ones too, which may build on it) is decided on top of what is stored,
//! written in one transaction with one sync, and only then published. So revisions appear in order, and nobody ever reads
//! a Synced change that a crash can take back. If the disk refuses, nothing of the transaction is published: its Synced
//! writes fail, its Lazy ones are decided anew without them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::change::{Change, Decision, Durability, Guard, WriteError, decide};
use crate::disk::{Disk, Mark};
use crate::feed::{AGE, Event, Feed};
use crate::object::{Key, Object};

/// Revisions promised to the disk at a time. A crash skips at most this many; a run of Lazy writes alone pays one more sync
/// per so many.
const BLOCK: u64 = 10_000;
/// Lazy writes reach the disk this long after the first of them at the latest.
const LAZY: Duration = Duration::from_secs(1);
/// When the disk refuses Lazy writes, they wait in memory and it is asked again after this.
const RETRY: Duration = Duration::from_secs(5);
/// Writes in one transaction at most: bounds how long the first waits for the last, and keeps a burst well below what the
/// history holds.
const GROUP: usize = 256;

pub(crate) type Answer = Result<Arc<Object>, WriteError>;

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) key: Key,
    pub(crate) change: Change,
    pub(crate) durability: Durability,
    pub(crate) guard: Option<Guard>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
pub(crate) enum Message {
    Write(Box<Request>),
    /// Write down what is Lazy, give back what is left of the block of revisions, end.
    Close,
}

pub(crate) struct Writer {
    feed: Arc<Feed>,
    disk: Disk,
    /// The last revision used, published or not.
    last: u64,
    /// No revision above it may be given out before a greater one is on the disk.
    reserved: u64,
    /// Changed in memory, not on the disk.
    dirty: BTreeSet<Key>,
    /// When `dirty` is to be written.
    flush_at: Option<Instant>,
    /// When the history is to be looked through.
    expire_at: Option<Instant>,
    /// One allocation for each resource's name.
    resources: BTreeSet<Arc<str>>,
}

/// A request with what was decided about it.
struct Staged {
    request: Request,
    answer: Answer,
}

impl Writer {
    pub(crate) fn new(feed: Arc<Feed>, disk: Disk, mark: Mark) -> Self {
        Self {
            feed,
            disk,
            last: mark.reserved,
            reserved: mark.reserved,
            dirty: BTreeSet::new(),
            flush_at: None,
            expire_at: None,
            resources: BTreeSet::new(),
        }
    }

    pub(crate) fn run(mut self, queue: &Receiver<Message>) {
        let mut open = true;
        while open {
            let deadline = [self.flush_at, self.expire_at].into_iter().flatten().min();
            let first = match deadline {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => queue.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            let mut waiting = Vec::new();
            match first {
                Ok(Message::Write(request)) => waiting.push(*request),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => open = false,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while open && waiting.len() < GROUP {
                match queue.try_recv() {
                    Ok(Message::Write(request)) => waiting.push(*request),
                    Ok(Message::Close) => open = false,
                    Err(_) => break,
                }
            }
            self.serve(waiting);
            self.keep_house(Instant::now());
        }
        self.close();
    }

    fn serve(&mut self, waiting: Vec<Request>) {
        let mut waiting = waiting.into_iter().peekable();
        let mut lazy = Vec::new();
        while let Some(request) = waiting.next_if(|request| request.durability == Durability::Lazy) {
            lazy.push(request);
        }
        self.apply(lazy);
        let rest: Vec<Request> = waiting.collect();
        if !rest.is_empty() {
            self.commit(rest);
        }
    }

    /// Lazy writes: in memory now, on the disk later.
    fn apply(&mut self, requests: Vec<Request>) {
        let mut events = Vec::new();
        let mut pending = HashMap::new();
        let mut staged = Vec::with_capacity(requests.len());
        for request in requests {
            if self.last >= self.reserved
                && let Err(error) = self.flush()
            {
                staged.push(Staged { request, answer: Err(WriteError::Disk(error)) });
                continue;
            }
            staged.push(self.stage(request, &mut pending, &mut events));
        }
        if !events.is_empty() {
            self.flush_at.get_or_insert_with(|| Instant::now() + LAZY);
            self.dirty.extend(pending.into_keys());
        }
        self.publish(events);
        answer(staged);
    }

    /// Synced writes and what came after them: on the disk, then in memory.
    fn commit(&mut self, requests: Vec<Request>) {
        if let Err(error) = self.mend() {
            return self.refuse(requests, &error);
        }
        let mut events = Vec::new();
        let mut pending = HashMap::new();
        let mut staged = Vec::with_capacity(requests.len());
        for request in requests {
            staged.push(self.stage(request, &mut pending, &mut events));
        }
        // A Synced write that found its value stored already is answered when *that* is on the disk.
        let waits = staged.iter().any(|staged| staged.answer.is_ok() && self.dirty.contains(&staged.request.key));
        if !events.is_empty() || waits {
            let revision = events.last().map_or_else(|| self.feed.read().revision, |event| event.object.revision);
            if let Err(error) = self.write(&pending, self.mark(revision)) {
                return self.refuse(staged.into_iter().map(|staged| staged.request).collect(), &error);
            }
        }
        self.publish(events);
        answer(staged);
    }

    /// The disk took nothing of the group. Revisions it was shown stay used: it may have got further than it says.
    fn refuse(&mut self, requests: Vec<Request>, error: &io::Error) {
        for request in requests {
            match request.durability {
                Durability::Lazy => self.apply(vec![request]),
                Durability::Synced => {
                    let last = self.last;
                    let (mut pending, mut events) = (HashMap::new(), Vec::new());
                    let mut staged = self.stage(request, &mut pending, &mut events);
                    self.last = last;
                    if !events.is_empty() || (staged.answer.is_ok() && self.dirty.contains(&staged.request.key)) {
                        staged.answer = Err(WriteError::Disk(same(error)));
                    }
                    answer(vec![staged]);
                }
            }
        }
    }

    /// Decides one request on top of what is stored and what is `pending`.
    fn stage(
        &mut self,
        mut request: Request,
        pending: &mut HashMap<Key, Option<Arc<Object>>>,
        events: &mut Vec<Event>,
    ) -> Staged {
        if let Err(reason) = fit(&request.key) {
            return Staged { request, answer: Err(WriteError::Unfit(reason)) };
        }
        request.key.resource = self.name(&request.key.resource);
        let stored = |key: &Key| match pending.get(key) {
            Some(current) => current.clone(),
            None => self.feed.read().get(&key.resource, &key.namespace, &key.name).cloned(),
        };
        let holds = |guard: &Guard| stored(&guard.key).is_some_and(|found| found.revision == guard.revision);
        if !request.guard.as_ref().is_none_or(holds) {
            return Staged { request, answer: Err(WriteError::Outdated) };
        }
        let current = stored(&request.key);
        let answer = match decide(&request.key, &mut request.change, current.as_ref(), self.last + 1) {
            Decision::Refused(error) => Err(error),
            Decision::Unchanged(object) => Ok(object),
            Decision::Changed(event) => {
                self.last += 1;
                let object = event.object.clone();
                let left = (event.kind != crate::ChangeKind::Deleted).then(|| object.clone());
                pending.insert(request.key.clone(), left);
                events.push(event);
                Ok(object)
            }
        };
        Staged { request, answer }
    }

    /// After a failure the file is not trusted any more: it is written anew from memory, where everything is.
    fn mend(&mut self) -> io::Result<()> {
        if !self.disk.is_lost() {
            return Ok(());
        }
        let state = self.feed.read();
        let everything = state.everything();
        let mark = Mark { revision: state.revision, reserved: self.reserved };
        drop(state);
        self.disk.rebuild(&everything, mark)?;
        self.dirty.clear();
        self.flush_at = None;
        Ok(())
    }

    /// One transaction: what is `pending`, and all that is dirty.
    fn write(&mut self, pending: &HashMap<Key, Option<Arc<Object>>>, mark: Mark) -> io::Result<()> {
        let state = self.feed.read();
        let dirty = self.dirty.iter().filter(|key| !pending.contains_key(key));
        let dirty: Vec<_> =
            dirty.map(|key| (key, state.get(&key.resource, &key.namespace, &key.name).cloned())).collect();
        drop(state);
        let dirty_then_pending = dirty.iter().map(|(key, object)| (*key, object.as_deref()));
        let dirty_then_pending = dirty_then_pending.chain(pending.iter().map(|(key, object)| (key, object.as_deref())));
        self.disk.commit(dirty_then_pending, mark)?;
        self.reserved = mark.reserved;
        self.dirty.clear();
        self.flush_at = None;
        Ok(())
    }

    /// `revision` with as many to come as should be. A new block is asked for long before the old one is used up: it costs
    /// nothing in a transaction that is made anyway.
    fn mark(&self, revision: u64) -> Mark {
        let short = self.last + BLOCK / 2 > self.reserved;
        Mark { revision, reserved: if short { self.last + BLOCK } else { self.reserved } }
    }

    /// Writes what is dirty, and makes room for Lazy revisions by the way.
    fn flush(&mut self) -> io::Result<()> {
        self.mend()?;
        let mark = self.mark(self.feed.read().revision);
        if self.dirty.is_empty() && mark.reserved == self.reserved {
            return Ok(());
        }
        self.write(&HashMap::new(), mark)
    }

    fn publish(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let now = Instant::now();
        self.feed.publish(events, now);
        self.expire_at.get_or_insert(now + AGE);
    }

    fn keep_house(&mut self, now: Instant) {
        if self.flush_at.is_some_and(|at| at <= now) && self.flush().is_err() {
            // Nobody waits for an answer here: the writes stay dirty, and a Synced one will say what is wrong.
            self.flush_at = Some(now + RETRY);
        }
        if self.expire_at.is_some_and(|at| at <= now) {
            self.expire_at = self.feed.expire(now);
        }
    }

    /// Best effort: if it fails, what was Lazy is lost and numbering goes on above the block, as after a crash.
    fn close(&mut self) {
        let mark = Mark { revision: self.feed.read().revision, reserved: self.last };
        if (!self.dirty.is_empty() || self.reserved != self.last) && self.mend().is_ok() {
            let _ = self.write(&HashMap::new(), mark);
        }
        self.disk.close();
    }

    fn name(&mut self, resource: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.resources.get(resource) {
            return known.clone();
        }
        self.resources.insert(resource.clone());
        resource.clone()
    }
}

/// Also when it panics: nobody should wait for changes that cannot come.
impl Drop for Writer {
    fn drop(&mut self) {
        self.feed.close();
    }
}

/// The asking side may be gone: dropping its future does not take the write back.
fn answer(staged: Vec<Staged>) {
    for Staged { request, answer } in staged {
        let _ = request.answer.send(answer);
    }
}

fn fit(key: &Key) -> Result<(), &'static str> {
    if key.resource.is_empty() || key.name.is_empty() {
        return Err("its resource or its name is empty");
    }
    if [&*key.resource, &key.namespace, &key.name].iter().any(|part| part.contains('\0')) {
        return Err("its key contains a NUL byte");
    }
    Ok(())
}

/// `io::Error` cannot be cloned, and everybody in the group hears the reason.
fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
