//! Stopping: one container's way from the decision to its last signal, and the pod's way as the sum of them.
//!
//! ```text
//! decided ──preStop──▶ waits for its turn ──stop signal──▶ waits ──SIGKILL──▶ ended
//!    └─ g seconds ────────────────────────────────────────────┘ at least 2 s
//! ```
//!
//! Each stage takes whole seconds off the grace period `g`. `kubernetes/kubernetes
//! pkg/kubelet/kuberuntime/kuberuntime_container.go` killContainer and `…/kuberuntime_termination_order.go`; the same in
//! 1.32 to 1.36. When the engine restarts, a stop goes on where it was: a hook that died with the engine is run again,
//! a signal is not sent twice.

use serde::{Deserialize, Serialize};

use crate::agenda::Agenda;
use crate::duration::{after, whole_seconds};
use crate::facts::{Container, HookState};
use crate::restart::restarts_after_kill;
use crate::{Hook, Lifecycle, Notice, ProbeKind, Step, Time};

/// Seconds every container gets between its stop signal and SIGKILL.
const SHORTEST_WINDOW: u64 = 2;

/// The stop of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    /// It was promised to be started again.
    restart: bool,
    since: Time,
    /// Seconds.
    grace: u64,
    /// Waits for its turn among the pod's containers.
    ordered: bool,
    pub(crate) pre_stop: HookState,
    /// Set with the stop signal: when SIGKILL follows.
    kill_at: Option<Time>,
    killed: bool,
}

/// The stop of the pod. Once there is one, nothing is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodStop {
    pub(crate) since: Time,
    /// Seconds.
    pub(crate) grace: u64,
    /// SIGKILL at once.
    pub(crate) forced: bool,
    pub(crate) cause: PodStopCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PodStopCause {
    Deleted,
    /// Every main has ended for good.
    Completed,
    /// An init container has failed for good.
    InitFailed,
    /// The pod fails with this reason and message: deadline, eviction.
    Failed {
        reason: String,
        message: String,
    },
    /// It was never let in ([`crate::admission`]).
    Rejected {
        reason: String,
        message: String,
    },
}

/// Why a single container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Probe(ProbeKind),
    Definition,
    /// Its new resources take a restart.
    Resize,
    PostStartHook,
    /// The manifest no longer has it.
    Removed,
}

/// What is next in a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Run the hook, for at most so many seconds.
    Hook(u64),
    /// Send the stop signal; SIGKILL follows after so many seconds.
    Terminate(u64),
    Kill,
    Wait(Option<Time>),
}

impl Stop {
    /// `turn`: when the last container it has to wait for ended; `None` while one is left.
    fn next(&self, turn: Option<Time>, now: Time) -> Move {
        if self.killed {
            return Move::Wait(None);
        }
        if let Some(at) = self.kill_at {
            return if at <= now { Move::Kill } else { Move::Wait(Some(at)) };
        }
        let end = after(self.since, self.grace);
        let hook_end = match self.pre_stop {
            HookState::Due if now < end => {
                return Move::Hook(self.grace - whole_seconds(self.since, now).min(self.grace));
            }
            HookState::Running if now < end => return Move::Wait(Some(end)),
            // Abandoned, not killed: it dies with its container.
            HookState::Due | HookState::Running => end,
            HookState::Succeeded(at) | HookState::Failed(at) => at.clamp(self.since, end),
            HookState::Absent => self.since,
        };
        let left = self.grace - whole_seconds(self.since, hook_end).min(self.grace);
        if !self.ordered || left == 0 {
            return Move::Terminate(left.max(SHORTEST_WINDOW));
        }
        let patience = after(hook_end, left);
        let start = match turn {
            Some(turn) => turn.clamp(hook_end, patience),
            None if patience <= now => patience,
            None => return Move::Wait(Some(patience)),
        };
        Move::Terminate((left - whole_seconds(hook_end, start).min(left)).max(SHORTEST_WINDOW))
    }

    /// A new request at `now`: grace can only become less (`kubernetes/kubernetes pkg/kubelet/pod_workers.go`
    /// calculateEffectiveGracePeriod).
    fn shorten(&mut self, grace: u64, forced: bool, now: Time) {
        if forced {
            self.kill_at = Some(self.kill_at.map_or(now, |at| at.min(now)));
        } else if let Some(at) = self.kill_at {
            self.kill_at = Some(at.min(after(now, grace.max(SHORTEST_WINDOW))));
        } else if after(now, grace) < after(self.since, self.grace) {
            self.since = now;
            self.grace = grace;
        }
    }

    /// The hook outlived the grace period and nobody waited for it any more.
    pub(crate) fn abandoned_hook(&self, ended: Time) -> bool {
        after(self.since, self.grace) <= ended || self.kill_at.is_some()
    }

