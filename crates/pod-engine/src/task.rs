//! One task owns a pod: observe → plan → execute → publish, until nothing is left to do.
//!
//! ```text
//!   events (steps' outcomes, the shim's facts, people's commands, time)
//!      │
//!      ▼
//!   Lifecycle::apply ─▶ Lifecycle::plan ─▶ begin + save the ledger ─▶ spawn the step ─┐
//!      ▲                                                                              │
//!      └──────────────────────────────── its outcome ◀────────────────────────────────┘
//! ```
//!
//! *Start*: from a fresh record. *Stop*: a command; the plan does the rest. *Engine crash*: the ledger holds every step
//! begun; `adopted` resumes it and the shim repeats its facts.

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod_plan::{Event, Lifecycle, Step};
use tokio::sync::mpsc;

use crate::engine::{Context, PodRequest};
use crate::feed::News;
use crate::paths::PodPaths;
use crate::record::{self, Ownership, Record};
use crate::running::Running;
use crate::{attempts, eviction, sandbox, teardown, update};

/// A full /run is somebody else's to empty; asking once a second costs nothing.
const LEDGER_RETRY: Duration = Duration::from_secs(1);

/// What people ask of a pod.
#[derive(Debug)]
pub(crate) enum Command {
    Stop { grace: Option<u64> },
    Update(Box<PodRequest>),
    Condition { kind: String, status: String },
}

/// What can wake the task.
enum Wake {
    Event(Event),
    Command(Command),
    Timer,
}

#[derive(Debug)]
pub(crate) struct PodTask {
    running: Rc<Running>,
    lifecycle: Lifecycle,
    events: mpsc::UnboundedReceiver<Event>,
    commands: mpsc::UnboundedReceiver<Command>,
    published: Option<PodStatus>,
    adopted: bool,
    /// The ledger is behind the lifecycle.
    unsaved: bool,
    announced_end: bool,
    /// What was asked of a pod that is on its way to its end: the next pod of its name.
    successor: Option<Box<PodRequest>>,
    ownership: Ownership,
}

// === impl PodTask ===

impl PodTask {
    pub(crate) fn new(
        cx: Rc<Context>,
        paths: PodPaths,
        record: Record,
        ownership: Ownership,
    ) -> (Self, mpsc::UnboundedSender<Command>) {
        let mut lifecycle = Lifecycle::new(&record.pod, &record.uid, record.created);
        attempts::go_on(&mut lifecycle, &paths, &record.uid);
        Self::assemble(cx, paths, record, lifecycle, ownership, false)
    }

    pub(crate) fn adopted(
        cx: Rc<Context>,
        paths: PodPaths,
        record: Record,
        lifecycle: Lifecycle,
        ownership: Ownership,
    ) -> (Self, mpsc::UnboundedSender<Command>) {
        Self::assemble(cx, paths, record, lifecycle, ownership, true)
    }

    fn assemble(
        cx: Rc<Context>,
        paths: PodPaths,
        record: Record,
        lifecycle: Lifecycle,
        ownership: Ownership,
        adopted: bool,
    ) -> (Self, mpsc::UnboundedSender<Command>) {
        let (event_sender, events) = mpsc::unbounded_channel();
        let (command_sender, commands) = mpsc::unbounded_channel();
        let running = Rc::new(Running::new(cx, paths, record, event_sender));
        running.pristine.set(!adopted);
        let task = Self {
            running,
            lifecycle,
            events,
            commands,
            published: None,
            adopted,
            unsaved: true,
            announced_end: false,
            successor: None,
            ownership,
        };
        (task, command_sender)
    }

    pub(crate) fn running(&self) -> &Rc<Running> {
        &self.running
    }

