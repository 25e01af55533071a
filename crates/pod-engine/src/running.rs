//! A pod as its engine holds it, and the execution of the plan's steps. Below here nothing is decided.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use pod_api::context::PodContext;
use pod_api::names::Names;
use pod_container::cgroup::Unapplied;
use pod_plan::{Event, Hook, Notice, Step, Time};
use pod_shim::client::{Client, RequestError};
use pod_shim::protocol::{Fact, Stage};
use tokio::sync::mpsc;

use crate::clock::{Clock, from_nanos};
use crate::engine::{Context, PodRequest};
use crate::feed::News;
use crate::image::ReadyImage;
use crate::launch::Snapshot;
use crate::paths::{PodPaths, Roots};
use crate::record::{self, Record};
use crate::{chain, check, events, launch, sandbox, teardown, termination, volumes};

/// Older than this, a fact that has just arrived was dated by a wall clock that has jumped.
const LATE_FACT_NANOS: i128 = 5_000_000_000;

/// A shim that answers.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) pid: u32,
    pub(crate) client: Client,
    pub(crate) facts: mpsc::UnboundedReceiver<Fact>,
    /// How many facts it had when we came.
    pub(crate) replayed: usize,
}

/// The domain below which services would have names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// Everything the concurrent steps of one pod share. One thread, so cells are enough; no borrow is held across an
/// await.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) cx: Rc<Context>,
    pub(crate) paths: PodPaths,
    record: RefCell<Record>,
    events: mpsc::UnboundedSender<Event>,
    shim: RefCell<Option<Client>>,
    shim_pid: Cell<Option<u32>>,
    images: RefCell<BTreeMap<String, ReadyImage>>,
    volume_images: RefCell<BTreeMap<String, ReadyImage>>,
    /// Per container the latest attempt; older ones are read from their files.
    launches: RefCell<BTreeMap<String, (u32, Rc<Snapshot>)>>,
    journal: events::Journal,
    /// Warnings about the pod as a whole that were given already.
    warned: RefCell<std::collections::BTreeSet<String>>,
    ips: RefCell<Vec<IpAddr>>,
    /// The attempt of each container that has one running.
    alive: RefCell<BTreeMap<String, u32>>,
    volumes_ready: Cell<bool>,
    /// One writer of volumes at a time: the atomic writer allows no other beside it.
    pub(crate) volume_turn: tokio::sync::Mutex<()>,
    /// Counts changes of the sources, so that a preparation under way notices one.
    pub(crate) sources: Cell<u64>,
    /// Nothing of a sandbox can have been left: the pod is new and this is its first.
    pub(crate) pristine: Cell<bool>,
    /// The pod is on its way to its end: nobody waits for a sandbox any more.
    ending: Cell<bool>,
    /// The root directory of the shim's mount namespace, pinned: a PID may come to mean another process.
    shim_root: RefCell<Option<OwnedFd>>,
    /// The pod's network namespace, pinned likewise.
    network: RefCell<Option<OwnedFd>>,
    /// Woken when the shim stands, for steps that need its mount namespace.
    pub(crate) shim_changed: tokio::sync::Notify,
}

// === impl Running ===

impl Running {
    pub(crate) fn new(cx: Rc<Context>, paths: PodPaths, record: Record, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            journal: events::Journal::new(paths.notices()),
            cx,
            paths,
            record: RefCell::new(record),
            events,
            shim: RefCell::default(),
            shim_pid: Cell::default(),
            images: RefCell::default(),
            volume_images: RefCell::default(),
            launches: RefCell::default(),
            warned: RefCell::default(),
            ips: RefCell::default(),
            alive: RefCell::default(),
            volumes_ready: Cell::default(),
            volume_turn: tokio::sync::Mutex::default(),
            sources: Cell::default(),
            pristine: Cell::default(),
            ending: Cell::default(),
            shim_root: RefCell::default(),
            network: RefCell::default(),
            shim_changed: tokio::sync::Notify::new(),
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.cx.clock
    }

    pub(crate) fn now(&self) -> Time {
        self.cx.clock.now()
    }

