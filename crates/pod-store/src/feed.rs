//! What is in memory: every object, and per resource the last changes for those who watch.
//!
//! **The history is bounded twice.** Each resource keeps at most [`EVENTS`] changes, so a position is found and a
//! namespace filtered in microseconds. All resources together keep at most [`BYTES`]; above it the resource with the
//! largest history pays, so a storm of events never costs the watchers of pods their place. And what is older than
//! [`AGE`] goes (Kubernetes compacts its storage every five minutes, so no client relies on more): an idle daemon holds
//! its objects and nothing else. A reader who saw everything of a resource is not hurt by any of it: it is late only if a
//! change that it has not seen was dropped ([`Resource::floor`]).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::object::{List, Object};

/// Changes kept per resource.
const EVENTS: usize = 1024;
/// Bytes kept over all resources, by [`cost`].
const BYTES: usize = 4 << 20;
/// How long a change is kept at most.
pub(crate) const AGE: Duration = Duration::from_secs(300);
/// What an event costs besides JSON: two `Arc`s, two `Object`s with their strings.
const EVENT_OVERHEAD: usize = 512;

/// The revision is older than what can be told, or was never durable: list again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    pub asked: u64,
    pub oldest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// What happened to one object.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: ChangeKind,
    /// The state after it; of a deletion, the last state with the deletion's revision.
    pub object: Arc<Object>,
    /// The state before it, so that a selector can tell who enters and who leaves.
    pub before: Option<Arc<Object>>,
}

#[derive(Debug)]
struct Entry {
    event: Event,
    at: Instant,
}

/// Both states are counted in full although neighbours share them: an upper bound that needs no bookkeeping.
fn cost(event: &Event) -> usize {
    EVENT_OVERHEAD + event.object.json.len() + event.before.as_ref().map_or(0, |before| before.json.len())
}

#[derive(Debug)]
pub(crate) struct Resource {
    /// By namespace and name. A sorted vector: eight bytes an object, a list is a copy of a slice, and moving the tail on an
    /// insertion costs microseconds for tens of thousands of objects.
    objects: Vec<Arc<Object>>,
    history: VecDeque<Entry>,
    bytes: usize,
    /// The newest change that was dropped from the history; whoever has seen it has missed nothing.
    floor: u64,
    /// Carries nothing: a change of this resource wakes its watchers, and they read the history.
    wake: watch::Sender<()>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// The newest revision that readers may see.
    pub(crate) revision: u64,
    /// The revision this run began with; greater than any that an earlier run can have given out, unless that one ended
    /// cleanly: then it is the last one given out.
    start: u64,
    /// The revision that was on the disk. Between it and `start` lies what a crash took back.
    opened: u64,
    resources: BTreeMap<Arc<str>, Resource>,
    /// Of all histories.
    bytes: usize,
    /// No writer any more: watches end.
    closed: bool,
}

/// The state, shared by readers, watchers and the one writer.
pub(crate) struct Feed(RwLock<State>);

/// Not everything that is in memory.
impl fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Feed@{}", self.read().revision)
    }
}

impl Feed {
    /// `objects` in the order of their keys.
    pub(crate) fn new(objects: Vec<Arc<Object>>, opened: u64, start: u64) -> Self {
        let mut state = State { revision: start, start, opened, resources: BTreeMap::new(), bytes: 0, closed: false };
        for object in objects {
            state.resource(&object.key.resource).objects.push(object);
        }
        for resource in state.resources.values_mut() {
            resource.objects.shrink_to_fit();
        }
        Self(RwLock::new(state))
    }

    // A panic elsewhere leaves the state whole: it is changed only by `publish`, which does not call out.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `events` (in order of revision) visible, all at once.
    pub(crate) fn publish(&self, events: Vec<Event>, now: Instant) {
        let mut state = self.write();
        let mut woken: Vec<Arc<str>> = Vec::new();
        for event in events {
            debug_assert!(event.object.revision > state.revision);
            state.revision = event.object.revision;
            let name = event.object.key.resource.clone();
            let resource = state.resource(&name);
            resource.apply(&event);
            let cost = cost(&event);
            resource.bytes += cost;
            resource.history.push_back(Entry { event, at: now });
            state.bytes += cost;
            if !woken.contains(&name) {
                woken.push(name);
            }
        }
        state.trim(now);
        for name in &woken {
            if let Some(resource) = state.resources.get(name) {
                resource.wake.send_replace(());
            }
        }
    }

