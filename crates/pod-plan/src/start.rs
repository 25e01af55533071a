//! Which container is started next. `kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go`
//! computeInitContainerActions, `…/kuberuntime_manager.go` computePodActions and SyncPod.
//!
//! Starting is a procedure of up to four steps: image, create and start, `postStart`. It is synchronous: while one
//! container is in it, no other begins. One that fails waits for its own time and lets the next one have a go.

use crate::agenda::Agenda;
use crate::backoff::CrashBackoff;
use crate::facts::{Attempt, Container, HookState, Launch, SandboxState, Volumes};
use crate::probe::is_started;
use crate::restart::restarts_after;
use crate::{Hook, Lifecycle, Step, Time};

/// What the init containers' facts amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Initialisation {
    /// The mains may start.
    pub(crate) done: bool,
    /// An init container has failed and its policy does not let it try again.
    pub(crate) failed: bool,
    /// Init containers and sidecars to be started now, in start order.
    to_start: Vec<usize>,
}

impl Lifecycle {
    /// Walks the init containers from the last to the first. The first one met that has run in this sandbox alone
    /// decides whether to move forward; earlier ones are looked at only to revive sidecars. So a sidecar that is down
    /// no longer holds up what comes after its successor, and completed init containers are never needed again.
    pub(crate) fn initialisation(&self) -> Initialisation {
        let inits: Vec<usize> =
            self.wanted().filter(|(_, c)| c.shape.is_initial() && !c.excused).map(|(index, _)| index).collect();
        let main_runs = self.wanted().any(|(_, c)| c.shape.is_main() && c.alive().is_some());
        let mut result = Initialisation { done: main_runs || inits.is_empty(), ..Initialisation::default() };
        let mut decided = main_runs;
        for (position, &index) in inits.iter().enumerate().rev() {
            let container = &self.containers[index];
            let sidecar = container.shape.is_sidecar();
            let Some(attempt) = self.attempt_here(container) else {
                if decided && sidecar {
                    result.to_start.push(index);
                }
                continue;
            };
            if decided && !sidecar {
                continue;
            }
            match self.init_verdict(container, attempt) {
                InitVerdict::Passed => match inits.get(position + 1) {
                    None => result.done = true,
                    Some(&next) if !decided => result.to_start.push(next),
                    Some(_) => {}
                },
                InitVerdict::Wait => {}
                InitVerdict::StartAgain => result.to_start.push(index),
                InitVerdict::Failed => return Initialisation { failed: true, ..Initialisation::default() },
            }
            decided = true;
        }
        if !decided {
            result.to_start.extend(inits.first());
        }
        result.to_start.reverse();
        result
    }

