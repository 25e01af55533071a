//! What the containers of a pod have in common: volumes, ports of the host, resources.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};
use pod_api::qos::qos_class;
use pod_api::resources::pod_effective;
use pod_api::role::containers;

use super::words::{bytes, cores};

/// The lines of the section, or nothing when there is nothing to say.
pub(super) fn write(pod: &Pod, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let mut lines: Vec<(String, String)> = Vec::new();
    lines.extend(
        spec.volumes.iter().flatten().map(|volume| (format!("volume {}", volume.name), volume_text(spec, volume))),
    );
    lines.extend(host_ports(spec));
    lines.extend(resources(spec).map(|text| ("resources".to_owned(), text)));
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nShared")?;
    let width = lines.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|(what, text)| writeln!(out, "  {what:<width$}  {text}"))
}

/// `emptyDir: app at /data, proxy at /data (read-only)`.
fn volume_text(spec: &PodSpec, volume: &Volume) -> String {
    let mounts = containers(spec).flat_map(|(_, container)| {
        let own = container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume.name);
        own.map(|mount| {
            let read_only = if mount.read_only == Some(true) { " (read-only)" } else { "" };
            format!("{} at {}{read_only}", container.name, mount.mount_path)
        })
    });
    let mounts: Vec<String> = mounts.collect();
    let mounts = if mounts.is_empty() { "mounted nowhere".to_owned() } else { mounts.join(", ") };
    format!("{}: {mounts}", kind(volume))
}

fn kind(volume: &Volume) -> String {
    if let Some(source) = &volume.host_path {
        return format!("hostPath {}", source.path);
    }
    if let Some(source) = &volume.config_map {
        return format!("configMap {}", source.name);
    }
    if let Some(source) = &volume.secret {
        return format!("secret {}", source.secret_name.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return format!("claim {} (a local directory that outlives the pod)", source.claim_name);
    }
    if let Some(source) = &volume.image {
        return format!("image {}", source.reference.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.empty_dir {
        let medium = if source.medium.as_deref() == Some("Memory") { " in memory" } else { "" };
        return format!("emptyDir{medium}");
    }
    let others = [
        (volume.projected.is_some(), "projected"),
        (volume.downward_api.is_some(), "downwardAPI"),
        (volume.ephemeral.is_some(), "ephemeral (a local directory)"),
    ];
    others.iter().find(|(set, _)| *set).map_or("volume", |(_, name)| name).to_owned()
}

/// Every published port; none of them is while the pod is on the host's network anyway.
fn host_ports(spec: &PodSpec) -> Vec<(String, String)> {
    if spec.host_network == Some(true) {
        return vec![("network".to_owned(), "the host's: ports are bound there directly".to_owned())];
    }
    let ports = containers(spec).flat_map(|(_, container)| {
        container.ports.iter().flatten().filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port != 0)?;
            let address = port.host_ip.as_deref().map(|ip| format!("{ip}:")).unwrap_or_default();
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some((
                format!("port {address}{host_port}/{protocol}"),
                format!("{} at {}", container.name, port.container_port),
            ))
        })
    });
    ports.collect()
}

/// The pod's effective numbers: what its own cgroup gets.
fn resources(spec: &PodSpec) -> Option<String> {
    let (class, effective) = (qos_class(spec).ok()?, pod_effective(spec).ok()?);
    let mut parts = Vec::new();
    let mut part = |what: &str, cpu: Option<i64>, memory: Option<i64>| {
        let cpu = cpu.filter(|cpu| *cpu > 0).map(|cpu| format!("cpu {}", cores(cpu)));
        let memory = memory.filter(|memory| *memory > 0).map(|memory| format!("memory {}", bytes(memory)));
        let amounts: Vec<String> = cpu.into_iter().chain(memory).collect();
        if !amounts.is_empty() {
            parts.push(format!("{what} {}", amounts.join(", ")));
        }
    };
    part("requests", Some(effective.cpu_request_millis), Some(effective.memory_request));
    part("the pod's limit", effective.cgroup_cpu_limit_millis(), effective.cgroup_memory_limit());
    let own = containers(spec).filter_map(|(_, container)| {
        let limit = container.resources.as_ref()?.limits.as_ref()?.get("memory")?;
        Some(format!("{} {}", container.name, bytes(pod_api::quantity::bytes(limit).ok()?)))
    });
    let own: Vec<String> = own.collect();
    if !own.is_empty() {
        parts.push(format!("memory limits: {}", own.join(", ")));
    }
    (!parts.is_empty()).then(|| format!("{}; {}", class.as_str(), parts.join("; ")))
}
