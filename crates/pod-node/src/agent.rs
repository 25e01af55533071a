//! The one task that owns what the node knows of its pods.
//!
//! ```text
//!   store: pods ──────────────▶ see / gone      ┐
//!   store: configmaps, secrets ▶ source_changed │   one at a time, in order
//!   store: nodes, namespaces ─▶ retry, furnish  ├──────────▶ engine, store
//!   engine: news ─────────────▶ hear            │
//!   time ─────────────────────▶ lease, sweep    ┘
//! ```
//!
//! *Start*: every pod of the store is seen anew; what runs is adopted, what ran before the machine went down is restored,
//! what the store no longer has is stopped. *Crash*: pods go on without us; the next start is the same.

mod end;
mod hear;
mod see;
mod slot;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use pod_engine::{Engine, chain};
use pod_store::{ChangeKind, Event, Store, WriteError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::recorder::{Incident, Recorder, Regarding, Reporter};
use crate::watch::{Word, follow};
use crate::{Config, PodKey, janitor, machine, namespace, object, service, source};
use slot::Slot;

/// A kubelet renews its lease so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A kubelet's `nodeStatusReportFrequency`, as a count of heartbeats.
const REPORT_EVERY: u32 = 30;
/// Pods that wait for something outside (a name that `outrigger run` has) are looked at so often.
const RETRY: Duration = Duration::from_secs(2);

/// Why the node could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to write the node's own objects")]
    Write(#[source] WriteError),
}

/// A node that is set up; [`Node::run`] makes it work.
#[derive(Debug)]
pub struct Node {
    agent: Agent,
    orders: mpsc::UnboundedReceiver<Order>,
    handle: Handle,
}

/// Asks a running node for something.
#[derive(Debug, Clone)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    /// Stop every pod and keep its object; answered when all are down.
    StopPods(oneshot::Sender<()>),
}

/// What can wake the agent.
#[derive(Debug)]
enum Wake {
    Pods(Word),
    Source(source::Kind, Word),
    Node(Word),
    Namespaces(Word),
}

#[derive(Debug)]
struct Agent {
    engine: Engine,
    store: Store,
    config: Config,
    recorder: Recorder,
    /// The objects, by namespace and name.
    slots: BTreeMap<PodKey, Slot>,
    /// What the engine drives, with the uid it has there.
    driven: BTreeMap<PodKey, String>,
    /// The pods are being stopped with the node: their objects stay, and say what they said.
    stopping: bool,
}

// === impl Handle ===

impl Handle {
    /// Stops every pod of the store within its grace period. The objects stay: the next node starts the pods again. Resolves
    /// when all are down.
    pub async fn stop_pods(&self) {
        let (done, told) = oneshot::channel();
        if self.orders.send(Order::StopPods(done)).is_ok() {
            // A node that is gone has no pods to stop.
            let _ = told.await;
        }
    }
}

// === impl Node ===

impl Node {
    /// Writes what must be there before anybody asks: the node, its lease, the namespaces.
    ///
    /// # Errors
    /// When the store refuses a write.
    pub async fn open(engine: Engine, store: Store, config: Config) -> Result<Self, OpenError> {
        let now = engine.clock().now();
        namespace::ensure_all(&store, &config.root_ca, now).await.map_err(OpenError::Write)?;
        machine::publish(&store, engine.node(), &config, None, now).await.map_err(OpenError::Write)?;
        machine::renew_lease(&store, engine.node(), now).await.map_err(OpenError::Write)?;
        let (sender, orders) = mpsc::unbounded_channel();
        let recorder = Recorder::new(store.clone(), engine.node().name.clone());
        let agent =
            Agent { engine, store, config, recorder, slots: BTreeMap::new(), driven: BTreeMap::new(), stopping: false };
        Ok(Self { agent, orders, handle: Handle { orders: sender } })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Never ends. Inside the engine's [`tokio::task::LocalSet`].
    pub async fn run(self) {
        let Self { mut agent, mut orders, handle: _handle } = self;
        let mut news = agent.engine.feed().subscribe();
        // Nobody waits for it.
        drop(pod_engine::cleanup::finish_forgetting(&agent.engine));
        let (sender, mut words) = mpsc::unbounded_channel();
        follow(&agent.store, "namespaces", &sender, Wake::Namespaces);
        follow(&agent.store, "nodes", &sender, Wake::Node);
        follow(&agent.store, "pods", &sender, Wake::Pods);
        follow(&agent.store, "configmaps", &sender, |word| Wake::Source(source::Kind::ConfigMap, word));
        follow(&agent.store, "secrets", &sender, |word| Wake::Source(source::Kind::Secret, word));
        tokio::task::spawn_local(janitor::Janitor::new(agent.store.clone()).run(complain));
        if let Some(network) = agent.config.services.clone() {
            tokio::task::spawn_local(service::Services::new(agent.store.clone(), network).run(complain));
        }
        let mut beat = Beat::new();
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            if agent.stopping && agent.driven.is_empty() {
                waiting.drain(..).for_each(|done| {
                    let _ = done.send(());
                });
            }
            let retry = agent.slots.values().any(Slot::is_blocked).then(|| Instant::now() + RETRY);
            let timer = retry.unwrap_or(beat.next).min(beat.next);
            // Every arm only takes from a queue (or the clock): what loses the race is still there.
            tokio::select! {
                biased;
                Some(message) = news.recv() => agent.hear(message).await,
                Some(word) = words.recv() => agent.wake(word).await,
                Some(Order::StopPods(done)) = orders.recv() => {
                    agent.stop_all();
                    waiting.push(done);
                }
                () = tokio::time::sleep_until(timer) => {
                    if Instant::now() >= beat.next {
                        agent.beat(&mut beat).await;
                    } else {
                        agent.retry_blocked().await;
                    }
                }
            }
        }
    }
}

