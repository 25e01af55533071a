//! Events become facts. What is known already changes nothing: a shim tells all its facts again when the engine comes
//! back to it.

mod attempt;

use crate::backoff::{PullBackoff, failed_pass_retry, next_pass, sandbox_retry, volume_retry};
use crate::facts::{End, EndReason, Launch, SandboxState, Trouble, Volumes};
use crate::shape::RestartPolicy;
use crate::stop::{PodStop, PodStopCause};
use crate::{Event, Exit, Lifecycle, Pulled, Time, notice};

/// What upstream says of a container nobody saw the end of (`kubernetes/kubernetes pkg/kubelet/kubelet_pods.go`).
pub(crate) const LOST_MESSAGE: &str = "The container could not be located when the pod was terminated";

impl Lifecycle {
    /// Folds in what has happened. `now` is when it was learned.
    pub fn apply(&mut self, event: Event, now: Time) {
        self.turn_time(now);
        self.fold(event, now);
        self.conclude(now);
    }

    fn fold(&mut self, event: Event, now: Time) {
        match event {
            Event::SandboxReady { ips, host_ip } => {
                if matches!(self.sandbox.state, SandboxState::Needed(_) | SandboxState::Creating | SandboxState::Ready)
                {
                    self.sandbox.state = SandboxState::Ready;
                    self.sandbox.ips = ips;
                    self.sandbox.host_ip = host_ip;
                }
            }
            Event::SandboxFailed { message } => {
                if self.sandbox.state == SandboxState::Creating {
                    self.sandbox.state = SandboxState::Needed(sandbox_retry(now));
                    self.warn_pod(now, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
                }
            }
            Event::SandboxLost => self.lose_sandbox(now),
            Event::SandboxRemoved => self.sandbox_removed(now),
            Event::ResizeEnded { outcome } => self.resize_ended(outcome, now),
            Event::VolumesReady => self.volumes = Volumes::Ready,
            Event::VolumesFailed { message } => {
                if let Volumes::Preparing { failures } = self.volumes {
                    let failures = failures.saturating_add(1);
                    self.volumes = Volumes::Needed { retry: volume_retry(failures, now), failures };
                    self.warn_pod(now, "FailedMount", message);
                }
            }
            Event::StopRequested { grace } => self.request_stop(grace, now),
            Event::Evicted { reason, message, grace } => self.evict(reason, message, grace, now),
            Event::Pulling { container } => self.with(&container, |this, index| this.pull_begun(index)),
            Event::ImageReady { container, image_id, pulled, host_userland } => {
                self.with(&container, |this, index| this.image_ready(index, image_id, pulled, host_userland, now));
            }
            Event::ImageFailed { container, reason, message } => {
                self.with(&container, |this, index| this.image_failed(index, reason, message, now));
            }
            Event::ConfigFailed { container, attempt, message } => self.with(&container, |this, index| {
                this.not_created(index, attempt, "CreateContainerConfigError", message, now);
            }),
            Event::CreateFailed { container, attempt, message } => self.with(&container, |this, index| {
                this.not_created(index, attempt, "CreateContainerError", message, now);
            }),
            Event::StartFailed { container, attempt, at, message } => {
                self.with(&container, |this, index| this.start_failed(index, attempt, at, message, now));
            }
            Event::Started { container, attempt, at, container_id, identity } => {
                self.with(&container, |this, index| {
                    let Some(new) = this.new_attempt(index, attempt, now) else { return };
                    new.started = Some(at);
                    new.container_id = container_id;
                    new.identity = Some(identity);
                    this.started(index, at, now);
                });
            }
            Event::Exited { container, attempt, at, exit, message } => self.with(&container, |this, index| {
                // Its start may have gone unnoticed.
                let _ = this.new_attempt(index, attempt, now);
                let end = End { at, exit, reason: EndReason::Exited, message, at_once: false };
                this.ended(index, attempt, end, now);
            }),
            Event::HookEnded { container, attempt, hook, at, outcome } => {
                self.with(&container, |this, index| this.hook_ended(index, attempt, hook, at, outcome));
            }
            Event::ProbeEnded { container, attempt, probe, at, outcome } => {
                self.with(&container, |this, index| this.probe_ended(index, attempt, probe, at, &outcome));
            }
        }
    }

    /// A container nobody knows any more is no concern.
    fn with(&mut self, name: &str, change: impl FnOnce(&mut Self, usize)) {
        if let Some(index) = self.index(name) {
            change(self, index);
        }
    }

    fn evict(&mut self, reason: String, message: String, grace: Option<u64>, now: Time) {
        if self.stop.is_some() {
            return;
        }
        self.warn_pod(now, &reason, message.clone());
        let grace = grace.unwrap_or(self.pod.grace).max(1);
        self.stop_pod(PodStop { since: now, grace, forced: false, cause: PodStopCause::Failed { reason, message } });
    }
}

// === the sandbox ===

impl Lifecycle {
    /// All processes are gone. The pod starts over from its first init container, unless its policy has nothing left to
    /// run (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go` computePodActions).
    fn lose_sandbox(&mut self, now: Time) {
        if !matches!(self.sandbox.state, SandboxState::Ready | SandboxState::Creating) {
            return;
        }
        self.sandbox.state = SandboxState::Lost;
        self.sandbox.era += 1;
        self.lose_containers(now);
        if self.stop.is_some() {
            return;
        }
        let mains = || self.wanted().map(|(_, c)| c).filter(|c| c.shape.is_main());
        let ran = mains().any(|main| main.last().is_some());
        let runs_again = mains().any(|main| main.last().is_some() && self.main_wants_start(main));
        if self.pod.policy == RestartPolicy::Never && ran && !runs_again {
            let cause = PodStopCause::Completed;
            self.stop_pod(PodStop { since: now, grace: self.pod.grace, forced: false, cause });
        } else if !self.mains_are_done() {
            self.note_pod(now, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
    }

    fn lose_containers(&mut self, now: Time) {
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            container.excused = false;
            // Decisions made for the old sandbox do not count in the new one.
            container.launch = match container.launch {
                Launch::Pulling { since, announced, .. } => Launch::Pulling { since, announced, stale: true },
                Launch::Idle | Launch::Pulled | Launch::Starting { .. } => Launch::Idle,
            };
            if let Some(number) = container.alive().map(|attempt| attempt.number) {
                let exit = Exit { code: 137, signal: None, oom_killed: false };
                let message = LOST_MESSAGE.to_owned();
                self.ended(index, number, End { at: now, exit, reason: EndReason::Lost, message, at_once: false }, now);
            }
        }
    }

    fn sandbox_removed(&mut self, now: Time) {
        self.lose_containers(now);
        if self.stop.is_some() {
            self.sandbox.state = SandboxState::Removed;
        } else if matches!(self.sandbox.state, SandboxState::Removing | SandboxState::Lost) {
            self.sandbox.state = SandboxState::Needed(now);
            if self.volumes == Volumes::Ready {
                self.volumes = Volumes::Needed { retry: now, failures: 0 };
            }
        }
    }
}

// === images ===

impl Lifecycle {
    fn pull_begun(&mut self, index: usize) {
        let container = &mut self.containers[index];
        if let Launch::Pulling { since, announced, .. } = &mut container.launch
            && !std::mem::replace(announced, true)
        {
            let (since, text) = (*since, notice::pulling(container));
            self.note(index, since, "Pulling", text);
        }
    }

