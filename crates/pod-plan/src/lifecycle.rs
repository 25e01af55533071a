//! A pod's facts, and the way from facts to steps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};

use crate::agenda::Agenda;
use crate::condition::{Foreign, Transition};
use crate::facts::{Attempt, Container, HookState, Launch, Sandbox, SandboxState, Volumes};
use crate::phase::Phase;
use crate::probe;
use crate::resize::Resize;
use crate::shape::{PodShape, Role, containers_of};
use crate::stop::{PodStop, PodStopCause};
use crate::{Hook, Notice, Plan, Step, Time};

/// Everything that is known of one pod. The engine folds events in ([`Lifecycle::apply`]), asks what to do
/// ([`Lifecycle::plan`]), says what it begins ([`Lifecycle::begin`]) and saves the whole as its ledger.
///
/// Time is the engine's wall clock and must not go back between calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    pub(crate) pod: PodShape,
    /// `status.startTime`.
    pub(crate) created: Time,
    pub(crate) volumes: Volumes,
    pub(crate) sandbox: Sandbox,
    /// In start order; what a changed manifest dropped stands at the end until it is gone.
    pub(crate) containers: Vec<Container>,
    /// The container after the one launched last: a pass goes on from here, so that one that fails and may try again at
    /// once lets the others have their turn first.
    pub(crate) cursor: usize,
    /// The next attempt numbers of containers that are gone, should they come back.
    pub(crate) retired: BTreeMap<String, u32>,
    pub(crate) stop: Option<PodStop>,
    /// Somebody asked for the pod to be deleted.
    pub(crate) deleted: bool,
    pub(crate) transitions: Vec<Transition>,
    pub(crate) foreign: Vec<Foreign>,
    pub(crate) notices: Vec<Notice>,
    #[serde(default)]
    pub(crate) resize: Resize,
}

/// One container as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView<'a> {
    pub name: &'a str,
    pub role: Role,
    pub image: &'a str,
    /// The newest attempt; `None` before the first.
    pub attempt: Option<u32>,
    /// It has a process.
    pub running: bool,
}

/// One attempt as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView<'a> {
    pub number: u32,
    pub container_id: &'a str,
    /// `None` if it never came to run.
    pub started: Option<Time>,
    pub ended: Option<Time>,
    pub exit_code: Option<i32>,
}

impl Lifecycle {
    /// `pod`: defaulted and validated; one that may not run here fails at once (`SysctlForbidden`). `uid` is the object's, whatever the manifest says; `now` becomes
    /// `status.startTime`.
    pub fn new(pod: &Pod, uid: &str, now: Time) -> Self {
        let mut lifecycle = Self {
            pod: PodShape::new(pod, uid),
            created: now,
            volumes: Volumes::Needed { retry: now, failures: 0 },
            sandbox: Sandbox { state: SandboxState::Needed(now), era: 0, ips: Vec::new(), host_ip: None },
            containers: containers_of(pod).into_iter().map(|shape| Container::new(shape, 0)).collect(),
            cursor: 0,
            retired: BTreeMap::new(),
            stop: None,
            deleted: false,
            transitions: Vec::new(),
            foreign: Vec::new(),
            notices: Vec::new(),
            resize: Resize::default(),
        };
        lifecycle.admit(pod, now);
        lifecycle.conclude(now);
        lifecycle
    }

    /// What to do at `now`, and when to ask again. Changes nothing.
    pub fn plan(&self, now: Time) -> Plan {
        let view = self.settled(now);
        let mut agenda = Agenda::new(now);
        view.plan_stops(&mut agenda);
        view.plan_surroundings(&mut agenda);
        view.plan_launch(&mut agenda);
        view.plan_probes(&mut agenda);
        view.plan_resize(&mut agenda);
        view.plan_removal(&mut agenda);
        agenda.wake_at(view.next_turn_of_time());
        agenda.finish(view.is_finished())
    }