    /// The container's last attempt, if it belongs to the present sandbox.
    fn attempt_here<'a>(&self, container: &'a Container) -> Option<&'a Attempt> {
        container.last().filter(|attempt| attempt.era == self.sandbox.era)
    }

    fn init_verdict(&self, container: &Container, attempt: &Attempt) -> InitVerdict {
        let shape = &container.shape;
        match &attempt.end {
            None if shape.is_sidecar() && is_started(shape, attempt) => InitVerdict::Passed,
            None => InitVerdict::Wait,
            Some(_) if shape.is_sidecar() => InitVerdict::StartAgain,
            Some(end) if !end.is_failure() => InitVerdict::Passed,
            Some(end) if restarts_after(shape, self.pod.policy, end.init_code()) => InitVerdict::StartAgain,
            Some(_) => InitVerdict::Failed,
        }
    }

    /// A main that is down and is to run: never started, or to be started again.
    pub(crate) fn main_wants_start(&self, container: &Container) -> bool {
        match container.last() {
            None => true,
            Some(Attempt { end: None, .. }) => false,
            Some(Attempt { end: Some(end), .. }) => container.runs_again(self.pod.policy, end),
        }
    }

    /// Every main has ended and none will run again.
    pub(crate) fn mains_are_done(&self) -> bool {
        let mut mains = self.wanted().filter(|(_, c)| c.shape.is_main()).map(|(_, c)| c);
        mains.all(|main| !main.may_run() && !self.main_wants_start(main))
    }

    /// Containers that are to be started, in start order, whether or not their time has come. Ephemeral ones come first,
    /// also while the pod is being initialised, and never a second time.
    pub(crate) fn to_start(&self) -> Vec<usize> {
        let initialisation = self.initialisation();
        let ephemerals = self.wanted().filter(|(_, c)| c.shape.is_ephemeral() && c.last().is_none());
        let mut indices: Vec<usize> = ephemerals.map(|(index, _)| index).collect();
        indices.extend(initialisation.to_start);
        if initialisation.done {
            let mains = self.wanted().filter(|(_, c)| c.shape.is_main() && self.main_wants_start(c));
            indices.extend(mains.map(|(index, _)| index));
        }
        indices
    }

    /// Volumes and sandbox side by side.
    pub(crate) fn plan_surroundings(&self, agenda: &mut Agenda) {
        if self.stop.is_some() || matches!(self.sandbox.state, SandboxState::Lost | SandboxState::Removing) {
            return;
        }
        if let Volumes::Needed { retry, .. } = self.volumes
            && agenda.is_due(retry)
        {
            agenda.step(Step::PrepareVolumes);
        }
        if let SandboxState::Needed(retry) = self.sandbox.state
            && agenda.is_due(retry)
        {
            agenda.step(Step::CreateSandbox);
        }
    }

    /// The image of the first container is made present while volumes and sandbox are still being prepared.
    pub(crate) fn plan_launch(&self, agenda: &mut Agenda) {
        if self.stop.is_some() || matches!(self.sandbox.state, SandboxState::Lost | SandboxState::Removing) {
            return;
        }
        if let Some((_, container)) = self.wanted().find(|(_, c)| c.is_launching()) {
            agenda_launch(
                container,
                self.sandbox.state == SandboxState::Ready && self.volumes == Volumes::Ready,
                agenda,
            );
            return;
        }
        let (earlier, later): (Vec<usize>, Vec<usize>) =
            self.to_start().into_iter().partition(|index| *index < self.cursor);
        for index in later.into_iter().chain(earlier) {
            let container = &self.containers[index];
            if container.not_before().is_none_or(|time| agenda.is_due(time)) {
                agenda.step(Step::EnsureImage { container: container.name().to_owned() });
                return;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitVerdict {
    /// The next one may start.
    Passed,
    Wait,
    StartAgain,
    Failed,
}

/// The next step of a start procedure that has begun.
fn agenda_launch(container: &Container, surroundings_ready: bool, agenda: &mut Agenda) {
    let name = container.name().to_owned();
    match container.launch {
        Launch::Pulled if surroundings_ready => {
            agenda.step(Step::Start { container: name, attempt: container.next_number() });
        }
        Launch::Pulled | Launch::Pulling { .. } | Launch::Starting { .. } => {}
        Launch::Idle => {
            let Some(attempt) = container.alive() else { return };
            if attempt.post_start == HookState::Due && attempt.stop.is_none() {
                agenda.step(Step::RunHook {
                    container: name,
                    attempt: attempt.number,
                    hook: Hook::PostStart,
                    abandon_after: None,
                });
            }
        }
    }
}

impl Container {
    /// When the next attempt may begin; `None` is at once.
    fn not_before(&self) -> Option<Time> {
        self.retry.max(self.crash_wait())
    }

    /// Until when the crash back-off holds the next attempt up.
    pub(crate) fn crash_wait(&self) -> Option<Time> {
        let end = self.last()?.end.as_ref()?;
        if end.at_once { None } else { CrashBackoff::until(self.crash, end.at) }
    }

    /// The attempt ended that was stopped to be started again. Upstream kills and restarts in one pass, which looks at
    /// the facts from before the kill: the back-off is then judged by the end of the attempt *before*, so a container
    /// that was stopped by a probe starts again at once unless it keeps coming back too soon
    /// (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go` doBackOff).
    pub(crate) fn restarts_at_once(&self, now: Time) -> bool {
        let wait = self.previous_end().and_then(|end| CrashBackoff::until(self.crash, end.at));
        wait.is_none_or(|until| until <= now)
    }

    /// Counts the restart that begins now, once.
    pub(crate) fn count_restart(&mut self, number: u32, now: Time) {
        if self.counted == Some(number) {
            return;
        }
        self.counted = Some(number);
        let Some(end) = self.last().and_then(|attempt| attempt.end.as_ref()) else { return };
        let judged = if end.at_once { self.previous_end().map(|end| end.at) } else { Some(end.at) };
        if let Some(ended) = judged {
            self.crash = Some(CrashBackoff::next(self.crash, ended, now));
        }
    }
}