    fn image_ready(&mut self, index: usize, image_id: String, pulled: Option<Pulled>, host_userland: bool, now: Time) {
        let container = &self.containers[index];
        let Launch::Pulling { stale, .. } = container.launch else { return };
        if stale || self.stop.is_some() {
            self.containers[index].launch = Launch::Idle;
            return;
        }
        if let Some(pulled) = &pulled {
            let text = notice::pulled(container, pulled);
            self.pull_begun(index);
            self.note(index, now, "Pulled", text);
        } else if host_userland {
            let text = notice::host_userland(container);
            self.note(index, now, "HostUserland", text);
        } else {
            let text = notice::already_present(container);
            self.note(index, now, "Pulled", text);
        }
        let container = &mut self.containers[index];
        container.launch = Launch::Pulled;
        container.image_id = Some(image_id);
        container.pull = None;
        container.retry = None;
    }

    /// `kubernetes/kubernetes pkg/kubelet/images/image_manager.go` EnsureImageExists.
    fn image_failed(&mut self, index: usize, reason: String, message: String, now: Time) {
        let stopping = self.stop.is_some();
        let container = &mut self.containers[index];
        let Launch::Pulling { stale, .. } = container.launch else { return };
        if stale || stopping {
            container.launch = Launch::Idle;
            return;
        }
        let image = container.shape.image().to_owned();
        let mut shared = None;
        match reason.as_str() {
            "ErrImageNeverPull" | "ImageInspectError" | "InvalidImageName" => {
                container.retry = Some(failed_pass_retry(now));
                let event = if reason == "ErrImageNeverPull" { "ErrImageNeverPull" } else { "InspectFailed" };
                self.warn(index, now, event, message.clone());
            }
            _ => {
                let pull = PullBackoff::next(container.pull, now);
                container.pull = Some(pull);
                shared = Some(pull);
                container.retry = Some(pull.until());
                container.backs_off = Some(next_pass(now));
                self.pull_begun(index);
                self.warn(index, now, "Failed", format!("Failed to pull image \"{image}\": {message}"));
            }
        }
        self.warn(index, now, "Failed", format!("Error: {reason}"));
        let container = &mut self.containers[index];
        container.launch = Launch::Idle;
        container.trouble = Some(Trouble { reason, message });
        if let Some(pull) = shared {
            self.share_pull_back_off(index, pull, now);
        }
    }

    /// The back-off is the image's, not the container's: others that are to be started from it are in it as well and do
    /// not pull (upstream's key is the pod's uid and the image).
    fn share_pull_back_off(&mut self, index: usize, pull: PullBackoff, now: Time) {
        let (failed, trouble) = (self.containers[index].shape.spec.clone(), self.containers[index].trouble.clone());
        for other in self.to_start() {
            let container = &mut self.containers[other];
            let spec = &container.shape.spec;
            let same = spec.image == failed.image && spec.image_pull_policy == failed.image_pull_policy;
            if other == index || !same || container.is_launching() {
                continue;
            }
            container.pull = Some(pull);
            container.retry = Some(pull.until());
            container.trouble.clone_from(&trouble);
            container.backs_off = None;
            self.name_back_off(other, now);
        }
    }
}