    /// The engine is about to do `step`: it is not asked for again until its outcome is known. A step that no longer
    /// makes sense is ignored.
    pub fn begin(&mut self, step: &Step, now: Time) {
        self.turn_time(now);
        match step {
            Step::PrepareVolumes => {
                if let Volumes::Needed { failures, .. } = self.volumes {
                    self.volumes = Volumes::Preparing { failures };
                }
            }
            Step::CreateSandbox => {
                if let SandboxState::Needed(_) = self.sandbox.state {
                    self.sandbox.state = SandboxState::Creating;
                }
            }
            Step::RemoveSandbox => self.sandbox.state = SandboxState::Removing,
            Step::EnsureImage { container } => {
                if let Some(index) = self.index(container) {
                    self.cursor = index + 1;
                    let container = &mut self.containers[index];
                    container.backs_off = None;
                    container.launch = Launch::Pulling { since: now, announced: false, stale: false };
                }
            }
            Step::Start { container, attempt } => self.begin_with(container, |container| {
                container.count_restart(*attempt, now);
                container.launch = Launch::Starting { number: *attempt, stale: false };
                container.starting = Some(container.shape.resources());
            }),
            Step::Resize { containers } => self.begin_resize(containers),
            Step::RunHook { container, attempt, hook, .. } => self.begin_with(container, |container| {
                let Some(attempt) = container.attempt_mut(*attempt) else { return };
                match (hook, &mut attempt.stop) {
                    (Hook::PostStart, _) => attempt.post_start = attempt.post_start.begin(),
                    (Hook::PreStop, Some(stop)) => stop.pre_stop = stop.pre_stop.begin(),
                    (Hook::PreStop, None) => {}
                }
            }),
            Step::Probe { container, attempt, probe } => self.begin_with(container, |container| {
                let Container { shape, attempts, .. } = container;
                let Some(attempt) = attempts.iter_mut().find(|a| a.number == *attempt) else { return };
                let (Some(numbers), Some(up)) = (shape.probe(*probe), attempt.up_since()) else { return };
                let Some((anchor, _)) = probe::grid(shape, attempt, *probe, up, numbers) else { return };
                attempt.probes.worker_mut(*probe).begin(anchor, numbers, now);
            }),
            Step::Terminate { container, .. } => {
                if let Some(index) = self.index(container) {
                    self.begin_terminate(index, now);
                }
            }
            Step::Kill { container, .. } => {
                if let Some(index) = self.index(container) {
                    self.begin_kill(index);
                }
            }
            Step::RemoveAttempt { container, attempt } => self.begin_with(container, |container| {
                container.first_number = container.next_number();
                container.attempts.retain(|known| known.number != *attempt);
            }),
        }
        self.conclude(now);
    }

    fn begin_with(&mut self, name: &str, change: impl FnOnce(&mut Container)) {
        if let Some(index) = self.index(name) {
            change(&mut self.containers[index]);
        }
    }

    /// After an engine crash: what died with the engine (pulls, hooks, probes, preparations) is asked for again.
    /// Containers went on meanwhile; their facts may be folded in before or after. Signals are not sent twice, except
    /// SIGKILL.
    pub fn resume(&mut self, now: Time) {
        if let Volumes::Preparing { failures } = self.volumes {
            self.volumes = Volumes::Needed { retry: now, failures };
        }
        match self.sandbox.state {
            SandboxState::Creating => self.sandbox.state = SandboxState::Needed(now),
            SandboxState::Removing => self.sandbox.state = SandboxState::Lost,
            _ => {}
        }
        self.cursor = 0;
        self.resume_resize(now);
        for container in &mut self.containers {
            container.launch = match container.launch {
                Launch::Pulling { .. } => Launch::Idle,
                // The image is there; the engine sees to it that no attempt is started twice.
                Launch::Starting { stale: false, .. } => Launch::Pulled,
                Launch::Starting { stale: true, .. } => Launch::Idle,
                launch => launch,
            };
            let Some(attempt) = container.alive_mut() else { continue };
            if attempt.post_start == HookState::Running {
                attempt.post_start = HookState::Due;
            }
            for kind in probe::KINDS {
                attempt.probes.worker_mut(kind).resume();
            }
            if let Some(stop) = &mut attempt.stop {
                stop.resume();
            }
        }
        self.turn_time(now);
        self.conclude(now);
    }

    /// The status as `kubectl` shows it, without `qosClass`. A projection: nothing of it is stored.
    pub fn status(&self, now: Time) -> PodStatus {
        self.settled(now).status_now()
    }

    /// The Kubernetes events since the last call, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// A condition that is not ours, as clients write it through `pods/status` (readiness gates). `status` is `True`,
    /// `False` or `Unknown`; an empty one takes the condition away.
    pub fn set_condition(&mut self, kind: &str, status: &str, now: Time) {
        self.set_foreign(kind, status, now);
        self.conclude(now);
    }

    /// The container's next attempt has at least this number: earlier ones are known to have been, though nothing else of
    /// them is.
    pub fn go_on_from(&mut self, container: &str, number: u32) {
        if let Some(index) = self.index(container) {
            let container = &mut self.containers[index];
            container.first_number = container.first_number.max(number);
        }
    }

    /// Lets time alone have its effects (deadline, back-offs that get a name) and notes their Kubernetes events.
    /// [`Self::plan`] and [`Self::status`] see them anyway; call this on a wake to have the notices in time.
    pub fn settle(&mut self, now: Time) {
        self.turn_time(now);
        self.conclude(now);
    }
}

