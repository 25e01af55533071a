//! The pod's phase. `kubernetes/kubernetes pkg/kubelet/kubelet_pods.go` getPhase, and what
//! `…/status/status_manager.go` does to it: a terminal phase is published only when everything has stopped, and a pod
//! that stopped without one has failed.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use serde::{Deserialize, Serialize};

use crate::facts::Container;
use crate::restart::restarts_after;
use crate::status::ContainerStatuses;
use crate::stop::PodStopCause;
use crate::{Lifecycle, shape::Role};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Final.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One container as the phase sees it.
enum View {
    Running {
        started: bool,
    },
    /// Terminated, or waiting after a termination.
    Stopped {
        code: i32,
        waiting: bool,
    },
    /// Never came to run.
    Waiting,
}

#[derive(Default)]
struct Counts {
    failed_inits: usize,
    pending_inits: usize,
    pending_sidecars: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

impl Lifecycle {
    pub(crate) fn phase_of(&self, statuses: &ContainerStatuses) -> Phase {
        let over = self.stop.is_some() && self.all_down();
        let computed = self.computed_phase(statuses, over);
        match (&self.stop, over) {
            (Some(stop), true) => match stop.cause {
                PodStopCause::InitFailed | PodStopCause::Failed { .. } | PodStopCause::Rejected { .. } => Phase::Failed,
                PodStopCause::Deleted | PodStopCause::Completed if computed.is_terminal() => computed,
                PodStopCause::Deleted | PodStopCause::Completed => Phase::Failed,
            },
            // Something still runs (or may): the phase before the end is held.
            _ if computed.is_terminal() => {
                let main_ran = self.wanted().any(|(_, c)| c.shape.is_main() && c.last().is_some());
                if main_ran { Phase::Running } else { Phase::Pending }
            }
            _ => computed,
        }
    }

    fn computed_phase(&self, statuses: &ContainerStatuses, over: bool) -> Phase {
        let mut counts = Counts::default();
        for (_, container) in self.wanted().filter(|(_, c)| !c.excused) {
            if let Some(status) = statuses.find(container.name()) {
                self.count(container, status, &mut counts);
            }
        }
        let main_runs = self.wanted().any(|(_, c)| c.shape.is_main() && c.alive().is_some());
        if counts.failed_inits > 0 {
            return Phase::Failed;
        }
        if counts.pending_inits > 0 || (counts.pending_sidecars > 0 && !main_runs) || counts.waiting > 0 {
            return Phase::Pending;
        }
        if counts.running > 0 {
            return Phase::Running;
        }
        match counts.stopped {
            0 => Phase::Pending,
            _ if !over && counts.stopped != counts.stopped_for_good => Phase::Running,
            stopped if stopped == counts.succeeded => Phase::Succeeded,
            _ => Phase::Failed,
        }
    }

    fn count(&self, container: &Container, status: &ContainerStatus, counts: &mut Counts) {
        match (container.shape.role, view(status)) {
            (Role::Ephemeral, _) => {}
            (Role::Init, View::Running { .. } | View::Waiting) => counts.pending_inits += 1,
            (Role::Init, View::Stopped { code, .. }) => {
                if code != 0 && !restarts_after(&container.shape, self.pod.policy, code) {
                    counts.failed_inits += 1;
                }
            }
            (Role::Sidecar, View::Running { started }) => {
                counts.running += 1;
                counts.pending_sidecars += usize::from(!started);
            }
            (Role::Sidecar, View::Waiting) => {
                counts.pending_sidecars += 1;
                counts.waiting += 1;
            }
            // A sidecar that is down has no say.
            (Role::Sidecar, View::Stopped { .. }) => {}
            (Role::Main, View::Running { .. }) => counts.running += 1,
            (Role::Main, View::Waiting) => counts.waiting += 1,
            (Role::Main, View::Stopped { code, waiting }) => {
                counts.stopped += 1;
                counts.succeeded += usize::from(code == 0 && !waiting);
                let again = container.must_restart || restarts_after(&container.shape, self.pod.policy, code);
                counts.stopped_for_good += usize::from(!again);
            }
        }
    }
}

fn view(status: &ContainerStatus) -> View {
    let code = |state: &Option<ContainerState>| Some(state.as_ref()?.terminated.as_ref()?.exit_code);
    if status.state.as_ref().is_some_and(|state| state.running.is_some()) {
        View::Running { started: status.started == Some(true) }
    } else if let Some(code) = code(&status.state) {
        View::Stopped { code, waiting: false }
    } else if let Some(code) = code(&status.last_state) {
        View::Stopped { code, waiting: true }
    } else {
        View::Waiting
    }
}
