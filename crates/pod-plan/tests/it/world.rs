//! A simulated machine: containers, hooks, probes and pulls that behave as a script says, in virtual time. Carries a
//! plan's steps out and gives back the events.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pod_plan::{Event, Exit, Hook, Identity, ProbeKind, ProbeOutcome, Pulled, ResizeOutcome, Step, Time};

/// How a container behaves; all durations count from its start unless said otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// Exits by itself: code, when, by the OOM killer.
    pub(crate) exit: Option<(i32, SignedDuration, bool)>,
    /// What the stop signal does: code and how long it takes, or nothing.
    pub(crate) on_term: Option<(i32, SignedDuration)>,
    pub(crate) pull: Pull,
    pub(crate) start: Start,
    pub(crate) startup: ProbeBehaviour,
    pub(crate) liveness: ProbeBehaviour,
    pub(crate) readiness: ProbeBehaviour,
    pub(crate) post_start: HookBehaviour,
    pub(crate) pre_stop: HookBehaviour,
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Pull {
    Present,
    Takes(SignedDuration),
    Fails(String, String),
}

#[derive(Debug, Clone)]
pub(crate) enum Start {
    Takes(SignedDuration),
    ConfigFails(String),
    CreateFails(String),
    Fails(String),
}

/// A probe succeeds from one time until another; it takes a while itself.
#[derive(Debug, Clone)]
pub(crate) struct ProbeBehaviour {
    pub(crate) from: SignedDuration,
    pub(crate) until: SignedDuration,
    pub(crate) takes: SignedDuration,
    pub(crate) unknown: bool,
    pub(crate) warning: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct HookBehaviour {
    /// `None`: never ends.
    pub(crate) takes: Option<SignedDuration>,
    pub(crate) fails: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            exit: None,
            on_term: Some((0, SignedDuration::ZERO)),
            pull: Pull::Present,
            start: Start::Takes(SignedDuration::ZERO),
            startup: ProbeBehaviour::default(),
            liveness: ProbeBehaviour::default(),
            readiness: ProbeBehaviour::default(),
            post_start: HookBehaviour::default(),
            pre_stop: HookBehaviour::default(),
            message: String::new(),
        }
    }
}

impl Default for ProbeBehaviour {
    fn default() -> Self {
        Self {
            from: SignedDuration::ZERO,
            until: SignedDuration::MAX,
            takes: SignedDuration::ZERO,
            unknown: false,
            warning: false,
        }
    }
}

impl Default for HookBehaviour {
    fn default() -> Self {
        Self { takes: Some(SignedDuration::ZERO), fails: None }
    }
}

/// Something that will happen.
#[derive(Debug, Clone)]
enum Coming {
    /// Dies with the engine (pull, hook, probe, preparation): the event is lost in a crash.
    ByEngine(Event),
    Start {
        container: String,
        attempt: u32,
    },
    Exit {
        container: String,
        attempt: u32,
        exit: Exit,
    },
}

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) now: Time,
    behaviours: BTreeMap<String, Behaviour>,
    attempts: BTreeMap<(String, u32), Behaviour>,
    coming: Vec<(Time, u64, Coming)>,
    sequence: u64,
    /// Attempts that have a process, with their start.
    pub(crate) running: BTreeMap<String, (u32, Time)>,
    /// Attempt numbers that were used, per container.
    used: Vec<(String, u32)>,
    /// All facts a shim keeps: `Started` and `Exited`.
    pub(crate) facts: Vec<Event>,
    pub(crate) sandbox: Preparation,
    /// `None`: it is applied.
    pub(crate) resize: Option<ResizeOutcome>,
    pub(crate) volumes: Preparation,
    crashed: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Preparation {
    pub(crate) takes: SignedDuration,
    pub(crate) fails: Option<String>,
}

impl World {
    pub(crate) fn behaviour(&mut self, container: &str) -> &mut Behaviour {
        self.behaviours.entry(container.to_owned()).or_default()
    }

    /// One attempt's own; begins as a copy of the container's.
    pub(crate) fn attempt_behaviour(&mut self, container: &str, attempt: u32) -> &mut Behaviour {
        let general = self.behaviours.get(container).cloned().unwrap_or_default();
        self.attempts.entry((container.to_owned(), attempt)).or_insert(general)
    }