    pub(crate) fn record(&self) -> Ref<'_, Record> {
        self.record.borrow()
    }

    pub(crate) fn uid(&self) -> String {
        self.record().uid.clone()
    }

    pub(crate) fn pod(&self) -> Pod {
        self.record().pod.clone()
    }

    pub(crate) fn tell(&self, event: Event) {
        // The receiver is the pod's task; when it is gone the pod has ended and nobody needs the event.
        let _ = self.events.send(event);
    }

    pub(crate) fn news(&self, news: News) {
        let record = self.record();
        self.cx.feed.send(record.namespace(), record.name(), news);
    }

    /// A Kubernetes event: to people now, and to the file for those who ask later.
    pub(crate) fn note(&self, mut notice: Notice) {
        notice.message = events::cut(notice.message);
        if let Err(error) = self.journal.write(&notice) {
            self.news(News::Trouble(format!("failed to record an event: {error}")));
        }
        self.news(News::Notice(notice));
    }

    /// What the lifecycle's projection leaves to the engine.
    pub(crate) fn complete(&self, mut status: PodStatus) -> PodStatus {
        let record = self.record();
        if let Some(spec) = &record.pod.spec {
            status.qos_class = pod_api::qos::qos_class(spec).ok().map(|class| class.as_str().to_owned());
        }
        status
    }

    /// The engine's own memory of what the plan is told.
    pub(crate) fn observe(&self, event: &Event) {
        match event {
            Event::SandboxReady { ips, .. } => *self.ips.borrow_mut() = ips.clone(),
            Event::VolumesReady => self.volumes_ready.set(true),
            Event::Started { container, attempt, .. } => {
                self.alive.borrow_mut().insert(container.clone(), *attempt);
            }
            Event::Exited { container, attempt, .. } => {
                let mut alive = self.alive.borrow_mut();
                if alive.get(container) == Some(attempt) {
                    alive.remove(container);
                }
            }
            Event::SandboxLost | Event::SandboxRemoved => self.alive.borrow_mut().clear(),
            _ => {}
        }
    }

    /// A changed manifest: the record follows, and mounted volumes get their new content.
    pub(crate) fn update(self: &Rc<Self>, request: &PodRequest) -> Pod {
        {
            let mut record = self.record.borrow_mut();
            let (uid, created) = (record.uid.clone(), record.pod.metadata.creation_timestamp.clone());
            record.pod = request.pod.clone();
            record.pod.metadata.uid = Some(uid);
            record.pod.metadata.creation_timestamp = created;
            record.objects = request.objects.clone();
            record.offline = request.offline;
            record.detached |= request.detached;
            if let Err(error) = record::save(&self.paths.record(), &*record) {
                drop(record);
                self.news(News::Trouble(format!("failed to save the changed pod: {error}")));
            }
        }
        self.sources.set(self.sources.get() + 1);
        if self.volumes_ready.get() {
            let running = self.clone();
            tokio::task::spawn_local(async move {
                if let Err(message) = volumes::refresh(&running).await {
                    running.news(News::Trouble(format!("failed to refresh volumes: {message}")));
                }
            });
        }
        self.pod()
    }

    /// A warning about the pod as a whole, given once: `reason`, `message`.
    pub(crate) fn note_once(&self, reason: &str, message: &str) {
        if self.warned.borrow_mut().insert(format!("{reason}{message}")) {
            self.note(Notice {
                at: self.now(),
                warning: true,
                reason: reason.into(),
                message: message.into(),
                field_path: String::new(),
            });
        }
    }

    /// What the engine cannot do for this pod, said once.
    pub(crate) fn note_trouble_once(&self, text: String) {
        if self.warned.borrow_mut().insert(text.clone()) {
            self.news(News::Trouble(text));
        }
    }

    /// A warning event about one container.
    pub(crate) fn warn_container(&self, container: &str, reason: &str, message: &str) {
        let spec = self.spec();
        let is_init = spec.init_containers.iter().flatten().any(|c| c.name == container);
        let list = if is_init { "initContainers" } else { "containers" };
        let field_path = format!("spec.{list}{{{container}}}");
        self.note(Notice { at: self.now(), warning: true, reason: reason.into(), message: message.into(), field_path });
    }

    /// What a shim had written down before now.
    pub(crate) fn old_events(&self) -> Vec<Event> {
        let facts = pod_shim::protocol::read_facts(&self.paths.run).unwrap_or_default();
        facts.into_iter().map(|fact| self.event_of(fact, false)).collect()
    }

    // --- the shim ---

    pub(crate) fn shim(&self) -> Option<Client> {
        self.shim.borrow().clone()
    }

    pub(crate) fn shim_pid(&self) -> Option<u32> {
        self.shim_pid.get()
    }

    /// Listens to a shim's facts from the first one on; the first `replayed` of them are old.
    pub(crate) fn attach_shim(self: &Rc<Self>, shim: Attached) -> Result<(), String> {
        let Attached { pid, client, mut facts, replayed } = shim;
        // It answers, so the number is its own at this moment, and the descriptor stays its root.
        let root = std::fs::File::open(format!("/proc/{pid}/root"))
            .map_err(|error| format!("failed to reach the mounts of shim {pid}: {error}"))?;
        *self.shim_root.borrow_mut() = Some(root.into());
        let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))
            .map_err(|error| format!("failed to reach the network of shim {pid}: {error}"))?;
        *self.network.borrow_mut() = Some(network.into());
        *self.shim.borrow_mut() = Some(client);
        self.shim_pid.set(Some(pid));
        self.shim_changed.notify_waiters();
        let running = self.clone();
        tokio::task::spawn_local(async move {
            let mut heard = 0;
            while let Some(fact) = facts.recv().await {
                heard += 1;
                let event = running.event_of(fact, heard > replayed);
                running.tell(event);
            }
            // A shim that is taken down on purpose was detached before. What it leaves is removed by the plan's next
            // step, after the ledger knows of the loss.
            if running.shim_pid.get() == Some(pid) {
                running.detach_shim();
                running.tell(Event::SandboxLost);
            }
        });
        Ok(())
    }

    pub(crate) fn detach_shim(&self) -> Option<(u32, Client)> {
        let client = self.shim.borrow_mut().take();
        self.shim_root.borrow_mut().take();
        self.network.borrow_mut().take();
        // What was in its memory is gone with it.
        self.volumes_ready.set(false);
        Some((self.shim_pid.take()?, client?))
    }

    /// The attempt of a container that has a process now.
    pub(crate) fn alive(&self, container: &str) -> Option<u32> {
        self.alive.borrow().get(container).copied()
    }

    pub(crate) fn all_alive(&self) -> Vec<String> {
        self.alive.borrow().keys().cloned().collect()
    }

    pub(crate) fn network_namespace(&self) -> Result<OwnedFd, String> {
        let network = self.network.borrow().as_ref().map(OwnedFd::try_clone).ok_or("the pod's sandbox is gone")?;
        network.map_err(|error| format!("failed to keep the pod's network open: {error}"))
    }

    /// A path as the shim's mount namespace has it, and the descriptor it goes through, to be kept while it is used.
    pub(crate) fn through_shim(&self, path: &Path) -> Result<(PathBuf, OwnedFd), String> {
        let root = self.shim_root.borrow().as_ref().map(OwnedFd::try_clone).ok_or("the pod's sandbox is gone")?;
        let root = root.map_err(|error| format!("failed to keep the sandbox's root open: {error}"))?;
        let inside = path.strip_prefix("/").unwrap_or(path);
        Ok((Path::new("/proc/self/fd").join(root.as_raw_fd().to_string()).join(inside), root))
    }

    /// `live`: it has just happened. The shim tells wall time, the engine's clock does not follow the wall's steps
    /// (suspend, NTP): a live fact is never from the future, nor from long ago.
    fn event_of(&self, fact: Fact, live: bool) -> Event {
        let from_nanos = |nanos: u64| {
            let (now, at) = (self.now(), from_nanos(nanos));
            let stale = now.as_nanosecond() - at.as_nanosecond() > LATE_FACT_NANOS;
            if at > now || (live && stale) { now } else { at }
        };
        match fact {
            Fact::Started { container, attempt, at_nanos, identity, .. } => Event::Started {
                container_id: self.container_id(&container, attempt),
                container,
                attempt,
                at: from_nanos(at_nanos),
                identity: pod_plan::Identity { uid: identity.uid, gid: identity.gid, groups: identity.groups },
            },
            Fact::StartFailed { container, attempt, stage: Stage::Create, message, .. } => {
                Event::CreateFailed { container, attempt, message }
            }
            Fact::StartFailed { container, attempt, stage: Stage::Start, at_nanos, message } => {
                Event::StartFailed { container, attempt, at: from_nanos(at_nanos), message }
            }
            Fact::Exited { container, attempt, exit, at_nanos } => {
                let message = termination::message(self, &container, attempt, exit.code);
                let exit = pod_plan::Exit { code: exit.code, signal: exit.signal, oom_killed: exit.oom_killed };
                Event::Exited { container, attempt, at: from_nanos(at_nanos), exit, message }
            }
        }
    }

    pub(crate) fn container_id(&self, container: &str, attempt: u32) -> String {
        format!("outrigger://{}-{container}-{attempt}", self.record().uid)
    }

    // --- what steps ask for ---

    pub(crate) fn spec(&self) -> PodSpec {
        self.record().pod.spec.clone().unwrap_or_default()
    }

    pub(crate) fn container(&self, name: &str) -> Option<Container> {
        let record = self.record();
        let spec = record.pod.spec.as_ref()?;
        find_container(spec, name)
    }

    /// For one start: each begins with `EnsureImage`.
    pub(crate) fn take_image(&self, container: &str) -> Option<ReadyImage> {
        self.images.borrow_mut().remove(container)
    }

    pub(crate) fn remember_image(&self, container: &str, image: ReadyImage) {
        self.images.borrow_mut().insert(container.into(), image);
    }

    /// In the file after adoption.
    pub(crate) fn volume_image(&self, volume: &str) -> Option<ReadyImage> {
        if let Some(image) = self.volume_images.borrow().get(volume) {
            return Some(image.clone());
        }
        let written: BTreeMap<String, ReadyImage> = record::load(&self.paths.volume_images()).ok()?;
        let found = written.get(volume).cloned();
        self.volume_images.borrow_mut().extend(written);
        found
    }

    pub(crate) fn remember_volume_image(&self, volume: &str, image: ReadyImage) -> Result<(), String> {
        let mut images = self.volume_images.borrow_mut();
        images.insert(volume.into(), image);
        let path = self.paths.volume_images();
        record::save(&path, &*images).map_err(|error| format!("failed to write {}: {error}", path.display()))
    }

    pub(crate) fn remember_launch(&self, attempt: u32, snapshot: Snapshot) {
        let container = snapshot.container.name.clone();
        self.launches.borrow_mut().insert(container, (attempt, Rc::new(snapshot)));
    }

    /// An attempt as it was launched, by this engine or an earlier one.
    pub(crate) fn launched(&self, container: &str, attempt: u32) -> Option<Rc<Snapshot>> {
        if let Some((known, snapshot)) = self.launches.borrow().get(container)
            && *known == attempt
        {
            return Some(snapshot.clone());
        }
        let snapshot: Snapshot = record::load(&self.paths.launch(container, attempt)).ok()?;
        let snapshot = Rc::new(snapshot);
        let mut launches = self.launches.borrow_mut();
        if launches.get(container).is_none_or(|(known, _)| *known < attempt) {
            launches.insert(container.into(), (attempt, snapshot.clone()));
        }
        Some(snapshot)
    }

    pub(crate) fn forget_launch(&self, container: &str, attempt: u32) {
        let mut launches = self.launches.borrow_mut();
        if launches.get(container).is_some_and(|(known, _)| *known == attempt) {
            launches.remove(container);
        }
    }

    /// When the pod is on its way to its end.
    pub(crate) async fn ended(&self) {
        loop {
            let changed = self.shim_changed.notified();
            if self.ending.get() {
                return;
            }
            changed.await;
        }
    }

    /// Waits for the shim, whose mount namespace holds the memory volumes; not beyond the pod's end.
    pub(crate) async fn shim_standing(&self) -> Result<(), String> {
        loop {
            let changed = self.shim_changed.notified();
            if self.shim_pid().is_some() {
                return Ok(());
            }
            if self.ending.get() {
                return Err("the pod is being stopped".into());
            }
            changed.await;
        }
    }

    /// No step may wait for something that will not come any more.
    pub(crate) fn end_waits(&self) {
        self.ending.set(true);
        self.shim_changed.notify_waiters();
    }

    /// After adoption: what the plan knew of the network.
    pub(crate) fn recall_ips(&self, status: &PodStatus) {
        let ips = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok());
        *self.ips.borrow_mut() = ips.collect();
    }

    /// After adoption: volumes that the plan takes for ready follow their sources again.
    pub(crate) fn recall_volumes(&self) {
        self.volumes_ready.set(true);
    }

    pub(crate) fn pod_ips(&self) -> Vec<IpAddr> {
        self.ips.borrow().clone()
    }

    /// Where probes and hooks connect: the pod's address, or loopback on the host's network.
    pub(crate) fn target_ip(&self) -> IpAddr {
        // Never the host's loopback by mistake: its services are not the pod's.
        self.ips.borrow().first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST))
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        self.record().cgroup.clone()
    }

    /// Runs `read` with everything that downward fields may refer to.
    pub(crate) fn with_context<T>(&self, read: impl FnOnce(&PodContext<'_>) -> T) -> T {
        let record = self.record();
        let ips = self.ips.borrow();
        let hostname = self.hostname(&record.pod);
        read(&PodContext {
            pod: &record.pod,
            uid: &record.uid,
            pod_ips: &ips,
            node: &self.cx.node,
            objects: &record.objects,
            hostname: &hostname,
        })
    }

    /// What `hostname` prints inside.
    fn hostname(&self, pod: &Pod) -> String {
        if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            return self.cx.node.name.clone();
        }
        Names::of(pod, CLUSTER_DOMAIN).map(|names| names.kernel_hostname).unwrap_or_default()
    }

    // --- steps ---

    /// Does one step; the answer goes back to the plan. `None`: the answer comes by itself (a fact of the shim).
    pub(crate) async fn execute(self: &Rc<Self>, step: Step) -> Option<Event> {
        match step {
            Step::PrepareVolumes => Some(volumes::prepare(self).await),
            Step::CreateSandbox => Some(sandbox::create(self).await),
            Step::EnsureImage { container } => Some(crate::image::ensure(self, container).await),
            Step::Start { container, attempt } => launch::start(self, container, attempt).await,
            Step::RunHook { container, attempt, hook, abandon_after } => {
                let outcome = check::run_hook(self, &container, attempt, hook, abandon_after).await;
                Some(Event::HookEnded { container, attempt, hook, at: self.now(), outcome })
            }
            Step::Probe { container, attempt, probe } => {
                let outcome = check::run_probe(self, &container, attempt, probe).await;
                Some(Event::ProbeEnded { container, attempt, probe, at: self.now(), outcome })
            }
            Step::Terminate { container, attempt } => {
                let signal = launch::stop_signal(self, &container, attempt);
                self.signal(&container, attempt, signal).await;
                None
            }
            Step::Kill { container, attempt } => {
                self.signal(&container, attempt, rustix::process::Signal::KILL.as_raw()).await;
                None
            }
            Step::RemoveAttempt { container, attempt } => {
                teardown::remove_attempt(self, &container, attempt).await;
                None
            }
            Step::Resize { containers } => {
                let outcome = crate::resize::apply(self, containers).await;
                Some(Event::ResizeEnded { outcome })
            }
            Step::RemoveSandbox => {
                teardown::remove_sandbox_for_good(self).await;
                Some(Event::SandboxRemoved)
            }
        }
    }

    /// A container that is already gone needs no signal: its exit is on the way.
    async fn signal(&self, container: &str, attempt: u32, signal: i32) {
        let Some(shim) = self.shim() else { return };
        match shim.signal(container, attempt, signal).await {
            Ok(()) | Err(RequestError::Refused(_) | RequestError::Gone) => {}
            Err(error) => {
                self.news(News::Trouble(format!("failed to signal container {container}: {}", chain(&error))))
            }
        }
    }
}

