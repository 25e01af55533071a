//! Local storage limits: `emptyDir.sizeLimit` and containers' `ephemeral-storage`, measured now and then
//! (kubernetes/kubernetes pkg/kubelet/eviction, localStorageEviction).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pod_api::quantity::{self, Amount, Format};
use pod_plan::Event;

use crate::blocking;
use crate::paths::PodPaths;
use crate::running::Running;

/// The eviction manager's housekeeping interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Who is over a limit is a danger to its neighbours: seconds of grace (`immediateEvictionGracePeriodSeconds`).
const GRACE: u64 = 1;

/// Ends the watch with the pod's task.
#[derive(Debug)]
pub(crate) struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One thing that may not grow past its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    directories: Vec<PathBuf>,
    bytes: u64,
    message: String,
}

/// Pods without limits cost a look at their manifest: limits may come with a changed one.
pub(crate) fn watch(running: &Rc<Running>) -> Watch {
    let running = running.clone();
    Watch(tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let limits = {
                let record = running.record();
                record.pod.spec.as_ref().map(|spec| limits(spec, &running.paths, &record.uid)).unwrap_or_default()
            };
            if limits.is_empty() {
                continue;
            }
            let usage = |dir: &Path| pod_volume::usage(dir).unwrap_or(0);
            let Ok(Some(message)) = blocking(move || Ok(first_exceeded(limits, usage))).await else { continue };
            running.tell(Event::Evicted { reason: "Evicted".into(), message, grace: Some(GRACE) });
            return;
        }
    }))
}

/// In the order in which they are looked at: volumes, the pod as a whole, containers.
fn limits(spec: &PodSpec, paths: &PodPaths, uid: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut volumes = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let Some(empty_dir) = &volume.empty_dir else { continue };
        // In memory the tmpfs itself has the limit.
        if empty_dir.medium.as_deref() == Some("Memory") {
            continue;
        }
        let directory = paths.disk_volume(uid, &volume.name);
        volumes.push(directory.clone());
        let Some((bytes, text)) = empty_dir.size_limit.as_ref().and_then(limit) else { continue };
        limits.push(Limit {
            directories: vec![directory],
            bytes,
            message: format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{text}\". ", volume.name),
        });
    }
    let containers: Vec<&Container> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
    let directories = |container: &Container| {
        let layers = paths.attempt(uid, &container.name, 0);
        let logs = paths.logs(uid).join(&container.name);
        layers.parent().map(PathBuf::from).into_iter().chain([logs]).collect::<Vec<_>>()
    };
    if let Some((bytes, text)) = pod_limit(spec, &containers) {
        limits.push(Limit {
            directories: containers.iter().flat_map(|container| directories(container)).chain(volumes).collect(),
            bytes,
            message: format!("Pod ephemeral local storage usage exceeds the total limit of containers {text}. "),
        });
    }
    for container in containers {
        let Some((bytes, text)) = storage_limit(container).and_then(limit) else { continue };
        limits.push(Limit {
            directories: directories(container),
            bytes,
            message: format!("Container {} exceeded its local ephemeral storage limit \"{text}\". ", container.name),
        });
    }
    limits
}

/// What the containers may use together, volumes included; there is such a limit when each of them has one.
fn pod_limit(spec: &PodSpec, containers: &[&Container]) -> Option<(u64, String)> {
    if !containers.iter().all(|container| storage_limit(container).is_some()) {
        return None;
    }
    let format = containers.iter().find_map(|container| quantity::parse(&storage_limit(container)?.0).ok());
    let format = format.map_or(Format::BinarySi, |(_, format)| format);
    let bytes = pod_api::resources::pod_effective(spec).ok()?.ephemeral_storage_limit?;
    positive(bytes).map(|limit| (limit, Amount::from_whole(bytes).display(format)))
}

fn storage_limit(container: &Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get("ephemeral-storage")
}

/// In bytes, and as Kubernetes prints it.
fn limit(written: &Quantity) -> Option<(u64, String)> {
    let bytes = positive(quantity::bytes(written).ok()?)?;
    Some((bytes, quantity::canonical(written).ok()?))
}

fn positive(bytes: i64) -> Option<u64> {
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// The message of the first limit that `usage` of its directories is above. No directory is measured twice.
fn first_exceeded(limits: Vec<Limit>, usage: impl Fn(&Path) -> u64) -> Option<String> {
    let mut measured: BTreeMap<PathBuf, u64> = BTreeMap::new();
    limits.into_iter().find_map(|limit| {
        let parts = limit.directories.into_iter();
        let used =
            parts.map(|dir| *measured.entry(dir).or_insert_with_key(|dir| usage(dir))).fold(0, u64::saturating_add);
        (used > limit.bytes).then_some(limit.message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Roots;

    const POD: &str = r#"{
        "volumes": [
            {"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "free", "emptyDir": {}},
            {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}}
        ],
        "initContainers": [{"name": "side", "restartPolicy": "Always", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}],
        "containers": [{"name": "app", "resources": {"limits": {"ephemeral-storage": "2048Ki"}}}]
    }"#;

    /// What happens to the pod when its directories that end so use so many KiB.
    fn verdict(spec: &str, used: &[(&str, u64)]) -> Option<String> {
        let spec: PodSpec = serde_json::from_str(spec).unwrap();
        let paths = Roots::below(Path::new("/state")).pod("default", "web");
        let usage = |dir: &Path| {
            let used = used.iter().filter(|(end, _)| dir.ends_with(end));
            used.map(|(_, kib)| kib * 1024).sum()
        };
        first_exceeded(limits(&spec, &paths, "uid"), usage)
    }

    #[test]
    fn at_the_limit_nothing_happens() {
        assert_eq!(verdict(POD, &[("volumes/cache", 1024), ("containers/app", 1000), ("app", 24)]), None);
    }

    #[test]
    fn a_volume_above_its_limit_is_named() {
        let message = verdict(POD, &[("volumes/cache", 1025)]);
        assert_eq!(message.as_deref(), Some("Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". "));
        assert_eq!(verdict(POD, &[("volumes/fast", 1025)]), None);
    }

    #[test]
    fn layers_and_logs_count_together() {
        let message = verdict(POD, &[("containers/side", 1000), ("default_web_uid/side", 25)]);
        assert_eq!(message.as_deref(), Some("Container side exceeded its local ephemeral storage limit \"1Mi\". "));
    }

    #[test]
    fn all_together_may_use_the_sum() {
        let used = [("containers/side", 1000), ("containers/app", 1000), ("volumes/free", 1073)];
        let message = verdict(POD, &used);
        assert_eq!(
            message.as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ")
        );
        assert_eq!(verdict(POD, &used[..2]), None);
        let one_is_free = POD
            .replace("2048Ki", "0")
            .replace("\"resources\": {\"limits\": {\"ephemeral-storage\": \"1Mi\"}}", "\"tty\": false");
        assert_eq!(verdict(&one_is_free, &used), None);
    }

    #[test]
    fn no_limits_are_no_work() {
        let paths = Roots::below(Path::new("/state")).pod("default", "web");
        let spec: PodSpec = serde_json::from_str(r#"{"containers": [{"name": "app"}]}"#).unwrap();
        assert_eq!(limits(&spec, &paths, "uid"), []);
        assert_eq!(limits(&PodSpec::default(), &paths, "uid"), []);
    }
}
