//! What happens to one attempt: it comes up, its hooks and probes end, it ends.

use super::LOST_MESSAGE;
use crate::backoff::{failed_pass_retry, next_pass};
use crate::facts::{Attempt, End, EndReason, HookState, Launch, Trouble};
use crate::probe::{self, Probes};
use crate::stop::{Stop, Why};
use crate::{Exit, Hook, Lifecycle, ProbeKind, ProbeOutcome, Time};

impl Lifecycle {
    /// Config and create errors: there was no attempt, the same number is tried again.
    pub(super) fn not_created(&mut self, index: usize, attempt: u32, reason: &str, message: String, now: Time) {
        let container = &mut self.containers[index];
        let Launch::Starting { number, stale } = container.launch else { return };
        if number != attempt {
            return;
        }
        container.launch = Launch::Idle;
        if !stale {
            container.retry = Some(failed_pass_retry(now));
            container.trouble = Some(Trouble { reason: reason.to_owned(), message: message.clone() });
            self.warn(index, now, "Failed", format!("Error: {message}"));
        }
    }

    /// The attempt exists, as containerd sees it: exited with 128.
    pub(super) fn start_failed(&mut self, index: usize, attempt: u32, at: Time, message: String, now: Time) {
        if self.new_attempt(index, attempt, now).is_none() {
            return;
        }
        self.note(index, at, "Created", "Container created");
        self.warn(index, at, "Failed", format!("Error: {message}"));
        let trouble = Trouble { reason: "RunContainerError".to_owned(), message: message.clone() };
        self.containers[index].trouble = Some(trouble);
        let exit = Exit { code: 128, signal: None, oom_killed: false };
        self.ended(index, attempt, End { at, exit, reason: EndReason::StartError, message, at_once: false }, now);
    }

    /// Opens the record of an attempt that was not known; `None` if it was, or is older than what is known.
    pub(super) fn new_attempt(&mut self, index: usize, number: u32, now: Time) -> Option<&mut Attempt> {
        if number < self.containers[index].next_number() {
            return None;
        }
        // Two attempts of one container never run at once; if the older one's end was never told, it is over now.
        if let Some(older) = self.containers[index].alive().map(|attempt| attempt.number) {
            let exit = Exit { code: 137, signal: None, oom_killed: false };
            let message = LOST_MESSAGE.to_owned();
            self.ended(index, older, End { at: now, exit, reason: EndReason::Lost, message, at_once: false }, now);
        }
        let era = self.sandbox.era;
        let container = &mut self.containers[index];
        container.attempts.push(Attempt {
            number,
            era,
            image: container.shape.image().to_owned(),
            image_id: container.image_id.clone().unwrap_or_default(),
            container_id: String::new(),
            identity: None,
            started: None,
            end: None,
            post_start: HookState::planned(&container.shape, Hook::PostStart),
            probes: Probes::default(),
            stop: None,
            resources: Some(container.starting.take().unwrap_or_else(|| container.shape.resources())),
        });
        container.must_restart = false;
        container.retry = None;
        container.backs_off = None;
        container.attempts.last_mut()
    }

    pub(super) fn started(&mut self, index: usize, at: Time, now: Time) {
        self.note(index, at, "Created", "Container created");
        self.note(index, at, "Started", "Container started");
        let container = &mut self.containers[index];
        let stale = matches!(container.launch, Launch::Starting { stale: true, .. });
        container.launch = Launch::Idle;
        if container.attempts.last().is_some_and(|attempt| attempt.post_start == HookState::Absent) {
            container.trouble = None;
        }
        if self.stop.is_some() {
            self.stop_with_pod(index, now);
        } else if !self.containers[index].wanted {
            self.stop_container(index, Why::Removed, now);
        } else if stale {
            self.stop_container(index, Why::Definition, now);
        }
    }

