//! Pods in the terminal, until they end or are told to.
//!
//! ```text
//! our engine's feed ──┐
//! other engines' news ┼──▶ Session ──▶ terminal thread
//! signals ────────────┘      │
//!                            └──▶ stop, first in order, then at once
//! ```
//! A pod that another engine drives is followed over that engine's socket; to the person there is no difference.

mod logs;
mod remote;

use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod_engine::control::Request;
use pod_engine::{Hold, Message, News, PodRequest, Roots, RunError, record};
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use self::logs::OpenLogs;
use self::remote::{Heard, Remotes};
use super::{Work, grace};
use crate::exit::{self, Coded, ENGINE};
use crate::host::{self, OwnEngine};
use crate::manifest;
use crate::narrate::{Line, Tone};
use crate::terminal::label::PodKey;
use crate::terminal::thread::{Show, TerminalThread};

pub(crate) fn run(roots: &Roots, pod_cidr: ipnet::Ipv4Net, work: Work, notes: Vec<String>) -> anyhow::Result<u8> {
    host::block_on(async {
        let mut session = Session::open(roots, pod_cidr)?;
        for note in notes {
            session.terminal.show(Show::Say(Tone::Quiet, note));
        }
        if let Err(error) = session.begin(work) {
            session.give_up(error);
        }
        session.watch().await;
        session.end().await
    })?
}

struct Session {
    roots: Roots,
    pod_cidr: ipnet::Ipv4Net,
    own: Option<(OwnEngine, UnboundedReceiver<Message>)>,
    remotes: Remotes,
    logs: OpenLogs,
    pods: Vec<Followed>,
    terminal: TerminalThread,
    signals: Signals,
    /// The signal that ended it, if one did.
    stopped_by: Option<Signal>,
    /// A second request was heard: there is no more grace.
    hurried: bool,
    /// What went wrong on our side.
    failure: Option<anyhow::Error>,
}

/// One pod of the command.
struct Followed {
    key: PodKey,
    pod: Pod,
    /// The other engine's socket; `None` is ours.
    elsewhere: Option<PathBuf>,
    status: Option<PodStatus>,
    /// The pod's exit code, once it has ended by itself.
    code: Option<i32>,
    /// It ran before this command: when the command fails, it is not ours to stop.
    joined: bool,
    /// Nothing more will be heard of it.
    gone: bool,
    /// Its logs stay until they are printed.
    hold: Option<Hold>,
}

// === impl Session ===

impl Session {
    fn open(roots: &Roots, pod_cidr: ipnet::Ipv4Net) -> anyhow::Result<Self> {
        // Listened for before anything is begun: a Ctrl-C a moment after is already orderly.
        let signals = Signals::new().context("failed to listen for signals")?;
        let terminal = TerminalThread::start().context("failed to start the terminal's thread")?;
        Ok(Self {
            roots: roots.clone(),
            pod_cidr,
            own: None,
            remotes: Remotes::default(),
            logs: OpenLogs::new(roots.clone()),
            pods: Vec::new(),
            terminal,
            signals,
            stopped_by: None,
            hurried: false,
            failure: None,
        })
    }

    fn begin(&mut self, work: Work) -> anyhow::Result<()> {
        match work {
            Work::Run(requests) => {
                let pods: Vec<Pod> = requests.iter().map(|request| request.pod.clone()).collect();
                pods.iter().for_each(|pod| self.follow(pod.clone()));
                requests.into_iter().try_for_each(|request| self.run(request))
            }
            Work::Adopt(pods) => {
                pods.iter().for_each(|pod| self.follow(pod.record.pod.clone()));
                pods.iter().try_for_each(|pod| self.adopt(&manifest::key(&pod.record.pod)))
            }
        }
    }

    fn follow(&mut self, pod: Pod) {
        let key = manifest::key(&pod);
        self.terminal.show(Show::Expect(key.clone(), manifest::containers(&pod)));
        self.pods.push(Followed {
            key,
            pod,
            elsewhere: None,
            status: None,
            code: None,
            joined: false,
            gone: false,
            hold: None,
        });
    }

    fn engine(&mut self) -> anyhow::Result<&OwnEngine> {
        if self.own.is_none() {
            let own = OwnEngine::open(&self.roots, self.pod_cidr)?;
            let feed = own.engine.feed().subscribe();
            self.own = Some((own, feed));
        }
        self.own.as_ref().map(|(own, _)| own).context("the engine is open")
    }