    /// The whole life of the pod under this engine. Returns the request for the pod that is to follow it, if any.
    pub(crate) async fn drive(mut self) -> Option<Box<PodRequest>> {
        self.announce();
        if self.adopted {
            self.take_over().await;
        }
        let _eviction = eviction::watch(&self.running);
        loop {
            let now = self.running.now();
            if self.lifecycle.is_stopping() {
                self.running.end_waits();
            }
            let plan = self.lifecycle.plan(now);
            if plan.finished {
                self.publish();
                break;
            }
            if !plan.steps.is_empty() {
                let before = self.lifecycle.clone();
                for step in &plan.steps {
                    self.lifecycle.begin(step, now);
                }
                self.unsaved = true;
                // Written down before it is done: after a crash the outcome is looked for, not guessed.
                if !plan.steps.iter().any(must_be_written_first) || self.save_ledger() {
                    plan.steps.into_iter().for_each(|step| self.execute(step));
                } else {
                    self.lifecycle = before;
                    tokio::time::sleep(LEDGER_RETRY).await;
                }
                self.publish();
                continue;
            }
            self.publish();
            if self.unsaved {
                self.save_ledger();
            }
            let wake = plan.wake.map(|time| self.running.clock().until(time));
            match self.wait(wake).await {
                Wake::Event(event) => self.apply(event),
                Wake::Command(command) => self.obey(command),
                Wake::Timer => self.lifecycle.settle(self.running.now()),
            }
            // Whatever else has already arrived belongs to the same round.
            while let Ok(event) = self.events.try_recv() {
                self.apply(event);
            }
        }
        self.finish().await
    }

    /// An earlier engine's pod: what its shim has told since, then what it does now.
    async fn take_over(&mut self) {
        let now = self.running.now();
        let status = self.lifecycle.status(now);
        self.running.recall_ips(&status);
        if self.lifecycle.has_volumes() {
            self.running.recall_volumes();
        }
        for event in self.running.old_events() {
            self.lifecycle.apply(event, now);
        }
        self.lifecycle.resume(now);
        if self.lifecycle.has_sandbox() {
            sandbox::recall(&self.running).await;
        }
    }

    async fn wait(&mut self, timeout: Option<Duration>) -> Wake {
        let sleep = tokio::time::sleep(timeout.unwrap_or(Duration::from_secs(3600)));
        // Both receivers keep what was not taken, so losing the race costs nothing.
        tokio::select! {
            Some(event) = self.events.recv() => Wake::Event(event),
            Some(command) = self.commands.recv() => Wake::Command(command),
            () = sleep => Wake::Timer,
        }
    }

    fn apply(&mut self, event: Event) {
        self.unsaved = true;
        self.running.observe(&event);
        self.lifecycle.apply(event, self.running.now());
    }

    fn obey(&mut self, command: Command) {
        let now = self.running.now();
        match command {
            Command::Stop { grace } => {
                self.successor = None;
                self.lifecycle.apply(Event::StopRequested { grace }, now);
                self.save_ledger();
            }
            Command::Condition { kind, status } => {
                self.lifecycle.set_condition(&kind, &status, now);
                self.unsaved = true;
            }
            Command::Update(request) if self.lifecycle.is_stopping() && !self.is_about_this(&request) => {
                self.successor = Some(request);
            }
            // Its object was replaced by another one of the name: nothing of this one is wanted any more.
            Command::Update(request) if request.of_store && !self.is_about_this(&request) => {
                self.lifecycle.apply(Event::StopRequested { grace: None }, now);
                self.save_ledger();
                self.successor = Some(request);
            }
            Command::Update(request)
                if request.recreate && !update::sandbox_differences(&self.running.pod(), &request.pod).is_empty() =>
            {
                self.lifecycle.apply(Event::StopRequested { grace: None }, now);
                self.save_ledger();
                self.successor = Some(request);
            }
            Command::Update(request) => {
                let pod = self.running.update(&request);
                self.lifecycle.update(&pod, request.recreate, now);
                if request.of_store {
                    self.lifecycle.retry_sources(now);
                }
                self.save_ledger();
                self.announce();
                self.published = None;
            }
        }
    }

    /// Another pod of the name follows this one; the same object does not come again.
    fn is_about_this(&self, request: &PodRequest) -> bool {
        request.is_same_object(&self.running.record())
    }

    /// Spawned, so that a slow pull or hook never holds up a stop.
    fn execute(&self, step: Step) {
        let running = self.running.clone();
        tokio::task::spawn_local(async move {
            if let Some(event) = running.execute(step).await {
                running.tell(event);
            }
        });
    }