/// When the node says again that it lives.
#[derive(Debug)]
struct Beat {
    next: Instant,
    count: u32,
}

impl Beat {
    fn new() -> Self {
        // The first report brings the images, which are not read before the node is ready.
        Self { next: Instant::now() + Duration::from_secs(1), count: 0 }
    }
}

// === impl Agent ===

impl Agent {
    fn now(&self) -> Timestamp {
        self.engine.clock().now()
    }

    async fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Pods(Word::Listed(list)) => {
                let gone: Vec<PodKey> =
                    self.slots
                        .iter()
                        .filter(|(key, slot)| {
                            !list.items.iter().any(|item| {
                                item.uid == slot.uid && item.key.namespace == key.0 && item.key.name == key.1
                            })
                        })
                        .map(|(key, _)| key.clone())
                        .collect();
                for key in gone {
                    self.gone(&key).await;
                }
                // What has its place keeps it: those that wait are weighed against all of them.
                let is_bound = |object: &std::sync::Arc<pod_store::Object>| {
                    !object::text(&object::value(object), "/spec/nodeName").is_empty()
                };
                let (bound, waiting): (Vec<_>, Vec<_>) = list.items.iter().partition(|object| is_bound(object));
                for object in bound.into_iter().chain(waiting) {
                    self.see(object).await;
                }
                self.stop_strays();
            }
            Wake::Pods(Word::Changed(Event { kind: ChangeKind::Deleted, object, .. })) => {
                let key = (object.key.namespace.clone(), object.key.name.clone());
                if self.slots.get(&key).is_some_and(|slot| slot.uid == object.uid) {
                    self.gone(&key).await;
                }
            }
            Wake::Pods(Word::Changed(event)) => self.see(&event.object).await,
            // A list tells of no change; what was missed is found by the revisions.
            Wake::Source(_, Word::Listed(_)) => self.refresh_all().await,
            Wake::Source(kind, Word::Changed(event)) => {
                self.source_changed(kind, &event.object.key.namespace, &event.object.key.name).await;
            }
            Wake::Node(Word::Listed(_)) => {}
            Wake::Node(Word::Changed(event)) => {
                if event.kind == ChangeKind::Deleted {
                    self.publish(None).await;
                }
                // Labels, taints or a cordon may have changed.
                self.retry_unscheduled().await;
            }
            // Some may have been made before anybody listened.
            Wake::Namespaces(Word::Listed(list)) => {
                for namespace in &list.items {
                    self.furnish(namespace).await;
                }
            }
            Wake::Namespaces(Word::Changed(event)) => {
                if event.kind == ChangeKind::Added {
                    self.furnish(&event.object).await;
                }
            }
        }
    }

    async fn beat(&mut self, beat: &mut Beat) {
        let now = self.now();
        let renewed = machine::renew_lease(&self.store, self.engine.node(), now).await;
        self.check(renewed);
        if beat.count.is_multiple_of(REPORT_EVERY) {
            let images = self.engine.store().clone();
            let images = tokio::task::spawn_blocking(move || machine::images(&images)).await.ok();
            self.publish(images).await;
            let swept = self.recorder.sweep(now).await;
            self.check(swept);
        }
        self.forget_taken_down().await;
        self.write_again().await;
        self.retry_unscheduled().await;
        beat.count += 1;
        beat.next = Instant::now() + HEARTBEAT;
    }

    async fn furnish(&self, namespace: &pod_store::Object) {
        let made = namespace::furnish(&self.store, namespace, &self.config.root_ca, self.now()).await;
        self.check(made);
    }

    async fn publish(&self, images: Option<serde_json::Value>) {
        let published = machine::publish(&self.store, self.engine.node(), &self.config, images, self.now()).await;
        self.check(published);
    }

    async fn record(&mut self, reporter: Reporter, about: &Regarding, incident: Incident) {
        let recorded = self.recorder.record(reporter, about, &incident).await;
        self.check(recorded);
    }

    /// A write that fails (a full disk) is said once it happens; what it was about is tried again with the next change.
    fn check<T>(&self, result: Result<T, WriteError>) {
        if let Err(error) = result {
            complain(chain(&error));
        }
    }
}

/// The daemon's log.
fn complain(text: String) {
    eprintln!("node: {text}");
}

/// The status in an object, as far as it is one.
fn status_of(pod: &serde_json::Value) -> PodStatus {
    pod_api::decode::pod(pod).ok().and_then(|pod| pod.status).unwrap_or_default()
}