    fn of(&self, container: &str, attempt: u32) -> Behaviour {
        let own = self.attempts.get(&(container.to_owned(), attempt));
        own.or_else(|| self.behaviours.get(container)).cloned().unwrap_or_default()
    }

    fn later(&mut self, wait: SignedDuration, coming: Coming) {
        let at = self.now.checked_add(wait).unwrap_or(Time::MAX);
        self.sequence += 1;
        self.coming.push((at, self.sequence, coming));
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.coming.iter().map(|(at, _, _)| *at).min()
    }

    /// The next event that is due by now.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        loop {
            let index = (0..self.coming.len())
                .filter(|index| self.coming[*index].0 <= self.now)
                .min_by_key(|index| (self.coming[*index].0, self.coming[*index].1))?;
            let (at, _, coming) = self.coming.remove(index);
            match coming {
                Coming::ByEngine(mut event) => {
                    match &mut event {
                        Event::HookEnded { at: time, .. } | Event::ProbeEnded { at: time, .. } => *time = at,
                        _ => {}
                    }
                    return Some(event);
                }
                Coming::Start { container, attempt } => return Some(self.start(container, attempt, at)),
                Coming::Exit { container, attempt, exit } => {
                    if self.running.get(&container).is_none_or(|(running, _)| *running != attempt) {
                        continue;
                    }
                    self.running.remove(&container);
                    let message = self.of(&container, attempt).message;
                    let event = Event::Exited { container, attempt, at, exit, message };
                    self.facts.push(event.clone());
                    return Some(event);
                }
            }
        }
    }

    fn start(&mut self, container: String, attempt: u32, at: Time) -> Event {
        let earlier = self.running.insert(container.clone(), (attempt, at));
        assert!(earlier.is_none(), "two attempts of {container} run at once");
        if let Some((code, after, oom_killed)) = self.of(&container, attempt).exit {
            let exit = Exit { code, signal: None, oom_killed };
            self.later(after, Coming::Exit { container: container.clone(), attempt, exit });
        }
        let identity = Identity { uid: 0, gid: 0, groups: vec![0] };
        let container_id = format!("{container}-{attempt}");
        let event = Event::Started { container, attempt, at, container_id, identity };
        self.facts.push(event.clone());
        event
    }

    /// Begins to do what a step says.
    pub(crate) fn execute(&mut self, step: &Step) {
        match step.clone() {
            Step::PrepareVolumes => {
                let event = match self.volumes.fails.clone() {
                    Some(message) => Event::VolumesFailed { message },
                    None => Event::VolumesReady,
                };
                self.later(self.volumes.takes, Coming::ByEngine(event));
            }
            Step::CreateSandbox => {
                let event = match self.sandbox.fails.clone() {
                    Some(message) => Event::SandboxFailed { message },
                    None => Event::SandboxReady {
                        ips: vec!["10.88.0.2".parse().unwrap()],
                        host_ip: Some("192.0.2.1".parse().unwrap()),
                    },
                };
                self.later(self.sandbox.takes, Coming::ByEngine(event));
            }
            Step::RemoveSandbox => {
                assert!(self.running.is_empty(), "the sandbox goes while {:?} run", self.running);
                self.later(SignedDuration::ZERO, Coming::ByEngine(Event::SandboxRemoved));
            }
            Step::EnsureImage { container } => self.pull(container),
            Step::Start { container, attempt } => self.begin_start(container, attempt),
            Step::RunHook { container, attempt, hook, abandon_after } => {
                self.run_hook(container, attempt, hook, abandon_after);
            }
            Step::Probe { container, attempt, probe } => self.probe(container, attempt, probe),
            Step::Terminate { container, attempt } => {
                if let Some((code, wait)) = self.of(&container, attempt).on_term {
                    let exit = Exit { code, signal: None, oom_killed: false };
                    self.later(wait, Coming::Exit { container, attempt, exit });
                }
            }
            Step::Kill { container, attempt } => {
                let exit = Exit { code: 137, signal: Some(9), oom_killed: false };
                self.later(SignedDuration::ZERO, Coming::Exit { container, attempt, exit });
            }
            Step::RemoveAttempt { .. } => {}
            Step::Resize { .. } => {
                let outcome = self.resize.clone().unwrap_or(ResizeOutcome::Applied);
                self.later(SignedDuration::ZERO, Coming::ByEngine(Event::ResizeEnded { outcome }));
            }
        }
    }

    fn pull(&mut self, container: String) {
        let image_id = format!("sha256:{container}");
        match self.of(&container, 0).pull {
            Pull::Present => {
                let event = Event::ImageReady { container, image_id, pulled: None, host_userland: false };
                self.later(SignedDuration::ZERO, Coming::ByEngine(event));
            }
            Pull::Takes(wait) => {
                let took_ms = u64::try_from(wait.as_millis()).unwrap();
                let pulled = Some(Pulled { took_ms, took_with_wait_ms: took_ms, size: 1_234_567 });
                let announced = Event::Pulling { container: container.clone() };
                self.later(SignedDuration::ZERO, Coming::ByEngine(announced));
                let event = Event::ImageReady { container, image_id, pulled, host_userland: false };
                self.later(wait, Coming::ByEngine(event));
            }
            Pull::Fails(reason, message) => {
                let event = Event::ImageFailed { container, reason, message };
                self.later(SignedDuration::ZERO, Coming::ByEngine(event));
            }
        }
    }

    fn begin_start(&mut self, container: String, attempt: u32) {
        let at = self.now;
        let event = match self.of(&container, attempt).start {
            Start::Takes(wait) => {
                let known = (container.clone(), attempt);
                // The shim knows each attempt at most once: one asked for again after an engine crash goes on.
                if self.used.contains(&known) {
                    assert!(self.crashed, "{container}#{attempt} is started twice");
                    return;
                }
                self.used.push(known);
                self.later(wait, Coming::Start { container, attempt });
                return;
            }
            Start::ConfigFails(message) => Event::ConfigFailed { container, attempt, message },
            Start::CreateFails(message) => Event::CreateFailed { container, attempt, message },
            Start::Fails(message) => Event::StartFailed { container, attempt, at, message },
        };
        self.later(SignedDuration::ZERO, Coming::ByEngine(event));
    }

    fn run_hook(&mut self, container: String, attempt: u32, hook: Hook, abandon_after: Option<u64>) {
        let behaviour = self.of(&container, attempt);
        let behaviour = if hook == Hook::PostStart { behaviour.post_start } else { behaviour.pre_stop };
        let limit = abandon_after.map(|seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap()));
        let (wait, outcome) = match (behaviour.takes, limit) {
            (Some(takes), Some(limit)) if takes > limit => (limit, Err("abandoned".to_owned())),
            (None, Some(limit)) => (limit, Err("abandoned".to_owned())),
            (Some(takes), _) => (takes, behaviour.fails.map_or(Ok(()), Err)),
            (None, None) => return,
        };
        let event = Event::HookEnded { container, attempt, hook, at: self.now, outcome };
        self.later(wait, Coming::ByEngine(event));
    }

    fn probe(&mut self, container: String, attempt: u32, probe: ProbeKind) {
        let behaviour = self.of(&container, attempt);
        let behaviour = match probe {
            ProbeKind::Startup => behaviour.startup,
            ProbeKind::Liveness => behaviour.liveness,
            ProbeKind::Readiness => behaviour.readiness,
        };
        let age =
            self.running.get(&container).map_or(SignedDuration::ZERO, |(_, start)| self.now.duration_since(*start));
        let outcome = if behaviour.unknown {
            ProbeOutcome::Unknown("rpc error".to_owned())
        } else if age < behaviour.from || age >= behaviour.until {
            ProbeOutcome::Failure("HTTP probe failed with statuscode: 503".to_owned())
        } else if behaviour.warning {
            ProbeOutcome::Warning("Probe terminated redirects, Response body: ".to_owned())
        } else {
            ProbeOutcome::Success
        };
        let event = Event::ProbeEnded { container, attempt, probe, at: self.now, outcome };
        self.later(behaviour.takes, Coming::ByEngine(event));
    }

    /// The engine dies: what it was doing is lost, containers go on.
    pub(crate) fn crash_engine(&mut self) {
        self.crashed = true;
        self.coming.retain(|(_, _, coming)| !matches!(coming, Coming::ByEngine(_)));
    }

    /// The shim dies and takes its processes along.
    pub(crate) fn lose_sandbox(&mut self) {
        self.running.clear();
        self.coming.retain(|(_, _, coming)| matches!(coming, Coming::ByEngine(_)));
        self.facts.clear();
        self.used.clear();
    }
}
