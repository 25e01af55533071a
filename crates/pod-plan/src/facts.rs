//! What is known of a pod's containers: attempts that ran or run, and how far the next one is. Everything else is
//! worked out from these.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};

use crate::backoff::{CrashBackoff, PullBackoff};
use crate::probe::Probes;
use crate::shape::ContainerShape;
use crate::stop::Stop;
use crate::{Exit, Hook, Identity, Time};

/// The pod's namespaces, network and processes as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) state: SandboxState,
    /// How many sandboxes this pod has had before. Init containers of an earlier sandbox do not count as run
    /// (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go` computePodActions).
    pub(crate) era: u32,
    /// The last known addresses: an ended pod keeps showing them.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SandboxState {
    /// To be created, not before this time.
    Needed(Time),
    Creating,
    Ready,
    /// The processes are gone; what is left of it has to be removed.
    Lost,
    Removing,
    /// And no new one is wanted.
    Removed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Volumes {
    /// To be prepared, not before `retry`, after so many failures in a row.
    Needed {
        retry: Time,
        failures: u32,
    },
    Preparing {
        failures: u32,
    },
    Ready,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) shape: ContainerShape,
    /// False once the manifest no longer names it: it is stopped and forgotten.
    pub(crate) wanted: bool,
    /// Oldest first; all but the last two are on their way out.
    pub(crate) attempts: Vec<Attempt>,
    /// The lowest number of the next attempt: 0 unless a container of this name was there before.
    pub(crate) first_number: u32,
    pub(crate) launch: Launch,
    /// The image in the store, as the runtime names it.
    pub(crate) image_id: Option<String>,
    /// Why the next attempt does not start: what a waiting container shows.
    pub(crate) trouble: Option<Trouble>,
    /// Not to be launched before this time.
    pub(crate) retry: Option<Time>,
    /// When the next pass finds it in back-off and says so.
    pub(crate) backs_off: Option<Time>,
    pub(crate) pull: Option<PullBackoff>,
    pub(crate) crash: Option<CrashBackoff>,
    /// The crash back-off counts each restart once, however often its start is tried.
    pub(crate) counted: Option<u32>,
    /// An init container that came with a changed manifest after initialisation: left out until the pod starts over.
    pub(crate) excused: bool,
    /// A changed definition (or a kill that promised it): started again whatever the policy says.
    pub(crate) must_restart: bool,
    /// What the attempt that is being started is given.
    #[serde(default)]
    pub(crate) starting: Option<ResourceRequirements>,
    /// What the running attempt is being given.
    #[serde(default)]
    pub(crate) applying: Option<ResourceRequirements>,
}

/// How far the next attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Launch {
    Idle,
    /// `stale`: the manifest changed meanwhile, the outcome does not count.
    Pulling {
        since: Time,
        announced: bool,
        stale: bool,
    },
    Pulled,
    /// `stale`: the manifest changed meanwhile, what comes up is replaced.
    Starting {
        number: u32,
        stale: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// One run of a container, from the moment its first process exists (or could not be started).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) era: u32,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) container_id: String,
    pub(crate) identity: Option<Identity>,
    /// `None` if it never came to run.
    pub(crate) started: Option<Time>,
    pub(crate) end: Option<End>,
    pub(crate) post_start: HookState,
    pub(crate) probes: Probes,
    pub(crate) stop: Option<Stop>,
    /// What it has now.
    #[serde(default)]
    pub(crate) resources: Option<ResourceRequirements>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) at: Time,
    pub(crate) exit: Exit,
    pub(crate) reason: EndReason,
    pub(crate) message: String,
    /// It was stopped to be started again and its back-off was found to be over, so there is no wait.
    pub(crate) at_once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndReason {
    /// `Completed`, `Error` or `OOMKilled`, by the exit.
    Exited,
    StartError,
    /// The sandbox went with it and nobody saw its exit.
    Lost,
}

/// A `postStart` or `preStop` hook of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HookState {
    /// There is none (or it will not be run).
    Absent,
    Due,
    Running,
    Succeeded(Time),
    Failed(Time),
}