/// Whatever its part in the pod.
pub(crate) fn find_container(spec: &PodSpec, name: &str) -> Option<Container> {
    let ephemeral = || {
        let mut ephemerals = spec.ephemeral_containers.iter().flatten();
        ephemerals.find(|container| container.name == name).map(pod_plan::as_container)
    };
    pod_api::role::find(spec, name).map(|(_, container)| container.clone()).or_else(ephemeral)
}

/// Guaranteed pods sit directly below the root, the others below their class, as a kubelet lays them out.
pub(crate) fn cgroup_of(roots: &Roots, pod: &Pod, uid: &str) -> PathBuf {
    let spec = pod.spec.clone().unwrap_or_default();
    let top = roots.cgroup();
    let top = match pod_api::qos::qos_class(&spec) {
        Ok(pod_api::qos::QosClass::Guaranteed) => top,
        Ok(class) => top.join(class.as_str().to_lowercase()),
        // Validation lets no unreadable quantity through.
        Err(_) => top.join("besteffort"),
    };
    top.join(format!("pod{uid}"))
}

/// Says which limits this machine does not hold, and why.
pub(crate) fn report_unapplied(running: &Running, owner: &str, unapplied: &[Unapplied]) {
    for Unapplied { limit, reason } in unapplied {
        running.news(News::Trouble(format!("{owner}: limit {limit} is not enforced on this machine: {reason}")));
    }
}

/// The hook's name as the manifest spells it.
pub(crate) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::PostStart => "postStart",
        Hook::PreStop => "preStop",
    }
}
