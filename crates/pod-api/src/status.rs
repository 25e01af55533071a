//! The row `kubectl get pods` prints: READY, STATUS, RESTARTS, AGE. The STATUS column is in no field of the object; every
//! server works it out from the statuses by the same long rule, and people and scripts know its every word.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};

use crate::role::{Role, containers, is_sidecar};

const NONE: &str = "<none>";

/// The cells, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    pub name: String,
    /// `ready/total` over mains and sidecars.
    pub ready: String,
    pub status: String,
    /// `N`, or `N (AGE ago)`.
    pub restarts: String,
    pub age: String,
    pub ip: String,
    pub node: String,
    pub nominated_node: String,
    pub readiness_gates: String,
}

/// The row of a pod at `now`.
pub fn columns(pod: &Pod, now: Timestamp) -> Columns {
    let status = pod.status.clone().unwrap_or_default();
    let summary = Summary::of(pod, &status);
    let spec = pod.spec.as_ref();
    let total = spec.map_or(0, |spec| containers(spec).filter(|(role, _)| *role != Role::Init).count());
    let or_none = |text: Option<&String>| text.filter(|text| !text.is_empty()).map_or(NONE, String::as_str).to_owned();
    let first_ip = status.pod_ips.iter().flatten().next().map(|ip| &ip.ip).or(status.pod_ip.as_ref());
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, since(last, now)),
        _ => summary.restarts.to_string(),
    };
    Columns {
        name: pod.metadata.name.clone().unwrap_or_default(),
        ready: format!("{}/{total}", summary.ready),
        restarts,
        age: pod.metadata.creation_timestamp.as_ref().map_or("<unknown>".to_owned(), |time| since(time.0, now)),
        ip: or_none(first_ip),
        node: or_none(spec.and_then(|spec| spec.node_name.as_ref())),
        nominated_node: or_none(status.nominated_node_name.as_ref()),
        readiness_gates: readiness_gates(pod, &status),
        status: summary.status,
    }
}

fn readiness_gates(pod: &Pod, status: &PodStatus) -> String {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(status, &gate.condition_type)).count();
    format!("{open}/{}", gates.len())
}

struct Summary {
    status: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Pod, status: &PodStatus) -> Summary {
        let phase = status.phase.as_deref().unwrap_or_default();
        let reason = status.reason.as_deref().filter(|reason| !reason.is_empty());
        let mut text = reason.unwrap_or(phase).to_owned();
        let gated = |condition: &k8s_openapi::api::core::v1::PodCondition| {
            condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
        };
        if status.conditions.iter().flatten().any(gated) {
            text = "SchedulingGated".to_owned();
        }

        let inits = InitWalk::of(pod, status);
        let mut summary = Summary {
            status: inits.unfinished.clone().unwrap_or(text),
            ready: inits.ready,
            restarts: inits.restarts,
            last_restart: inits.last_restart,
        };
        if inits.unfinished.is_none() || is_true(status, "Initialized") {
            // Once initialised, the restarts of plain inits are forgotten.
            summary.restarts = inits.sidecar_restarts;
            summary.last_restart = inits.last_sidecar_restart;
            summary.add_mains(status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if reason == Some("NodeLost") {
                summary.status = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Last to first, so that the first main's word is the one that stays.
    fn add_mains(&mut self, status: &PodStatus) {
        let (mut running, mut failed) = (false, None);
        for main in status.container_statuses.iter().flatten().rev() {
            self.restarts += i64::from(main.restart_count);
            self.last_restart = self.last_restart.max(last_finished(main));
            let Some(state) = &main.state else { continue };
            if let Some(reason) = waiting_reason(state) {
                self.status = reason.to_owned();
            } else if let Some(terminated) = &state.terminated {
                self.status = ended(state).unwrap_or_default();
                if terminated.exit_code != 0 {
                    failed = Some(self.status.clone());
                }
            } else if main.ready && state.running.is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" {
            if running && is_true(status, "Ready") {
                self.status = "Running".to_owned();
            } else if let Some(failed) = failed {
                self.status = failed;
            } else if running {
                self.status = "NotReady".to_owned();
            }
        }
    }
}

/// What the init containers and sidecars say, up to the first that holds the pod back.
#[derive(Default)]
struct InitWalk {
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    sidecar_restarts: i64,
    last_sidecar_restart: Option<Timestamp>,
    /// `Init:…`, if one is not passed.
    unfinished: Option<String>,
}

impl InitWalk {
    fn of(pod: &Pod, status: &PodStatus) -> InitWalk {
        let specs = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let mut walk = InitWalk::default();
        for (index, init) in status.init_container_statuses.iter().flatten().enumerate() {
            let sidecar = specs.iter().any(|spec| spec.name == init.name && is_sidecar(spec));
            walk.restarts += i64::from(init.restart_count);
            walk.last_restart = walk.last_restart.max(last_finished(init));
            if sidecar {
                walk.sidecar_restarts += i64::from(init.restart_count);
                walk.last_sidecar_restart = walk.last_sidecar_restart.max(last_finished(init));
            }
            let state = init.state.clone().unwrap_or_default();
            if state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0) {
                continue;
            }
            if sidecar && init.started == Some(true) {
                walk.ready += usize::from(init.ready);
                continue;
            }
            let word = match (ended(&state), waiting_reason(&state)) {
                (Some(word), _) => word,
                (None, Some(reason)) if reason != "PodInitializing" => reason.to_owned(),
                _ => format!("{index}/{}", specs.len()),
            };
            walk.unfinished = Some(format!("Init:{word}"));
            break;
        }
        walk
    }
}

fn waiting_reason(state: &ContainerState) -> Option<&str> {
    state.waiting.as_ref()?.reason.as_deref().filter(|reason| !reason.is_empty())
}

/// The word for a terminated state.
fn ended(state: &ContainerState) -> Option<String> {
    let terminated = state.terminated.as_ref()?;
    Some(match (terminated.reason.as_deref(), terminated.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated.exit_code),
    })
}

fn last_finished(status: &ContainerStatus) -> Option<Timestamp> {
    status.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)
}

fn is_true(status: &PodStatus, condition: &str) -> bool {
    status.conditions.iter().flatten().any(|found| found.type_ == condition && found.status == "True")
}

fn since(time: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(time).as_secs())
}

/// An age in at most three characters and two units, as kubectl prints it.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks of two machines may differ by a little.
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, 'y', seconds % YEAR / DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests;