    /// Drops what is too old to keep; when the next change will be.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.write();
        state.trim(now);
        for resource in state.resources.values_mut().filter(|resource| resource.history.is_empty()) {
            resource.history.shrink_to_fit();
        }
        state.resources.values().filter_map(|resource| Some(resource.history.front()?.at + AGE)).min()
    }

    /// The revision that was on the disk.
    #[cfg(test)]
    pub(crate) fn opened(&self) -> u64 {
        self.read().opened
    }

    pub(crate) fn close(&self) {
        let mut state = self.write();
        state.closed = true;
        for resource in state.resources.values() {
            resource.wake.send_replace(());
        }
    }

    /// Begins a watch: from where, and what wakes it.
    pub(crate) fn subscribe(&self, resource: &str, since: Option<u64>) -> Result<(u64, watch::Receiver<()>), Expired> {
        let mut state = self.write();
        let (revision, start, opened) = (state.revision, state.start, state.opened);
        let resource = state.resource(resource);
        let since = since.unwrap_or(revision);
        let floor = resource.floor;
        // At `opened` this run's first state is known exactly; above it, up to `start`, an earlier run may have shown
        // changes that a crash took back. What is above `revision` was never given out by this store.
        let known = since == opened || (start..=revision).contains(&since);
        if !known || since < floor {
            return Err(Expired { asked: since, oldest: start.max(floor) });
        }
        Ok((since, resource.wake.subscribe()))
    }
}

impl State {
    fn resource(&mut self, name: &str) -> &mut Resource {
        // Two look-ups on the way of a new resource, one allocation less on all others.
        if !self.resources.contains_key(name) {
            self.resources.insert(name.into(), Resource::new());
        }
        self.resources.get_mut(name).unwrap_or_else(|| unreachable!("inserted above"))
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        let objects = &self.resources.get(resource)?.objects;
        Some(&objects[position(objects, namespace, name).ok()?])
    }

    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> List {
        let objects = self.resources.get(resource).map_or(&[][..], |resource| &resource.objects[..]);
        let items = match namespace {
            None => objects,
            Some(namespace) => {
                let from = objects.partition_point(|object| object.key.namespace.as_str() < namespace);
                let length = objects[from..].partition_point(|object| object.key.namespace == namespace);
                &objects[from..from + length]
            }
        };
        List { revision: self.revision, items: items.to_vec() }
    }

    /// Every object, by key.
    pub(crate) fn everything(&self) -> Vec<Arc<Object>> {
        self.resources.values().flat_map(|resource| resource.objects.iter().cloned()).collect()
    }

    /// The first change of `resource` (and `namespace`) after `position`: `Ok(None)` if there is none up to
    /// [`State::revision`].
    pub(crate) fn after(
        &self,
        resource: &str,
        namespace: Option<&str>,
        position: u64,
    ) -> Result<Option<&Event>, Expired> {
        let Some(resource) = self.resources.get(resource) else { return Ok(None) };
        if position < resource.floor {
            return Err(Expired { asked: position, oldest: resource.floor });
        }
        let from = resource.history.partition_point(|entry| entry.event.object.revision <= position);
        Ok(resource
            .history
            .range(from..)
            .map(|entry| &entry.event)
            .find(|event| namespace.is_none_or(|namespace| event.object.key.namespace == namespace)))
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    fn trim(&mut self, now: Instant) {
        for resource in self.resources.values_mut() {
            while resource.history.len() > EVENTS || resource.history.front().is_some_and(|entry| entry.at + AGE <= now)
            {
                self.bytes -= resource.drop_oldest();
            }
        }
        while self.bytes > BYTES {
            // The newest change stays whatever it weighs: without it nobody could follow a resource with a large object.
            let several = self.resources.values_mut().filter(|resource| resource.history.len() > 1);
            let Some(largest) = several.max_by_key(|resource| resource.bytes) else { break };
            self.bytes -= largest.drop_oldest();
        }
    }
}

impl Resource {
    fn new() -> Self {
        Self { objects: Vec::new(), history: VecDeque::new(), bytes: 0, floor: 0, wake: watch::Sender::new(()) }
    }

    fn apply(&mut self, event: &Event) {
        let key = &event.object.key;
        match (position(&self.objects, &key.namespace, &key.name), event.kind) {
            (Ok(at), ChangeKind::Deleted) => {
                self.objects.remove(at);
            }
            (Err(_), ChangeKind::Deleted) => {}
            (Ok(at), _) => self.objects[at] = event.object.clone(),
            (Err(at), _) => self.objects.insert(at, event.object.clone()),
        }
    }

    /// The bytes it freed.
    fn drop_oldest(&mut self) -> usize {
        let Some(entry) = self.history.pop_front() else { return 0 };
        self.floor = entry.event.object.revision;
        let cost = cost(&entry.event);
        self.bytes -= cost;
        cost
    }
}

fn position(objects: &[Arc<Object>], namespace: &str, name: &str) -> Result<usize, usize> {
    objects.binary_search_by(|object| (object.key.namespace.as_str(), object.key.name.as_str()).cmp(&(namespace, name)))
}