    pub(crate) fn promises_restart(&self) -> bool {
        self.restart
    }

    /// After an engine crash.
    pub(crate) fn resume(&mut self) {
        if self.pre_stop == HookState::Running {
            self.pre_stop = HookState::Due;
        }
        self.killed = false;
    }
}

impl PodStop {
    fn shorten(&mut self, grace: u64, forced: bool, now: Time) {
        if forced || after(now, grace) < after(self.since, self.grace) {
            self.since = now;
            self.grace = grace;
        }
        self.forced |= forced;
    }
}

impl Container {
    /// Begins the stop of the running attempt, if there is one that is not being stopped yet.
    fn begin_stop(&mut self, stop: Stop, message: String, at: Time) -> Option<Notice> {
        let path = self.shape.field_path();
        let attempt = self.alive_mut().filter(|attempt| attempt.stop.is_none())?;
        attempt.stop = Some(stop);
        Some(Notice::normal(at, "Killing", message, path))
    }
}

impl Lifecycle {
    /// Stops one container; the others go on.
    pub(crate) fn stop_container(&mut self, index: usize, why: Why, at: Time) {
        let container = &mut self.containers[index];
        let (name, shape) = (container.name(), &container.shape);
        let restart = match why {
            Why::Definition | Why::Resize => true,
            Why::Probe(_) => restarts_after_kill(shape, self.pod.policy),
            Why::PostStartHook | Why::Removed => false,
        };
        let probe_grace = match why {
            Why::Probe(kind) => shape.probe(kind).and_then(|probe| probe.grace),
            _ => None,
        };
        let what = match why {
            Why::Probe(ProbeKind::Startup) => "failed startup probe",
            Why::Probe(_) => "failed liveness probe",
            _ => "definition changed",
        };
        let message = match why {
            Why::Removed => format!("Stopping container {name}"),
            Why::PostStartHook => "FailedPostStartHook".to_owned(),
            Why::Resize => format!("Container {name} resize requires restart"),
            _ if shape.is_initial() => format!("Init container {name} {what}"),
            _ if restart => format!("Container {name} {what}, will be restarted"),
            _ => format!("Container {name} {what}"),
        };
        let stop = Stop {
            restart,
            since: at,
            grace: probe_grace.unwrap_or(self.pod.grace),
            ordered: false,
            pre_stop: HookState::planned(shape, Hook::PreStop),
            kill_at: None,
            killed: false,
        };
        let notice = container.begin_stop(stop, message, at);
        self.notices.extend(notice);
    }

    /// Decides that the pod ends: every running container begins to stop now.
    pub(crate) fn stop_pod(&mut self, stop: PodStop) {
        for container in &mut self.containers {
            container.backs_off = None;
        }
        let (since, grace, forced) = (stop.since, stop.grace, stop.forced);
        self.stop = Some(stop);
        for index in 0..self.containers.len() {
            // One that is being stopped already keeps its stage, takes its place in the order, and may have to hurry.
            if let Some(stop) = self.containers[index].alive_mut().and_then(|attempt| attempt.stop.as_mut()) {
                stop.ordered = true;
                stop.restart = false;
                stop.shorten(grace, forced, since);
            }
            self.stop_with_pod(index, since);
        }
    }

    /// Stops a running container as part of the pod's stop; also one that came up after the decision.
    pub(crate) fn stop_with_pod(&mut self, index: usize, at: Time) {
        let Some(pod_stop) = &self.stop else { return };
        let container = &mut self.containers[index];
        let stop = Stop {
            restart: false,
            since: pod_stop.since,
            grace: pod_stop.grace,
            ordered: true,
            pre_stop: HookState::planned(&container.shape, Hook::PreStop),
            kill_at: pod_stop.forced.then_some(pod_stop.since),
            killed: false,
        };
        let message = format!("Stopping container {}", container.name());
        let notice = container.begin_stop(stop, message, at);
        self.notices.extend(notice);
    }

    /// `grace`: seconds, or the manifest's.
    pub(crate) fn request_stop(&mut self, grace: Option<u64>, now: Time) {
        let forced = grace == Some(0);
        // Once termination has begun the pod's grace is at least a second.
        let grace = grace.unwrap_or(self.pod.grace).max(1);
        self.deleted = true;
        let Some(stop) = &mut self.stop else {
            return self.stop_pod(PodStop { since: now, grace, forced, cause: PodStopCause::Deleted });
        };
        stop.shorten(grace, forced, now);
        for stop in self.containers.iter_mut().filter_map(|c| c.alive_mut()?.stop.as_mut()) {
            stop.shorten(grace, forced, now);
        }
    }

