//! An attempt as it was launched. A manifest may change, an engine may die: hooks, probes, signals and the termination
//! message of a running attempt are still those it was started with.

use std::rc::Rc;

use k8s_openapi::api::core::v1::Container;
use pod_container::spec::{ContainerSpec, ProcessSpec};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{Launch, signal};
use crate::record;
use crate::running::Running;

/// `launch.json`. Holds the resolved environment, and with it secrets: 0600, in `/run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) container: Container,
    pub(crate) stop_signal: i32,
    /// Its `args` are empty; see [`Self::exec`].
    process: ProcessSpec,
}

// === impl Snapshot ===

impl Snapshot {
    pub(super) fn of(launch: &Launch<'_>, spec: &ContainerSpec) -> Snapshot {
        let container = launch.container.clone();
        let own = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
        Snapshot {
            stop_signal: signal::stop_signal(own, launch.image.config.stop_signal.as_deref()),
            container,
            process: ProcessSpec { args: Vec::new(), ..spec.process.clone() },
        }
    }

    /// Before the shim is told: an attempt that runs has its snapshot.
    pub(super) fn keep(self, running: &Running, attempt: u32) -> Result<(), String> {
        let path = running.paths.launch(&self.container.name, attempt);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| record::save(&path, &self))
            .map_err(|error| format!("failed to write {}: {error}", path.display()))?;
        running.remember_launch(attempt, self);
        Ok(())
    }

    /// An exec'd process is the container's user with its capabilities, environment and working directory.
    pub(crate) fn exec(&self, command: &[String]) -> ProcessSpec {
        ProcessSpec { args: command.to_vec(), ..self.process.clone() }
    }

    /// With a terminal, which programs are told the kind of (as containerd does).
    pub(crate) fn exec_in_terminal(&self, command: &[String]) -> ProcessSpec {
        let mut process = self.exec(command);
        if !process.env.iter().any(|(name, _)| name == "TERM") {
            process.env.push(("TERM".into(), "xterm".into()));
        }
        process
    }
}

/// SIGTERM if nothing is known of the attempt.
pub(crate) fn stop_signal(running: &Running, container: &str, attempt: u32) -> i32 {
    let launched: Option<Rc<Snapshot>> = running.launched(container, attempt);
    launched.map_or(Signal::TERM.as_raw(), |snapshot| snapshot.stop_signal)
}