// === readers ===

impl Lifecycle {
    /// In start order.
    pub fn containers(&self) -> impl Iterator<Item = ContainerView<'_>> {
        self.wanted().map(|(_, container)| ContainerView {
            name: container.name(),
            role: container.shape.role,
            image: container.shape.image(),
            attempt: container.last().map(|attempt| attempt.number),
            running: container.alive().is_some(),
        })
    }

    /// The known attempts of a container, oldest first: the last two, and what is about to be forgotten.
    pub fn attempts(&self, container: &str) -> Vec<AttemptView<'_>> {
        let attempts = self.index(container).map(|index| self.containers[index].attempts.as_slice());
        attempts.unwrap_or_default().iter().map(Attempt::view).collect()
    }

    /// The number the next attempt of this container will have.
    pub fn next_attempt(&self, container: &str) -> Option<u32> {
        self.index(container).map(|index| self.containers[index].next_number())
    }

    /// The pod has ended and its sandbox is gone.
    pub fn is_finished(&self) -> bool {
        self.stop.is_some() && self.sandbox.state == SandboxState::Removed
    }

    /// The pod is on its way to its end, or there.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Somebody asked for the pod to be gone; it did not merely come to its end.
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// The sandbox stood when last heard of.
    pub fn has_sandbox(&self) -> bool {
        self.sandbox.state == SandboxState::Ready
    }

    /// The volumes are prepared.
    pub fn has_volumes(&self) -> bool {
        self.volumes == Volumes::Ready
    }

    pub fn phase(&self) -> Phase {
        self.phase_of(&self.container_statuses())
    }

    /// `status.startTime`.
    pub fn created(&self) -> Time {
        self.created
    }
}

impl Attempt {
    fn view(&self) -> AttemptView<'_> {
        AttemptView {
            number: self.number,
            container_id: &self.container_id,
            started: self.started,
            ended: self.end.as_ref().map(|end| end.at),
            exit_code: self.end.as_ref().map(|end| end.exit.code),
        }
    }
}

// === what follows from facts ===

impl Lifecycle {
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.containers.iter().position(|container| container.name() == name)
    }

    /// The containers of the present manifest, in start order.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (usize, &Container)> {
        self.containers.iter().enumerate().filter(|(_, container)| container.wanted)
    }

    /// After every change: does the pod end here, what is forgotten, which conditions turned.
    pub(crate) fn conclude(&mut self, now: Time) {
        if self.stop.is_none() {
            let cause = if self.initialisation().failed {
                Some(PodStopCause::InitFailed)
            } else if self.mains_are_done() {
                Some(PodStopCause::Completed)
            } else {
                None
            };
            if let Some(cause) = cause {
                self.stop_pod(PodStop { since: now, grace: self.pod.grace, forced: false, cause });
            }
        }
        self.settle_resize(now);
        let Self { containers, retired, .. } = self;
        containers.retain(|container| {
            let gone = !container.wanted && !container.may_run() && container.attempts.is_empty();
            if gone {
                retired.insert(container.name().to_owned(), container.next_number());
            }
            !gone
        });
        self.record_transitions(now);
    }

    /// One probe of a kind at a time, each on its own grid.
    fn plan_probes(&self, agenda: &mut Agenda) {
        for (_, container) in self.wanted() {
            let Some(attempt) = container.alive() else { continue };
            for kind in probe::KINDS {
                let due = probe::due(&container.shape, attempt, kind, self.stop.is_some());
                if due.is_some_and(|time| agenda.is_due(time)) {
                    let container = container.name().to_owned();
                    agenda.step(Step::Probe { container, attempt: attempt.number, probe: kind });
                }
            }
        }
    }

    /// Old attempts, and the sandbox once nothing runs in it or before the pod starts over.
    fn plan_removal(&self, agenda: &mut Agenda) {
        for container in &self.containers {
            let keep = if container.wanted || container.may_run() { 2 } else { 0 };
            let old = container.attempts.len().saturating_sub(keep);
            for attempt in &container.attempts[..old] {
                let container = container.name().to_owned();
                agenda.step(Step::RemoveAttempt { container, attempt: attempt.number });
            }
        }
        let ended = self.stop.is_some() && self.all_down() && !matches!(self.volumes, Volumes::Preparing { .. });
        let removable = match self.sandbox.state {
            SandboxState::Needed(_) | SandboxState::Ready => ended,
            SandboxState::Lost => ended || self.stop.is_none(),
            SandboxState::Creating | SandboxState::Removing | SandboxState::Removed => false,
        };
        if removable {
            agenda.step(Step::RemoveSandbox);
        }
    }
}