impl Container {
    pub(crate) fn new(shape: ContainerShape, first_number: u32) -> Self {
        Self {
            shape,
            wanted: true,
            attempts: Vec::new(),
            first_number,
            launch: Launch::Idle,
            image_id: None,
            trouble: None,
            retry: None,
            backs_off: None,
            pull: None,
            crash: None,
            counted: None,
            excused: false,
            must_restart: false,
            starting: None,
            applying: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.shape.name()
    }

    pub(crate) fn last(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    pub(crate) fn attempt_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.number == number)
    }

    /// The attempt that has a process now.
    pub(crate) fn alive(&self) -> Option<&Attempt> {
        self.last().filter(|attempt| attempt.is_alive())
    }

    pub(crate) fn alive_mut(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut().filter(|attempt| attempt.is_alive())
    }

    /// It has a process, or may have one any moment.
    pub(crate) fn may_run(&self) -> bool {
        self.alive().is_some() || matches!(self.launch, Launch::Starting { .. })
    }

    /// Its start procedure (pull, create, start, `postStart`) is under way. These are synchronous upstream, so one at a
    /// time in a pod (`kubernetes/kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go` startContainer).
    pub(crate) fn is_launching(&self) -> bool {
        self.launch != Launch::Idle || self.alive().is_some_and(|attempt| !attempt.post_start.is_over())
    }

    /// The number the next attempt will have.
    pub(crate) fn next_number(&self) -> u32 {
        self.last().map_or(0, |attempt| attempt.number + 1).max(self.first_number)
    }

    /// The attempt before the last, if it has ended.
    pub(crate) fn previous_end(&self) -> Option<&End> {
        self.attempts.iter().rev().nth(1).and_then(|attempt| attempt.end.as_ref())
    }
}

impl Attempt {
    pub(crate) fn is_alive(&self) -> bool {
        self.end.is_none()
    }

    /// Running, and its `postStart` hook was successful (or there is none). Before that the container is shown as
    /// waiting and nothing probes it: upstream publishes a status only when the start procedure has returned.
    pub(crate) fn is_up(&self) -> bool {
        self.is_alive() && self.up_since().is_some()
    }

    /// When the attempt came up: the `postStart` hook's end, or its start.
    pub(crate) fn up_since(&self) -> Option<Time> {
        match self.post_start {
            HookState::Absent => self.started,
            HookState::Succeeded(at) => self.started.map(|started| at.max(started)),
            HookState::Due | HookState::Running | HookState::Failed(_) => None,
        }
    }
}

impl HookState {
    pub(crate) fn begin(self) -> Self {
        if self == Self::Due { Self::Running } else { self }
    }

    /// Nothing is held up by it any more.
    fn is_over(self) -> bool {
        matches!(self, Self::Absent | Self::Succeeded(_))
    }

    pub(crate) fn planned(shape: &ContainerShape, hook: Hook) -> Self {
        if shape.has_hook(hook) { Self::Due } else { Self::Absent }
    }
}

impl End {
    /// The words of `terminated.reason` (`containerd/containerd internal/cri/server/container_status.go`).
    pub(crate) fn reason_text(&self) -> &'static str {
        match self.reason {
            EndReason::StartError => "StartError",
            EndReason::Lost => "ContainerStatusUnknown",
            EndReason::Exited if self.exit.oom_killed => "OOMKilled",
            EndReason::Exited if self.exit.code == 0 => "Completed",
            EndReason::Exited => "Error",
        }
    }

    /// For an init container an OOM kill is a failure even with code 0 (`kubernetes/kubernetes
    /// pkg/kubelet/kuberuntime/kuberuntime_container.go` isInitContainerFailed).
    pub(crate) fn is_failure(&self) -> bool {
        self.exit.code != 0 || self.exit.oom_killed
    }

    /// The code that an init container's restart policy looks at.
    pub(crate) fn init_code(&self) -> i32 {
        if self.exit.code == 0 && self.exit.oom_killed { 137 } else { self.exit.code }
    }
}