    fn run(&mut self, request: PodRequest) -> anyhow::Result<()> {
        let key = manifest::key(&request.pod);
        // The owner may change between the look and the request: an engine that ends, another that begins.
        for _ in 0..3 {
            let known = record::find(&self.roots, &key.0, &key.1).ok().flatten();
            let live = known.as_ref().is_some_and(|known| !has_ended(&known.status));
            if live {
                self.join(&key);
            }
            if let Some(socket) = known.filter(|known| known.owned).and_then(|known| known.owner) {
                let text = "has an engine already: it gets the manifest, this terminal follows".to_owned();
                self.terminal.show(Show::Line(key.clone(), Line::pod(Tone::Quiet, text)));
                self.remotes.ask(socket.clone(), vec![key.clone()], Request::Run { pods: vec![request] });
                self.find_mut(&key, |pod| pod.elsewhere = Some(socket));
                return Ok(());
            }
            let own = self.engine()?;
            let hold = own.engine.hold(&key.0, &key.1);
            match own.engine.run(request.clone()) {
                Err(RunError::Owned(_)) => std::thread::sleep(std::time::Duration::from_millis(5)),
                Err(error) => return Err(Coded::new(ENGINE, error).into()),
                Ok(()) => {
                    self.find_mut(&key, |pod| pod.hold = Some(hold));
                    return Ok(());
                }
            }
        }
        Err(Coded::new(ENGINE, RunError::Owned(format!("{}/{}", key.0, key.1))).into())
    }

    fn join(&mut self, key: &PodKey) {
        self.logs.only_new(key);
        self.find_mut(key, |pod| pod.joined = true);
    }

    fn adopt(&mut self, key: &PodKey) -> anyhow::Result<()> {
        self.join(key);
        let text = format!("taken over; earlier output: outrigger logs {}", key.1);
        self.terminal.show(Show::Line(key.clone(), Line::pod(Tone::Quiet, text)));
        let own = self.engine()?;
        let hold = own.engine.hold(&key.0, &key.1);
        own.engine.adopt(&key.0, &key.1).map_err(|error| Coded::new(ENGINE, error))?;
        self.find_mut(key, |pod| pod.hold = Some(hold));
        Ok(())
    }

    /// The command has failed: pods it began are stopped, those that ran before are left alone.
    fn give_up(&mut self, error: anyhow::Error) {
        self.failure.get_or_insert(error);
        self.pods.iter_mut().filter(|pod| pod.joined).for_each(|pod| pod.gone = true);
        self.stop(None);
    }

    /// Until every pod is gone.
    async fn watch(&mut self) {
        while self.pods.iter().any(|pod| !pod.gone) {
            // A detached pod that ended stays listed, and its engine says no last word: look whether it lets go.
            let ending = self.pods.iter().any(|pod| !pod.gone && pod.code.is_some() && pod.elsewhere.is_none());
            let tick = std::time::Duration::from_millis(if ending { 5 } else { 3_600_000 });
            // Every branch only takes from a queue or waits: nothing is lost when another one wins.
            tokio::select! {
                biased;
                signal = self.signals.next() => self.interrupted(signal),
                () = self.terminal.broken() => self.interrupted(Signal::HUP),
                Some(message) = next(&mut self.own) => self.hear(message),
                Some(heard) = self.remotes.next() => self.hear_remote(heard),
                () = tokio::time::sleep(tick) => self.let_go(),
            }
        }
    }

    fn interrupted(&mut self, signal: Signal) {
        if self.stopped_by.is_none() {
            self.stopped_by = Some(signal);
            let left: Vec<&Pod> = self.pods.iter().filter(|pod| !pod.gone).map(|pod| &pod.pod).collect();
            let text = grace::promise(left.len(), grace::longest(left.iter().copied()));
            self.terminal.show(Show::Stopping(text));
            self.stop(None);
        } else {
            if !self.hurried {
                self.hurried = true;
                self.terminal.show(Show::Say(Tone::Notable, "killing what still runs".into()));
            }
            // Said again each time: a terminal that stands still is not waited for either.
            self.stop(Some(0));
        }
    }

    /// `grace` in seconds; `None` is each pod's own.
    fn stop(&mut self, grace: Option<u64>) {
        for pod in self.pods.iter().filter(|pod| !pod.gone) {
            match (&pod.elsewhere, &self.own) {
                (Some(socket), _) => {
                    let request = Request::Stop { pods: vec![pod.key.clone()], grace };
                    self.remotes.tell(socket.clone(), request);
                }
                // It ended a moment ago: its last message is on the way.
                (None, Some((own, _))) => {
                    let _ = own.engine.stop(&pod.key.0, &pod.key.1, grace);
                }
                (None, None) => {}
            }
        }
        // What no engine ever took will not be heard of.
        let known = |pod: &Followed| match (&pod.elsewhere, &self.own) {
            (Some(_), _) => true,
            (None, Some((own, _))) => own.engine.driven().contains(&pod.key),
            (None, None) => false,
        };
        let unknown: Vec<PodKey> =
            self.pods.iter().filter(|pod| !pod.gone && !known(pod)).map(|pod| pod.key.clone()).collect();
        for key in unknown {
            self.find_mut(&key, |pod| pod.gone = true);
        }
    }