    fn announce(&self) {
        let record = self.running.record();
        let spec = record.pod.spec.clone().unwrap_or_default();
        let ephemerals = spec.ephemeral_containers.iter().flatten().map(|container| container.name.clone());
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let containers = containers.map(|container| container.name.clone()).chain(ephemerals).collect();
        self.running.news(News::Accepted { uid: record.uid.clone(), containers });
    }

    fn save_ledger(&mut self) -> bool {
        let saved = record::save(&self.running.paths.ledger(), &self.lifecycle);
        if let Err(error) = &saved {
            self.running.note_trouble_once(format!(
                "failed to save the pod's ledger, nothing is done until it can be: {error}"
            ));
        }
        self.unsaved = saved.is_err();
        saved.is_ok()
    }

    /// Status and events, to files for other processes and to the feed.
    fn publish(&mut self) {
        for notice in self.lifecycle.take_notices() {
            self.running.note(notice);
        }
        let status = self.running.complete(self.lifecycle.status(self.running.now()));
        if self.published.as_ref() == Some(&status) {
            return;
        }
        if let Err(error) = record::save(&self.running.paths.status(), &status) {
            self.running.news(News::Trouble(format!("failed to save the pod's status: {error}")));
        }
        self.running.news(News::Status(Box::new(status.clone())));
        if !self.announced_end
            && !self.lifecycle.is_deleted()
            && let Some(phase) = status.phase.as_deref().filter(|phase| matches!(*phase, "Succeeded" | "Failed"))
        {
            self.announced_end = true;
            let exit_code = exit_code(&self.running.record().pod, &status);
            self.running.news(News::Finished { phase: phase.into(), exit_code });
        }
        self.published = Some(status);
    }

    /// The plan is over. A detached pod that ended by itself stays listed with its logs until `down` or the next `run`
    /// of its name; nobody needs to own it for that.
    async fn finish(mut self) -> Option<Box<PodRequest>> {
        self.save_ledger();
        let mut keep = self.running.record().detached && !self.lifecycle.is_deleted();
        if keep {
            teardown::remove_data(&self.running).await;
        } else {
            self.let_readers_finish().await;
        }
        // What was asked in the last moment is not lost: a stop while the last step was under way, `down` of a pod that
        // ended long ago, the next pod of the name.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop { .. } => (keep, self.successor) = (false, None),
                Command::Update(request) if self.is_about_this(&request) => {}
                Command::Update(request) => self.successor = Some(request),
                Command::Condition { .. } => {}
            }
        }
        if !keep {
            teardown::forget(&self.running).await;
            self.running.news(News::Removed);
        }
        drop(self.ownership);
        self.successor
    }

    /// Who reads the logs may be slower than the pod was; a stop without grace is somebody who does not want to wait.
    async fn let_readers_finish(&mut self) {
        let (namespace, name) = {
            let record = self.running.record();
            (record.namespace().to_owned(), record.name().to_owned())
        };
        let Some(mut released) = self.running.cx.holds.close(&namespace, &name) else { return };
        self.running.news(News::Ended);
        loop {
            // Neither loses anything when the other wins.
            tokio::select! {
                () = released.wait() => return,
                Some(command) = self.commands.recv() => match command {
                    Command::Update(request) if self.is_about_this(&request) => {}
                    Command::Update(request) => self.successor = Some(request),
                    Command::Condition { .. } => {}
                    Command::Stop { grace } => {
                        self.successor = None;
                        if grace == Some(0) {
                            return;
                        }
                    }
                },
            }
        }
    }
}

/// A resumed lifecycle asks again for pulls and probes that were under way; nothing is lost or doubled by that.
fn must_be_written_first(step: &Step) -> bool {
    !matches!(step, Step::EnsureImage { .. } | Step::Probe { .. })
}

/// 0 when Succeeded, else the first failing main's code, in the manifest's order.
fn exit_code(pod: &Pod, status: &PodStatus) -> i32 {
    if status.phase.as_deref() == Some("Succeeded") {
        return 0;
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let code_of = |name: &str| {
        let statuses =
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        let found = statuses.into_iter().find(|s| s.name == name)?;
        Some(found.state.as_ref()?.terminated.as_ref()?.exit_code)
    };
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter_map(|container| code_of(&container.name))
        .find(|code| *code != 0)
        .unwrap_or(1)
}