    /// The steps and times of all stops under way: mains first, then back to the first init container.
    pub(crate) fn plan_stops(&self, agenda: &mut Agenda) {
        let (mains, others): (Vec<_>, Vec<_>) =
            self.containers.iter().enumerate().partition(|(_, c)| !c.shape.is_initial());
        for (index, container) in mains.into_iter().chain(others.into_iter().rev()) {
            let Some(attempt) = container.alive() else { continue };
            let Some(stop) = &attempt.stop else { continue };
            let (name, attempt) = (container.name().to_owned(), attempt.number);
            match stop.next(self.turn(index), agenda.now) {
                Move::Hook(seconds) => agenda.step(Step::RunHook {
                    container: name,
                    attempt,
                    hook: Hook::PreStop,
                    abandon_after: Some(seconds),
                }),
                Move::Terminate(_) => agenda.step(Step::Terminate { container: name, attempt }),
                Move::Kill => agenda.step(Step::Kill { container: name, attempt }),
                Move::Wait(until) => agenda.wake_at(until),
            }
        }
    }

    /// The stop signal goes out now: fixes when SIGKILL follows.
    pub(crate) fn begin_terminate(&mut self, index: usize, now: Time) {
        let turn = self.turn(index);
        let Some(stop) = self.containers[index].alive_mut().and_then(|attempt| attempt.stop.as_mut()) else { return };
        if stop.kill_at.is_some() {
            return;
        }
        let window = match stop.next(turn, now) {
            Move::Terminate(window) => window,
            _ => SHORTEST_WINDOW,
        };
        stop.kill_at = Some(after(now, window));
    }

    pub(crate) fn begin_kill(&mut self, index: usize) {
        if let Some(stop) = self.containers[index].alive_mut().and_then(|attempt| attempt.stop.as_mut()) {
            stop.killed = true;
        }
    }

    /// A sidecar waits until every main and the next sidecar after it have ended; what is not running holds up nobody.
    fn turn(&self, index: usize) -> Option<Time> {
        let since = self.stop.as_ref().map_or(Time::MIN, |stop| stop.since);
        if !self.containers[index].shape.is_sidecar() {
            return Some(since);
        }
        let mains = self.containers.iter().filter(|c| c.shape.is_main());
        let next = self.containers[index + 1..].iter().find(|c| c.shape.is_sidecar());
        let mut turn = since;
        for container in mains.chain(next) {
            if container.may_run() {
                return None;
            }
            if let Some(end) = container.last().and_then(|attempt| attempt.end.as_ref()) {
                turn = turn.max(end.at);
            }
        }
        Some(turn)
    }

    /// No container has a process or may get one.
    pub(crate) fn all_down(&self) -> bool {
        !self.containers.iter().any(Container::may_run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        after(Time::UNIX_EPOCH, seconds)
    }

    fn stop(grace: u64, pre_stop: HookState) -> Stop {
        Stop { restart: false, since: at(0), grace, ordered: true, pre_stop, kill_at: None, killed: false }
    }

    #[test]
    fn whole_seconds_are_taken_off_for_the_hook_and_the_turn() {
        let almost_three = at(2).checked_add(jiff::SignedDuration::from_millis(900)).unwrap();
        let stop = stop(30, HookState::Succeeded(almost_three));
        assert_eq!(stop.next(Some(at(0)), almost_three), Move::Terminate(28));
        let seven = almost_three.checked_add(jiff::SignedDuration::from_millis(4500)).unwrap();
        assert_eq!(stop.next(Some(seven), seven), Move::Terminate(24));
    }

    #[test]
    fn waiting_ends_with_the_grace_period_and_leaves_two_seconds() {
        let stop = stop(10, HookState::Absent);
        assert_eq!(stop.next(None, at(3)), Move::Wait(Some(at(10))));
        assert_eq!(stop.next(None, at(10)), Move::Terminate(2));
    }

    #[test]
    fn a_hook_is_abandoned_when_grace_is_over() {
        let stop = stop(10, HookState::Running);
        assert_eq!(stop.next(Some(at(0)), at(9)), Move::Wait(Some(at(10))));
        assert_eq!(stop.next(Some(at(0)), at(10)), Move::Terminate(2));
    }

    #[test]
    fn a_second_request_only_shortens() {
        let mut sleeping = stop(30, HookState::Running);
        sleeping.shorten(60, false, at(1));
        assert_eq!((sleeping.since, sleeping.grace), (at(0), 30));
        sleeping.shorten(5, false, at(1));
        assert_eq!(sleeping.next(Some(at(0)), at(5)), Move::Wait(Some(at(6))));
        sleeping.shorten(0, true, at(2));
        assert_eq!(sleeping.next(None, at(2)), Move::Kill);
    }

    #[test]
    fn no_grace_means_no_hook_and_two_seconds() {
        assert_eq!(stop(0, HookState::Due).next(None, at(0)), Move::Terminate(2));
    }
}