    pub(super) fn ended(&mut self, index: usize, number: u32, mut end: End, now: Time) {
        let policy = self.pod.policy;
        let stopping = self.stop.is_some();
        let container = &mut self.containers[index];
        if let Launch::Starting { number: starting, .. } = container.launch
            && starting == number
        {
            container.launch = Launch::Idle;
        }
        let newest = container.last().is_some_and(|attempt| attempt.number == number);
        let at_once = container.restarts_at_once(now);
        let must_restart = container.must_restart;
        let Some(attempt) = container.attempt_mut(number).filter(|attempt| attempt.is_alive()) else { return };
        let promised = must_restart || attempt.stop.as_ref().is_some_and(Stop::promises_restart);
        end.at_once = promised && at_once;
        attempt.end = Some(end.clone());
        if stopping || !newest {
            return;
        }
        container.must_restart |= promised;
        if container.runs_again(policy, &end) && container.crash_wait().is_some_and(|until| until > now) {
            container.backs_off = Some(next_pass(now));
        }
    }
}

// === hooks and probes ===

impl Lifecycle {
    /// The events do not say what went wrong, so that secrets in a hook's output do not leak
    /// (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go`).
    pub(super) fn hook_ended(&mut self, index: usize, attempt: u32, hook: Hook, at: Time, outcome: Result<(), String>) {
        let container = &mut self.containers[index];
        let Some(attempt) = container.attempt_mut(attempt).filter(|attempt| attempt.is_alive()) else { return };
        match (hook, outcome) {
            (Hook::PostStart, outcome) => {
                if !matches!(attempt.post_start, HookState::Due | HookState::Running) {
                    return;
                }
                match outcome {
                    Ok(()) => {
                        attempt.post_start = HookState::Succeeded(at);
                        container.trouble = None;
                    }
                    Err(message) => {
                        attempt.post_start = HookState::Failed(at);
                        container.trouble = Some(Trouble { reason: "PostStartHookError".to_owned(), message });
                        self.warn(index, at, "FailedPostStartHook", "PostStartHook failed");
                        self.stop_container(index, Why::PostStartHook, at);
                    }
                }
            }
            (Hook::PreStop, outcome) => {
                let Some(stop) = &mut attempt.stop else { return };
                if !matches!(stop.pre_stop, HookState::Due | HookState::Running) {
                    return;
                }
                let abandoned = stop.abandoned_hook(at);
                stop.pre_stop = if outcome.is_ok() { HookState::Succeeded(at) } else { HookState::Failed(at) };
                if outcome.is_err() && !abandoned {
                    self.warn(index, at, "FailedPreStopHook", "PreStopHook failed");
                }
            }
        }
    }

    pub(super) fn probe_ended(
        &mut self,
        index: usize,
        attempt: u32,
        kind: ProbeKind,
        at: Time,
        outcome: &ProbeOutcome,
    ) {
        let pod_stops = self.stop.is_some();
        let container = &mut self.containers[index];
        let Some(numbers) = container.shape.probe(kind) else { return };
        let Some(attempt) = container.attempt_mut(attempt).filter(|attempt| attempt.is_alive()) else { return };
        let stops = pod_stops || attempt.stop.is_some();
        let worker = attempt.probes.worker_mut(kind);
        if stops && kind != ProbeKind::Readiness {
            // Too late to matter.
            worker.in_flight = false;
            return;
        }
        let decided = worker.observe(outcome, numbers, at);
        let failed = decided && worker.verdict == Some(false);
        let title = probe::title(kind);
        match outcome {
            ProbeOutcome::Success => {}
            ProbeOutcome::Warning(text) => {
                self.warn(index, at, "ProbeWarning", format!("{title} probe warning: {text}"));
            }
            ProbeOutcome::Failure(text) => self.warn(index, at, "Unhealthy", format!("{title} probe failed: {text}")),
            ProbeOutcome::Unknown(text) => {
                let message = format!("{title} probe errored and resulted in unknown state: {text}");
                self.warn(index, at, "Unhealthy", message);
            }
        }
        if failed && kind != ProbeKind::Readiness {
            self.stop_container(index, Why::Probe(kind), at);
        }
    }
}
