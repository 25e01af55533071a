//! kubectl's READY, STATUS and RESTARTS columns, worked out from a status as the API server's printer does
//! (`kubernetes/kubernetes pkg/printers/internalversion/printers.go` printPod, 1.35). Written a second time here, so that
//! the scripts check statuses as people see them.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

pub(crate) struct Columns {
    pub(crate) ready: String,
    pub(crate) status: String,
    pub(crate) restarts: i32,
}

pub(crate) fn columns(status: &PodStatus, sidecars: &[String], inits: usize, deleting: bool) -> Columns {
    let phase = status.phase.clone().unwrap_or_default();
    let mut word = status.reason.clone().unwrap_or_else(|| phase.clone());
    let is_sidecar = |name: &str| sidecars.iter().any(|sidecar| sidecar == name);
    let init_statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let mains = status.container_statuses.as_deref().unwrap_or_default();
    let total = mains.len() + sidecars.len();
    let (mut ready, mut restarts, mut sidecar_restarts) = (0, 0, 0);
    let mut initialising = false;
    for (index, init) in init_statuses.iter().enumerate() {
        restarts += init.restart_count;
        if is_sidecar(&init.name) {
            sidecar_restarts += init.restart_count;
        }
        let state = init.state.as_ref().expect("every status has a state");
        if state.terminated.as_ref().is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if is_sidecar(&init.name) && init.started == Some(true) {
            ready += usize::from(init.ready);
            continue;
        }
        word = match (&state.terminated, &state.waiting) {
            (Some(terminated), _) => format!("Init:{}", terminated.reason.as_deref().unwrap_or("ExitCode")),
            (None, Some(waiting)) if waiting.reason.as_deref() != Some("PodInitializing") => {
                format!("Init:{}", waiting.reason.as_deref().unwrap_or_default())
            }
            _ => format!("Init:{index}/{inits}"),
        };
        initialising = true;
        break;
    }
    if !initialising || condition(status, "Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        let mut failed = None;
        for main in mains.iter().rev() {
            restarts += main.restart_count;
            let state = main.state.as_ref().expect("every status has a state");
            if let Some(waiting) = &state.waiting {
                word = waiting.reason.clone().unwrap_or_default();
            } else if let Some(terminated) = &state.terminated {
                word = terminated.reason.clone().unwrap_or_default();
                if terminated.exit_code != 0 {
                    failed = terminated.reason.clone();
                }
            } else if is_ready_main(main) {
                running = true;
                ready += 1;
            }
        }
        if word == "Completed" {
            if running && condition(status, "Ready") {
                word = "Running".to_owned();
            } else if let Some(failed) = failed {
                word = failed;
            } else if running {
                word = "NotReady".to_owned();
            }
        }
    }
    if deleting && phase != "Succeeded" && phase != "Failed" {
        word = "Terminating".to_owned();
    }
    Columns { ready: format!("{ready}/{total}"), status: word, restarts }
}

fn is_ready_main(main: &ContainerStatus) -> bool {
    main.ready && main.state.as_ref().is_some_and(|state| state.running.is_some())
}

pub(crate) fn condition(status: &PodStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}
