//! Local storage limits: `emptyDir.sizeLimit` and containers' `ephemeral-storage`, measured now and then
//! (kubernetes/kubernetes pkg/kubelet/eviction, localStorageEviction).

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pod_plan::Event;

use crate::blocking;
use crate::running::Running;

/// The eviction manager's housekeeping interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Ends the watch with the pod's task.
#[derive(Debug)]
pub(crate) struct Watch(Option<tokio::task::JoinHandle<()>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// One thing that may not grow past its limit.
struct Limit {
    directories: Vec<PathBuf>,
    bytes: u64,
    message: String,
}

/// Pods without limits cost nothing.
pub(crate) fn watch(running: &Rc<Running>) -> Watch {
    if limits(running).is_empty() {
        return Watch(None);
    }
    let running = running.clone();
    Watch(Some(tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let limits = limits(&running);
            let Ok(Some(message)) = blocking(move || Ok(first_exceeded(limits))).await else { continue };
            running.tell(Event::Evicted { reason: "Evicted".into(), message, grace: None });
            return;
        }
    })))
}

fn limits(running: &Rc<Running>) -> Vec<Limit> {
    let spec = running.spec();
    let uid = running.uid();
    let mut limits = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let Some(empty_dir) = &volume.empty_dir else { continue };
        // In memory the tmpfs itself has the limit.
        if empty_dir.medium.as_deref() == Some("Memory") {
            continue;
        }
        let Some((bytes, text)) = empty_dir.size_limit.as_ref().and_then(quantity) else { continue };
        limits.push(Limit {
            directories: vec![running.paths.disk_volume(&uid, &volume.name)],
            bytes,
            message: format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{text}\". ", volume.name),
        });
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let asked = container.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("ephemeral-storage"));
        let Some((bytes, text)) = asked.and_then(quantity) else { continue };
        let layers = running.paths.attempt(&uid, &container.name, 0);
        let logs = running.paths.logs(&uid).join(&container.name);
        limits.push(Limit {
            directories: layers.parent().map(PathBuf::from).into_iter().chain([logs]).collect(),
            bytes,
            message: format!("Container {} exceeded its local ephemeral storage limit \"{text}\". ", container.name),
        });
    }
    limits
}

fn quantity(quantity: &Quantity) -> Option<(u64, String)> {
    let bytes = u64::try_from(pod_api::quantity::bytes(quantity).ok()?).ok()?;
    (bytes > 0).then(|| (bytes, quantity.0.clone()))
}

fn first_exceeded(limits: Vec<Limit>) -> Option<String> {
    limits.into_iter().find_map(|limit| {
        let used: u64 = limit.directories.iter().map(|dir| pod_volume::usage(dir).unwrap_or(0)).sum();
        (used > limit.bytes).then_some(limit.message)
    })
}