    fn hear(&mut self, message: Message) {
        let key = (message.namespace.clone(), message.name.clone());
        if !self.pods.iter().any(|pod| pod.key == key) {
            return;
        }
        match &message.news {
            News::Accepted { uid, .. } => self.logs.accept(&key, uid),
            News::Status(status) => {
                // Opened here and now: the engine, on this thread, removes a log only later.
                let opened = self.logs.open_new(&key, status);
                self.find_mut(&key, |pod| pod.status = Some((**status).clone()));
                // "started" stands above what a container says, "exited" below.
                let (running, over): (Vec<_>, Vec<_>) = opened.into_iter().partition(|(_, running)| *running);
                let show = |log| self.terminal.show(Show::Log(Box::new(log)));
                over.into_iter().for_each(|(log, _)| show(log));
                self.terminal.show(Show::News(Box::new(message)));
                running.into_iter().for_each(|(log, _)| show(log));
                return;
            }
            News::Finished { exit_code, .. } => {
                let code = *exit_code;
                self.find_mut(&key, |pod| {
                    pod.code = Some(code);
                    pod.gone |= pod.elsewhere.is_some();
                });
            }
            News::Removed => self.find_mut(&key, |pod| pod.gone = true),
            News::Ended => {
                let hold = self.pods.iter_mut().find(|pod| pod.key == key).and_then(|pod| pod.hold.take());
                if let Some(hold) = hold {
                    self.terminal.show(Show::Rest(key, hold));
                }
                return;
            }
            News::Notice(_) | News::Pull { .. } | News::Trouble(_) => {}
        }
        self.terminal.show(Show::News(Box::new(message)));
    }

    fn hear_remote(&mut self, heard: Heard) {
        match heard {
            Heard::News(message) => self.hear(*message),
            Heard::Refused { key, message } => {
                self.find_mut(&key, |pod| pod.gone = true);
                self.give_up(Coded::new(ENGINE, anyhow::Error::msg(message)).into());
            }
            Heard::Ended { keys } => keys.iter().for_each(|key| self.lost(key)),
        }
    }

    /// The other engine says nothing more about a pod. That is fine if it said that the pod ended.
    fn lost(&mut self, key: &PodKey) {
        if self.pods.iter().any(|pod| pod.key == *key && !pod.gone) {
            self.find_mut(key, |pod| pod.gone = true);
            let error = anyhow::anyhow!("the engine that drives pod {}/{} is gone; the pod goes on", key.0, key.1);
            let coded = Coded::new(ENGINE, error).hint(format!("take it with: outrigger run --adopt {}", key.1));
            self.failure.get_or_insert(coded.into());
        }
    }

    /// Pods of ours that ended and that the engine does not hold any more.
    fn let_go(&mut self) {
        let driven = self.own.as_ref().map(|(own, _)| own.engine.driven()).unwrap_or_default();
        for pod in &mut self.pods {
            pod.gone |= pod.code.is_some() && pod.elsewhere.is_none() && !driven.contains(&pod.key);
        }
    }

    fn find_mut(&mut self, key: &PodKey, change: impl FnOnce(&mut Followed)) {
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.key == *key) {
            change(pod);
        }
    }

    /// Of several pods, the first that is not 0.
    fn exit_code(&self) -> u8 {
        if let Some(signal) = self.stopped_by {
            return exit::interrupted(signal);
        }
        self.pods.iter().map(|pod| exit::of_pod(pod.code())).find(|code| *code != 0).unwrap_or(exit::OK)
    }

    /// What was heard last is shown; then the socket goes.
    async fn end(mut self) -> anyhow::Result<u8> {
        let code = self.exit_code();
        let mut signals = self.signals;
        self.terminal
            .finish(async move {
                let _ = signals.next().await;
            })
            .await;
        drop(self.own.take());
        self.failure.map_or(Ok(code), Err)
    }
}

impl Followed {
    /// As the engine said it; when somebody else stopped the pod, what its mains ended with.
    fn code(&self) -> i32 {
        let ends = self.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let codes = ends.filter_map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.exit_code));
        self.code.unwrap_or_else(|| codes.into_iter().find(|code| *code != 0).unwrap_or(0))
    }
}

fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The next message of our engine, if there is one.
async fn next(own: &mut Option<(OwnEngine, UnboundedReceiver<Message>)>) -> Option<Message> {
    match own {
        Some((_, feed)) => feed.recv().await,
        None => std::future::pending().await,
    }
}

/// The signals by which people and machines end a foreground command.
struct Signals {
    interrupt: Listener,
    terminate: Listener,
    hang_up: Listener,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        // Each keeps a signal that was not taken.
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }
}
